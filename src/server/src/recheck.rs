//! Policy has changed: whatever is open is judged again, for what it was asked for then.
//!
//! Invariant: only what a new request would be denied by a rule, or for want of one, ends. A rule
//! that cannot be evaluated ends nothing here, and is an alarm; neither does a set without a single
//! rule of the operator's, which is what a directory looks like that is not mounted. Doing it again,
//! or on several replicas, does nothing more.
//!
//! The question is put as it was put then: with the claims, what the task's token is bound to, the
//! purpose, and the lifetime, the time and the address that the task or the lease was asked for
//! with, each its own. A rule on office hours ends nothing in the evening that it permitted in the
//! morning.

use std::{net::IpAddr, sync::Arc, time::Duration};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Lease, LeaseId, State, StoreError, Task, Withdrawal, audit::Entry, spawn};
use dayfly_store::{Inspected, Look};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Role,
    broker::Broker,
    identity::Principal,
    policy::{Ask, Circumstances, Denial, EVALUATION_ERROR, Policies},
};

/// Tasks, and leases of one task, that are read at a time.
const PAGE: u32 = 100;
/// Between two pages of tasks, for those who have something to ask.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after the store did not answer.
const RETRY: Duration = Duration::from_secs(5);
/// Who ends what is denied, in the audit log.
const ACTOR: &str = "policy";

/// Who opened a task, and from where: what the task's row keeps of its identity.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opener {
    #[serde(flatten)]
    pub(crate) principal: Principal,
    /// None where a proxy stands before us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_address: Option<IpAddr>,
    /// The person who asked for it. Not there in what older versions have stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_behalf_of: Option<Principal>,
}

/// Has everything judged by the rules that are loaded now, in the background.
pub(crate) fn begin(broker: &Arc<Broker>) {
    let broker = Arc::clone(broker);
    drop(spawn(async move { judge_all(&broker).await }));
}

/// Twice: what the rules before permitted may be written as late as the longest request takes.
async fn judge_all(broker: &Broker) {
    let policies = broker.policies.load_full();
    if !policies.has_own_rules() {
        tracing::error!(policy.hash = policies.hash(), "policy.recheck.held");
        return;
    }
    for wait in [Duration::ZERO, broker.limits.request_timeout] {
        broker.clock.sleep(wait).await;
        while is_current(broker, &policies) {
            match pass(broker, &policies).await {
                Ok(ended) => {
                    tracing::info!(policy.hash = policies.hash(), ended, "policy.rechecked");
                    break;
                }
                Err(error) => tracing::error!(%error, "policy.recheck.failed"),
            }
            broker.clock.sleep(RETRY).await;
        }
    }
}

/// Whoever loaded other rules since judges by those.
fn is_current(broker: &Broker, policies: &Arc<Policies>) -> bool {
    Arc::ptr_eq(&broker.policies.load_full(), policies)
}

/// Judges every open task and its leases; answers with how many ended.
async fn pass(broker: &Broker, policies: &Arc<Policies>) -> Result<u64, StoreError> {
    let (mut after, mut ended) = (None, 0);
    loop {
        let (tasks, next) = broker.store.open_tasks(after, PAGE).await?;
        for task in &tasks {
            if !is_current(broker, policies) {
                return Ok(ended);
            }
            ended += judge(broker, policies, task).await?;
        }
        after = next;
        if after.is_none() {
            return Ok(ended);
        }
        broker.clock.sleep(PAUSE).await;
    }
}

async fn judge(broker: &Broker, policies: &Policies, task: &Task) -> Result<u64, StoreError> {
    let opener: Opener = match serde_json::from_value(task.identity.clone()) {
        Ok(opener) => opener,
        Err(error) => {
            tracing::error!(task.id = %task.id, %error, "task.identity.unreadable");
            return Ok(0);
        }
    };
    let ttl_seconds = task.expires_at.since(task.opened_at).as_secs().cast_signed();
    let ask = Ask::OpenTask { purpose: &task.purpose, ttl_seconds };
    let then = opener.circumstances(task, task.opened_at);
    if let Some(denial) = opener.denied(policies, &ask, &then) {
        return withdraw(broker, task, None, &denial).await;
    }
    let (mut after, mut ended) = (None, 0);
    loop {
        let rows = broker.store.inspect(Look::Living(task.id, after, PAGE)).await?;
        for row in &rows {
            let Some(lease) = in_use(row) else { continue };
            if let Some(denial) = judge_lease(broker, policies, (&opener, task), (lease, row)) {
                ended += withdraw(broker, task, Some(lease), &denial).await?;
            }
        }
        after = rows.last().map(|row| row.id);
        if rows.len() < PAGE as usize {
            return Ok(ended);
        }
    }
}

/// What dies already is not judged, and what cannot be read is put aside elsewhere.
fn in_use(row: &Inspected) -> Option<&Lease> {
    let lease = row.lease.as_ref().ok()?;
    match lease.state {
        State::Pending | State::Active { .. } => Some(lease),
        State::Revoking { .. } | State::Revoked { .. } | State::Abandoned { .. } => None,
    }
}

/// A role that is gone from the configuration, or is on another backend now, is one that nobody
/// may mint.
fn judge_lease(
    broker: &Broker,
    policies: &Policies,
    (opener, task): (&Opener, &Task),
    (lease, row): (&Lease, &Inspected),
) -> Option<Denial> {
    let role = broker.roles.find(&lease.role);
    let Some(role) = role.filter(|role| role.facts.backend == lease.backend) else {
        return Some(Denial::by_default(policies.hash(), false));
    };
    let record = record_of(row, lease.id);
    let own_task = task.id.to_string();
    let ask = Ask::Mint {
        role: &role.facts,
        purpose: &task.purpose,
        ttl_seconds: asked_for(record.as_ref(), role),
        task: &own_task,
    };
    let then = Circumstances {
        own_task: Some(own_task.clone()),
        source_address: asked_from(record.as_ref(), opener),
        ..opener.circumstances(task, lease.issued_at)
    };
    opener.denied(policies, &ask, &then)
}

/// What was written down when it was decided that the lease may be.
fn record_of(row: &Inspected, lease: LeaseId) -> Option<Value> {
    let record = row.decision.as_ref().filter(|record| record.lease == Some(lease))?;
    serde_json::from_str(&record.detail).ok()
}

/// The lifetime that was decided on: a renewal has moved the row's.
fn asked_for(record: Option<&Value>, role: &Role) -> i64 {
    let seconds = record.and_then(|record| record.get("ttl_seconds").and_then(Value::as_i64));
    seconds.unwrap_or_else(|| role.ttl.as_secs().cast_signed())
}

/// The address that the lease was asked for from, which need not be the one that opened the task.
/// Records of older versions do not say, and then that one is the best guess.
fn asked_from(record: Option<&Value>, opener: &Opener) -> Option<IpAddr> {
    match record.and_then(|record| record.get("source_address")) {
        None => opener.source_address,
        Some(said) => said.as_str().and_then(|text| text.parse().ok()),
    }
}

impl Opener {
    /// What surrounded the question whether to open `task`, when it was put at `now`.
    fn circumstances(&self, task: &Task, now: Timestamp) -> Circumstances {
        Circumstances {
            source_address: self.source_address,
            now,
            own_task: None,
            binding: task.binding,
            on_behalf_of: self.on_behalf_of.clone(),
        }
    }

    /// The denial that `ask` would get, if a rule or the want of one is its reason.
    fn denied(&self, policies: &Policies, ask: &Ask<'_>, then: &Circumstances) -> Option<Denial> {
        let denial = policies.authorize(&self.principal, ask, then).err()?;
        if let Some(error) = &denial.0.evaluation_error {
            tracing::error!(action = ask.name(), error, "policy.evaluation.failed");
        }
        (denial.denied_by() != EVALUATION_ERROR).then_some(denial)
    }
}

async fn withdraw(
    broker: &Broker,
    task: &Task,
    lease: Option<&Lease>,
    denial: &Denial,
) -> Result<u64, StoreError> {
    let rules: Vec<&str> = denial.0.rules.iter().map(|rule| rule.id.as_str()).collect();
    let action = if lease.is_some() { "mint" } else { "open_task" };
    let entry = Entry::new("decision.denied", task.principal.as_str())
        .with("action", action)
        .with("rules", rules)
        .with("role", lease.map(|lease| lease.role.as_str()))
        .with("policy", denial.0.policy_hash.as_str())
        .with("recheck", true)
        .on_behalf_of(task.on_behalf_of.as_ref());
    let entry = match denial.0.denied {
        Some(party) => entry.with("denied", party.as_str()),
        None => entry,
    };
    let withdrawal = Withdrawal {
        task: task.id,
        lease: lease.map(|lease| lease.id),
        actor: ACTOR.to_owned(),
        denial: entry,
    };
    let ended = broker.engine.withdraw(withdrawal).await?;
    if ended {
        tracing::warn!(task.id = %task.id, action, rule = denial.denied_by(), "policy.withdrawn");
    }
    Ok(u64::from(ended))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dayfly_lease::{Binding, JobKeys, TaskId, TaskState};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::identity::{ClaimValue, Kind};

    const MORNING: &str = "2026-01-05T09:00:00Z";

    fn opener() -> Opener {
        let principal = Principal {
            kind: Kind::Workload,
            issuer: "ci".to_owned(),
            subject: "repo".to_owned(),
            claims: BTreeMap::from([("ref".to_owned(), ClaimValue::Text("main".to_owned()))]),
            token_hash: String::new(),
            token_id: Some("1".to_owned()),
            token_expires_at: Timestamp::MAX,
            single_use: true,
            first_key_binds: false,
        };
        let source_address = Some("192.0.2.1".parse().unwrap());
        Opener { principal, source_address, on_behalf_of: None }
    }

    /// The same on behalf of somebody in these groups.
    fn opener_for(groups: &[&str]) -> Opener {
        let own = opener();
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let person = Principal {
            kind: Kind::Human,
            issuer: "people".to_owned(),
            subject: "ada".to_owned(),
            claims: BTreeMap::from([("groups".to_owned(), ClaimValue::List(groups))]),
            ..own.principal.clone()
        };
        Opener { on_behalf_of: Some(person), ..own }
    }

    fn task() -> Task {
        let morning = Timestamp::parse_rfc3339(MORNING).unwrap();
        Task {
            id: TaskId::from_uuid(Uuid::nil()),
            principal: opener().principal.id(),
            issuer: "ci".to_owned(),
            identity: json!(opener()),
            purpose: "a run".to_owned(),
            token_hash: [0; 32],
            state: TaskState::Open,
            opened_at: morning,
            expires_at: morning.plus(Duration::from_mins(1)),
            heartbeat: None,
            keys: JobKeys::default(),
            binding: Some(Binding::Key([1; 32])),
            on_behalf_of: None,
        }
    }

    fn denied(rules: &str) -> Option<String> {
        denied_to(&opener(), rules)
    }

    fn denied_to(opener: &Opener, rules: &str) -> Option<String> {
        let files = [("test.cedar".to_owned(), rules.to_owned())];
        let policies = Policies::from_texts(&files, &[]).unwrap();
        let ask = Ask::OpenTask { purpose: "a run", ttl_seconds: 60 };
        let task = task();
        let denial = opener.denied(&policies, &ask, &opener.circumstances(&task, task.opened_at));
        denial.map(|denial| denial.denied_by().to_owned())
    }

    #[test]
    fn who_opened_a_task_is_kept_as_it_was_kept_before_and_with_the_address() {
        let kept = json!(opener());
        let principal: Principal = serde_json::from_value(kept.clone()).unwrap();
        assert_eq!(principal, opener().principal);
        let again: Opener = serde_json::from_value(kept).unwrap();
        assert_eq!(again.principal, opener().principal);
        assert_eq!(again.source_address, opener().source_address);
        let before: Opener = serde_json::from_value(json!(opener().principal)).unwrap();
        assert_eq!((before.source_address, before.on_behalf_of), (None, None));
        let for_ada = opener_for(&["on-call"]);
        let again: Opener = serde_json::from_value(json!(for_ada)).unwrap();
        assert_eq!(
            (again.principal, again.on_behalf_of),
            (for_ada.principal, for_ada.on_behalf_of)
        );
    }

    #[test]
    fn what_was_opened_on_somebodys_behalf_is_judged_for_both() {
        let programs = r#"@id("programs") permit (principal is Dayfly::Workload,
            action == Dayfly::Action::"open_task", resource) when { context has on_behalf_of };"#;
        let people = r#"@id("people") permit (
            principal is Dayfly::Human in Dayfly::Claim::"groups=on-call",
            action == Dayfly::Action::"open_task", resource) when { context has actor };"#;
        let (ada, bob) = (opener_for(&["on-call"]), opener_for(&["everyone"]));
        let both = format!("{programs}{people}");
        assert_eq!(denied_to(&ada, &both), None);
        for (opener, rules) in [(&bob, both.as_str()), (&ada, programs), (&ada, people)] {
            assert_eq!(denied_to(opener, rules).as_deref(), Some("default-deny"), "{rules}");
        }
    }

    #[test]
    fn a_lease_is_judged_by_the_address_that_it_was_asked_for_from() {
        let from = |record: Option<Value>| {
            asked_from(record.as_ref(), &opener()).map(|address| address.to_string())
        };
        let opened_from = Some("192.0.2.1".to_owned());
        assert_eq!(from(None), opened_from);
        assert_eq!(from(Some(json!({ "ttl_seconds": 60 }))), opened_from, "of an older version");
        let elsewhere = json!({ "source_address": "2001:db8::7" });
        assert_eq!(from(Some(elsewhere)).as_deref(), Some("2001:db8::7"));
        assert_eq!(from(Some(json!({ "source_address": null }))), None, "behind a proxy");
    }

    #[test]
    fn only_a_decision_ends_something() {
        let permit = r#"@id("open") permit (principal, action == Dayfly::Action::"open_task",
            resource) when { context has source_address &&
            context.source_address.isInRange(ip("192.0.2.0/24")) &&
            context.now < datetime("2026-01-05T10:00:00Z") &&
            context.token_binding == "key" };"#;
        assert_eq!(denied(permit), None, "as it was then: from there, in the morning, bound");
        assert_eq!(
            denied(r#"@id("other") permit (principal is Dayfly::Human, action, resource);"#)
                .as_deref(),
            Some("default-deny")
        );
        let forbid = r#"@id("no") forbid (principal, action, resource);"#;
        assert_eq!(denied(&format!("{permit}{forbid}")).as_deref(), Some("no"));
        // Adding one to the largest number cannot be done.
        let faulty = r#"@id("faulty") forbid (principal, action == Dayfly::Action::"open_task",
            resource) when { context.ttl_seconds + 9223372036854775807 > 0 };"#;
        assert_eq!(denied(&format!("{permit}{faulty}")), None, "an alarm, and no decision");
        assert_eq!(denied(&format!("{permit}{faulty}{forbid}")).as_deref(), Some("no"));
    }
}

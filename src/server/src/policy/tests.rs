//! What the rules must never let through, and what a set of rules must not contain.

mod answers;
mod behalf;
mod faults;
mod hostile;
mod mentions;
mod portions;

use std::collections::BTreeMap;

use dayfly_backend_sdk::Timestamp;

use super::*;
use crate::identity::{ClaimValue, Kind};

fn at_noon() -> Circumstances {
    let now = Timestamp::parse_rfc3339("2026-01-05T12:00:00.25Z").unwrap();
    Circumstances { now, ..Circumstances::default() }
}

fn with_task(task: &str) -> Circumstances {
    Circumstances { own_task: Some(task.to_owned()), ..at_noon() }
}

fn for_person(person: &Principal) -> Circumstances {
    Circumstances { on_behalf_of: Some(person.clone()), ..at_noon() }
}

fn principal(kind: Kind, issuer: &str, subject: &str) -> Principal {
    Principal {
        kind,
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        claims: BTreeMap::new(),
        token_hash: "00".repeat(32),
        token_id: None,
        token_expires_at: Timestamp::MAX,
        single_use: true,
        first_key_binds: false,
    }
}

/// A workload of `github` with these scalar claims.
fn job(claims: &[(&str, &str)]) -> Principal {
    let mut job = principal(Kind::Workload, "github", "repo:a/b");
    let text = |value: &str| ClaimValue::Text(value.to_owned());
    job.claims = claims.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    job
}

/// A human of `corporate` in these groups.
fn member(groups: &[&str]) -> Principal {
    let mut member = principal(Kind::Human, "corporate", "ada");
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    member.claims.insert("groups".to_owned(), ClaimValue::List(groups));
    member
}

fn role(name: &str, backend: &str) -> RoleFacts {
    RoleFacts {
        name: name.to_owned(),
        backend: backend.to_owned(),
        owner: "a-team".to_owned(),
        labels: BTreeMap::new(),
    }
}

fn labelled(name: &str, backend: &str, labels: &[(&str, &str)]) -> RoleFacts {
    let label = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    RoleFacts { labels: labels.iter().map(label).collect(), ..role(name, backend) }
}

fn mint(role: &RoleFacts) -> Ask<'_> {
    Ask::Mint { role, purpose: "a test", ttl_seconds: 60, task: "tsk_1" }
}

fn lease<'a>(owner: &'a str, task: &'a str) -> LeaseFacts<'a> {
    LeaseFacts { lease: "lse_1", owner, task, role: "reader", backend: "orders" }
}

fn try_rules(text: &str) -> Result<Policies, Vec<PolicyFault>> {
    let roles = [role("reader", "orders"), role("writer", "orders"), role("é", "cache")];
    Policies::from_texts(&[("rules.cedar".to_owned(), text.to_owned())], &roles)
}

fn rules(text: &str) -> Policies {
    try_rules(text).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A set with one rule that permits minting when `condition` holds.
fn minting_when(condition: &str) -> Policies {
    rules(&format!(
        r#"@id("t") permit(principal, action == Dayfly::Action::"mint", resource) when {{ {condition} }};"#
    ))
}

fn denied_by(policies: &Policies, principal: &Principal, ask: &Ask<'_>) -> String {
    match policies.authorize(principal, ask, &at_noon()) {
        Ok(allowed) => panic!("allowed: {allowed:?}"),
        Err(denial) => denial.denied_by().to_owned(),
    }
}

fn allows(policies: &Policies, principal: &Principal, ask: &Ask<'_>) -> bool {
    policies.authorize(principal, ask, &at_noon()).is_ok()
}

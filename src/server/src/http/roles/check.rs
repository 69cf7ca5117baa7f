//! `POST /api/v1/roles/{name}/check`: what would be decided if the caller asked for it now.
//!
//! Invariant: the answer is that of the code which decides when it is asked in earnest, and nothing
//! comes of it: no task, no lease, no record of a decision, and a token that may be used once may
//! still be used. Who sees a role neither here nor in the list hears of it what they hear of one
//! that is not there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use dayfly_api as api;
use dayfly_lease::{Binding, Line, Owner, Task, TaskId, TaskState};

use super::{
    super::{
        caller::Caller,
        json::{Body, Id},
        leases::create::{Decided, Denied, Wish, decided},
        problem::Fault,
        tasks::create::{acceptable, binding},
    },
    show,
};
use crate::{
    Role,
    broker::Broker,
    identity::ClaimValue,
    policy::{Allowed, Ask, DEFAULT_DENY, Decision, Denial, Policies},
};

/// How long a task may take whose caller says nothing of that, nor of the credential.
const TASK_TTL: Duration = Duration::from_mins(15);
const PURPOSE: &str = "role check";
const MINT: &str = "mint";

/// Says what would be decided if the caller asked for the role now. Nothing is minted, opened,
/// recorded as a decision or used up; quotas are not looked at.
#[utoipa::path(
    post, path = "/api/v1/roles/{name}/check", tag = "workload", request_body = api::CheckRole,
    security(("task" = []), ("federated" = [])),
    params(
        ("name" = String, Path),
        ("DPoP" = Option<String>, Header, description = "a proof of the key (RFC 9449) to which the task's token would be bound"),
    ),
    responses(
        (status = 200, body = api::RoleCheck),
        (status = 400, body = api::Problem, content_type = "application/problem+json"),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "there is no such role, and the caller may list them all"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 413, body = api::Problem, content_type = "application/problem+json"),
        (status = 422, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(name): Id,
    Body { value: wanted, .. }: Body<api::CheckRole>,
) -> Result<Json<api::RoleCheck>, Fault> {
    let place = match Place::of(&broker, &caller, &wanted) {
        Ok(place) => place,
        Err(fault) => {
            caller.note_refusal(&broker, fault.code(), None).await?;
            return Err(fault);
        }
    };
    let caller = match &wanted.on_behalf_of {
        Some(api::PersonToken(token)) => caller.on_behalf_of(&broker, token).await?,
        None => caller,
    };
    let caller = match &place.new {
        Some(new) => caller.bound(new.binding),
        None => caller,
    };
    let mut questions = Vec::with_capacity(2);
    questions
        .extend(place.new.as_ref().map(|new| Question::of_task(&broker, &caller, new, &place)));
    let wish = Wish {
        task: place.task,
        purpose: &place.purpose,
        role: &name,
        ttl_seconds: wanted.ttl_seconds,
        pointer: "",
    };
    let (role, permit, ttl) = match decided(&broker, &caller, &wish) {
        Ok(Decided { role, permit, ttl: Ok(ttl) }) => (role, permit, ttl),
        Ok(Decided { ttl: Err(error), .. }) => {
            caller.note_refusal(&broker, "invalid_ttl", Some(&name)).await?;
            return Err(Fault::field("invalid_ttl", "/ttl_seconds", error.to_string()));
        }
        Err(denied) => {
            let (question, about) = place.denied(&broker, &caller, denied, wanted.ttl_seconds)?;
            questions.push(question);
            return Ok(Json(answer(name, &caller, questions, wanted.explain, about)));
        }
    };
    let context = place.context_of_mint(&broker, &caller, role, ttl);
    // The permit is spent on this answer.
    questions.push(Question { action: MINT, decision: permit.decision().clone(), context });
    let mut check = answer(name, &caller, questions, wanted.explain, Some(show(role)));
    tell_of(&broker, role, place.remaining, &mut check).await?;
    check.ttl_seconds = check.allowed.then(|| ttl.min(place.remaining).as_secs());
    Ok(Json(check))
}

/// The task that the credential would be for.
struct Place {
    task: TaskId,
    purpose: String,
    /// The longest that it could still take.
    remaining: Duration,
    /// None where the token is of a task already.
    new: Option<New>,
}

/// What a task would be opened with.
struct New {
    ttl: Duration,
    binding: Option<Binding>,
}

impl Place {
    fn of(broker: &Broker, caller: &Caller, wanted: &api::CheckRole) -> Result<Self, Fault> {
        match &caller.task {
            Some(task) => Self::in_task(broker, task, wanted),
            None => Self::in_new(broker, caller, wanted),
        }
    }

    fn in_task(broker: &Broker, task: &Task, wanted: &api::CheckRole) -> Result<Self, Fault> {
        let given = [
            ("/purpose", wanted.purpose.is_some()),
            ("/task_ttl_seconds", wanted.task_ttl_seconds.is_some()),
            ("/bind", wanted.bind.is_some()),
            ("/on_behalf_of", wanted.on_behalf_of.is_some()),
        ];
        if let Some((pointer, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            let detail = "the bearer is a task's token, and its task has this already";
            return Err(Fault::field("task_is_open", pointer, detail));
        }
        let now = broker.clock.now();
        match task.state {
            TaskState::Open if task.is_open(now) => {}
            TaskState::Open => return Err(Fault::task_ended("expired")),
            TaskState::Closed { end, .. } => return Err(Fault::task_ended(end.as_str())),
        }
        Ok(Self {
            task: task.id,
            purpose: task.purpose.clone(),
            remaining: task.expires_at.since(now),
            new: None,
        })
    }

    /// A task as it would be opened, with an id that nothing will ever have.
    fn in_new(broker: &Broker, caller: &Caller, wanted: &api::CheckRole) -> Result<Self, Fault> {
        let asked = wanted.ttl_seconds.filter(|seconds| *seconds > 0);
        let asked = asked.unwrap_or_else(|| TASK_TTL.as_secs().cast_signed());
        let longest = broker.limits.task_ttl_max.as_secs().cast_signed();
        let task = api::CreateTask {
            purpose: wanted.purpose.clone().unwrap_or_else(|| PURPOSE.to_owned()),
            ttl_seconds: wanted.task_ttl_seconds.unwrap_or_else(|| asked.min(longest)),
            heartbeat_seconds: None,
            bind: wanted.bind,
            roles: Vec::new(),
            on_behalf_of: None,
        };
        let (ttl, _) = acceptable(broker, &task).map_err(|fault| {
            // What it calls `/ttl_seconds` is called otherwise here.
            if fault.code() == "invalid_ttl" {
                Fault::field("invalid_ttl", "/task_ttl_seconds", fault.detail())
            } else {
                fault
            }
        })?;
        // Where nothing is said of the task, it is no bound of the credential's.
        let remaining = if wanted.task_ttl_seconds.is_some() { ttl } else { Duration::MAX };
        let binding = binding(broker, caller, wanted.bind)?;
        Ok(Self {
            task: TaskId::new(broker.clock.now(), broker.entropy.as_ref()),
            purpose: task.purpose,
            remaining,
            new: Some(New { ttl, binding }),
        })
    }

    /// The no to a mint, and the role if the caller sees it in spite of that. Of any other one they
    /// hear, word for word, what is said of a role that is not there.
    fn denied(
        &self,
        broker: &Broker,
        caller: &Caller,
        Denied { role, denial }: Denied<'_>,
        asked: Option<i64>,
    ) -> Result<(Question, Option<api::Role>), Fault> {
        log_fault(MINT, &denial.0);
        let sees_all = caller.may_see(broker, &Ask::ListRoles);
        let denial = match role {
            None if sees_all => return Err(Fault::not_found()),
            Some(_) if !sees_all && denial.denied_by() == DEFAULT_DENY => {
                Denial::by_default(&denial.0.policy_hash, caller.person.is_some())
            }
            Some(_) | None => denial,
        };
        let context = self.context_of_denial(broker, caller, asked);
        let question = Question { action: MINT, decision: denial.0, context };
        Ok((question, role.filter(|_| sees_all).map(show)))
    }

    fn context_of_mint(
        &self,
        broker: &Broker,
        caller: &Caller,
        role: &Role,
        ttl: Duration,
    ) -> BTreeMap<String, String> {
        let task = self.task.to_string();
        let ttl_seconds = ttl.as_secs().cast_signed();
        let ask = Ask::Mint { role: &role.facts, purpose: &self.purpose, ttl_seconds, task: &task };
        let circumstances = caller.circumstances_of(broker, self.task);
        self.without_id(Policies::context(&ask, &circumstances))
    }

    /// The same without what only the role itself could tell.
    fn context_of_denial(
        &self,
        broker: &Broker,
        caller: &Caller,
        asked: Option<i64>,
    ) -> BTreeMap<String, String> {
        let ttl_seconds = asked.unwrap_or(0);
        let ask = Ask::OpenTask { purpose: &self.purpose, ttl_seconds };
        let circumstances = caller.circumstances_of(broker, self.task);
        let mut context = self.without_id(Policies::context(&ask, &circumstances));
        context.insert("task".to_owned(), self.shown_task());
        if asked.is_none() {
            context.remove("ttl_seconds");
        }
        context
    }

    /// The id of a task that will not be is no use to anybody.
    fn without_id(&self, mut context: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for name in ["own_task", "task"] {
            if let Some(value) = context.get_mut(name) {
                *value = self.shown_task();
            }
        }
        context
    }

    fn shown_task(&self) -> String {
        if self.new.is_some() { "(a new one)".to_owned() } else { self.task.to_string() }
    }
}

/// What policy was asked, and what it answered.
struct Question {
    action: &'static str,
    decision: Decision,
    context: BTreeMap<String, String>,
}

impl Question {
    fn of_task(broker: &Broker, caller: &Caller, new: &New, place: &Place) -> Self {
        let ttl_seconds = new.ttl.as_secs().cast_signed();
        let ask = Ask::OpenTask { purpose: &place.purpose, ttl_seconds };
        let circumstances = caller.circumstances(broker);
        let answer = broker.policies.load().authorize(&caller.principal, &ask, &circumstances);
        let decision = answer.map_or_else(|denial| denial.0, Allowed::into_decision);
        log_fault(ask.name(), &decision);
        let context = Policies::context(&ask, &circumstances);
        Self { action: ask.name(), decision, context }
    }

    fn shown(self, explain: bool) -> api::RoleDecision {
        let Decision { allowed, rules, denied, .. } = self.decision;
        let rules = rules.into_iter().filter(|_| explain || !allowed);
        let rules = rules.map(|rule| api::DecidingRule { id: rule.id, reason: rule.reason });
        api::RoleDecision {
            action: self.action.to_owned(),
            allowed,
            rules: rules.collect(),
            denied: denied.map(|party| party.as_str().to_owned()),
            context: if explain { self.context } else { BTreeMap::new() },
        }
    }
}

/// There is no record of a check; a rule that can't be evaluated is told where it always is.
fn log_fault(action: &str, decision: &Decision) {
    if let Some(error) = &decision.evaluation_error {
        tracing::error!(action, error, "policy.evaluation.failed");
    }
}

fn answer(
    role: String,
    caller: &Caller,
    questions: Vec<Question>,
    explain: bool,
    about: Option<api::Role>,
) -> api::RoleCheck {
    let denial = questions.iter().find(|question| !question.decision.allowed);
    let denial = denial.map(|question| Denial(question.decision.clone()));
    let policy = questions.last().map(|question| question.decision.policy_hash.clone());
    let caller = explain.then(|| shown_caller(caller, policy.unwrap_or_default()));
    api::RoleCheck {
        role,
        allowed: denial.is_none(),
        denied_by: denial.as_ref().map(|denial| denial.denied_by().to_owned()),
        detail: denial.as_ref().map(Denial::explanation),
        ttl_seconds: None,
        about,
        belts: Vec::new(),
        renewable: None,
        variables: None,
        hindered_by: Vec::new(),
        decisions: questions.into_iter().map(|question| question.shown(explain)).collect(),
        caller,
    }
}

fn shown_caller(caller: &Caller, policy: String) -> api::CheckedCaller {
    let principal = &caller.principal;
    let claims = principal.claims.iter().map(|(name, value)| {
        let value = match value {
            ClaimValue::List(entries) => api::Claim::List(entries.clone()),
            ClaimValue::Text(text) => api::Claim::Text(text.clone()),
        };
        (name.clone(), value)
    });
    api::CheckedCaller {
        principal: principal.id(),
        kind: principal.kind.as_str().to_owned(),
        claims: claims.collect(),
        policy,
    }
}

/// What may be known of a role to who may mint it.
async fn tell_of(
    broker: &Broker,
    role: &Role,
    remaining: Duration,
    check: &mut api::RoleCheck,
) -> Result<(), Fault> {
    let suspended = broker.engine.store().standing().await?.suspended.is_some();
    let line = broker.engine.line(&role.facts.backend);
    if let Some(line) = line {
        let capabilities = line.backend().capabilities();
        check.renewable = Some(role.renewable && capabilities.renew);
        let belts = capabilities.belts();
        check.belts = belts.into_iter().map(|belt| belt.as_str().to_owned()).collect();
        let variables = line.backend().variables(&role.template);
        check.variables = variables.map(|pairs| {
            pairs.into_iter().map(|(name, field)| (name.into_owned(), field.into_owned())).collect()
        });
    }
    let hindrances = [
        ("minting_suspended", suspended),
        ("task_ending", remaining < role.ttl_min),
        ("backend_down", line.is_some_and(Line::is_down)),
        ("prefix_of_another", line.is_some_and(|line| matches!(line.owner(), Owner::Another(_)))),
    ];
    let hindrances = hindrances.into_iter().filter(|(_, is_so)| *is_so);
    check.hindered_by = hindrances.map(|(name, _)| name.to_owned()).collect();
    Ok(())
}

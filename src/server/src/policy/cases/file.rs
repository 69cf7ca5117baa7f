//! The form of a file of cases.
//!
//! Invariant: an unknown key, a missing one and a name that stands for nothing are faults, so
//! that a case never tests less than it seems to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Binding;
use serde::Deserialize;

use super::{
    super::{Ask, Circumstances, LeaseFacts, Party, PolicyFault, RoleFacts},
    Verdict,
};
use crate::identity::{ClaimValue, Kind, Principal};

const NOW: &str = "2026-01-05T12:00:00Z";
const PURPOSE: &str = "a case";
const TASK: &str = "tsk_case";
const TTL_SECONDS: i64 = 300;

/// A file of cases: who, which roles, and the cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    #[serde(default)]
    principals: BTreeMap<String, PrincipalTable>,
    #[serde(default)]
    roles: BTreeMap<String, RoleTable>,
    #[serde(default, rename = "case")]
    pub(super) cases: Vec<CaseTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalTable {
    kind: KindName,
    issuer: String,
    subject: String,
    #[serde(default)]
    claims: BTreeMap<String, ClaimTable>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Human,
    Workload,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum ClaimTable {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleTable {
    backend: String,
    owner: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    AbandonLease,
    CompleteTask,
    DisableIdentity,
    EnableIdentity,
    HeartbeatTask,
    ListDisabled,
    ListLeases,
    ListOwn,
    ListRoles,
    ListTasks,
    Mint,
    OpenTask,
    ReadAudit,
    ReadLease,
    ReadStanding,
    ReadTask,
    ReleaseHold,
    RenewLease,
    RevokeLease,
    RotateRoot,
    Whoami,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BindingName {
    Certificate,
    Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Deny,
}

/// One rule, or all that decide together.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rules {
    One(String),
    All(BTreeSet<String>),
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseTable {
    pub(super) name: String,
    principal: String,
    /// Claims that differ from the principal's.
    #[serde(default)]
    claims: BTreeMap<String, ClaimTable>,
    /// Claims that the principal has and this case has not.
    #[serde(default)]
    without: Vec<String>,
    subject: Option<String>,
    issuer: Option<String>,
    /// The person (a principal by its name here) on whose behalf it is asked.
    on_behalf_of: Option<String>,
    action: ActionName,
    role: Option<String>,
    /// The principal (by its name here) that owns the task or lease.
    owner: Option<String>,
    task: Option<String>,
    own_task: Option<String>,
    /// What the task's token is bound to; nothing where it is not written.
    token_binding: Option<BindingName>,
    purpose: Option<String>,
    ttl_seconds: Option<i64>,
    source_address: Option<IpAddr>,
    now: Option<String>,
    expect: Expected,
    rule: Rules,
    /// Who of the two is denied, where both are asked about.
    denied: Option<Party>,
    /// Worked out when the file is parsed.
    #[serde(skip)]
    owner_id: String,
}

impl CaseFile {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, PolicyFault> {
        let mut parsed: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| before.matches('\n').count().saturating_add(1));
            PolicyFault::new(file, line, error.message())
        })?;
        let ids: BTreeMap<String, String> = parsed
            .principals
            .iter()
            .map(|(name, table)| (name.clone(), table.principal().id()))
            .collect();
        for case in &mut parsed.cases {
            let owner = case.owner.as_ref().unwrap_or(&case.principal);
            let id = ids.get(owner).ok_or_else(|| {
                let message = format!("case `{}`: no principal is named `{owner}`", case.name);
                PolicyFault::new(file, None, message)
            })?;
            case.owner_id.clone_from(id);
        }
        Ok(parsed)
    }

    pub(super) fn role_facts(&self) -> impl Iterator<Item = RoleFacts> {
        self.roles.iter().map(|(name, role)| RoleFacts {
            name: name.clone(),
            backend: role.backend.clone(),
            owner: role.owner.clone(),
            labels: role.labels.clone(),
        })
    }

    /// The principal of a case, with what the case changes of it.
    pub(super) fn principal(&self, case: &CaseTable) -> Result<Principal, String> {
        let table = self.principals.get(&case.principal);
        let table = table.ok_or_else(|| format!("no principal is named `{}`", case.principal))?;
        let mut principal = table.principal();
        for claim in &case.without {
            principal.claims.remove(claim).ok_or_else(|| format!("no claim `{claim}` to omit"))?;
        }
        principal.claims.extend(claims(&case.claims));
        if let Some(subject) = &case.subject {
            principal.subject.clone_from(subject);
        }
        if let Some(issuer) = &case.issuer {
            principal.issuer.clone_from(issuer);
        }
        Ok(principal)
    }

    /// The person on whose behalf a case is asked. That it is one, and that nobody else's behalf
    /// is meant, the broker sees to before it asks.
    pub(super) fn person(&self, case: &CaseTable) -> Result<Option<Principal>, String> {
        let Some(name) = &case.on_behalf_of else { return Ok(None) };
        let table = self.principals.get(name);
        let person = table.ok_or_else(|| format!("no principal is named `{name}`"))?.principal();
        match person.kind {
            Kind::Human => Ok(Some(person)),
            Kind::Workload => Err(format!("`on_behalf_of = \"{name}\"` is no person")),
        }
    }
}

impl PrincipalTable {
    fn principal(&self) -> Principal {
        Principal {
            kind: match self.kind {
                KindName::Human => Kind::Human,
                KindName::Workload => Kind::Workload,
            },
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            claims: claims(&self.claims).collect(),
            token_hash: String::new(),
            token_id: None,
            token_expires_at: Timestamp::MAX,
            single_use: false,
            first_key_binds: false,
        }
    }
}

impl CaseTable {
    /// What the case says. Of two who are asked about, it must say whom it expects to be denied:
    /// the same rule can be the answer of both.
    pub(super) fn expected(
        &self,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
    ) -> Result<Verdict, String> {
        let both = circumstances.on_behalf_of.is_some() && ask.action().takes_both();
        match (self.expect, self.denied) {
            (Expected::Deny, None) if both => {
                return Err("say who is denied: `denied = \"workload\"` or `\"person\"`".to_owned());
            }
            (Expected::Deny, Some(_)) if both => {}
            (Expected::Allow | Expected::Deny, Some(_)) => {
                return Err("`denied` has no use here".to_owned());
            }
            (Expected::Allow | Expected::Deny, None) => {}
        }
        let rules = match &self.rule {
            Rules::One(rule) => BTreeSet::from([rule.clone()]),
            Rules::All(rules) => rules.clone(),
        };
        Ok(Verdict { allowed: self.expect == Expected::Allow, rules, denied: self.denied })
    }

    pub(super) fn circumstances(&self) -> Result<Circumstances, String> {
        let now = self.now.as_deref().unwrap_or(NOW);
        let now = Timestamp::parse_rfc3339(now)
            .ok_or_else(|| format!("`now = \"{now}\"` is not an RFC 3339 time"))?;
        let own_task = self.own_task.clone();
        // Which key or certificate it is, no rule can ask.
        let binding = self.token_binding.map(|name| match name {
            BindingName::Certificate => Binding::Certificate([0; 32]),
            BindingName::Key => Binding::Key([0; 32]),
        });
        let source_address = self.source_address;
        Ok(Circumstances { source_address, now, own_task, binding, on_behalf_of: None })
    }

    pub(super) fn ask<'a>(
        &'a self,
        roles: &'a BTreeMap<String, RoleFacts>,
    ) -> Result<Ask<'a>, String> {
        let ttl_seconds = self.ttl_seconds.unwrap_or(TTL_SECONDS);
        let purpose = self.purpose.as_deref().unwrap_or(PURPOSE);
        let task = self.task.as_deref().unwrap_or(TASK);
        let owner = self.owner_id.as_str();
        let role = || {
            let name = self.role.as_ref().ok_or("`role` is missing")?;
            roles.get(name).ok_or_else(|| format!("no role is named `{name}`"))
        };
        let lease = || {
            let role = role()?;
            let (role, backend) = (role.name.as_str(), role.backend.as_str());
            Ok::<_, String>(LeaseFacts { lease: "lse_case", owner, task, role, backend })
        };
        Ok(match self.action {
            ActionName::AbandonLease => Ask::AbandonLease { lease: lease()? },
            ActionName::CompleteTask => Ask::CompleteTask { task, owner },
            ActionName::DisableIdentity => Ask::DisableIdentity,
            ActionName::EnableIdentity => Ask::EnableIdentity,
            ActionName::HeartbeatTask => Ask::HeartbeatTask { task, owner },
            ActionName::ListDisabled => Ask::ListDisabled,
            ActionName::ListLeases => Ask::ListLeases,
            ActionName::ListOwn => Ask::ListOwn,
            ActionName::ListRoles => Ask::ListRoles,
            ActionName::ListTasks => Ask::ListTasks,
            ActionName::Mint => Ask::Mint { role: role()?, purpose, ttl_seconds, task },
            ActionName::OpenTask => Ask::OpenTask { purpose, ttl_seconds },
            ActionName::ReadAudit => Ask::ReadAudit,
            ActionName::ReadLease => Ask::ReadLease { lease: lease()? },
            ActionName::ReadStanding => Ask::ReadStanding,
            ActionName::ReadTask => Ask::ReadTask { task, owner },
            ActionName::ReleaseHold => Ask::ReleaseHold,
            ActionName::RenewLease => Ask::RenewLease { lease: lease()?, ttl_seconds },
            ActionName::RevokeLease => Ask::RevokeLease { lease: lease()? },
            ActionName::RotateRoot => Ask::RotateRoot,
            ActionName::Whoami => Ask::Whoami,
        })
    }
}

fn claims(
    table: &BTreeMap<String, ClaimTable>,
) -> impl Iterator<Item = (String, ClaimValue)> + use<'_> {
    table.iter().map(|(name, value)| {
        let value = match value {
            ClaimTable::Text(text) => ClaimValue::Text(text.clone()),
            ClaimTable::List(entries) => ClaimValue::List(entries.clone()),
        };
        (name.clone(), value)
    })
}

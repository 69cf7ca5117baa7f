//! A question in Cedar's terms.
//!
//! Invariant: entities and requests are built value by value. No text of a token, a request
//! or the configuration is ever parsed as Cedar or as Cedar's JSON, so a claim that looks
//! like a rule, or is named like one of Cedar's escapes, is a string and nothing else.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    error::Error,
    sync::LazyLock,
};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, Request,
    RestrictedExpression as Value, Schema,
};
use dayfly_backend_sdk::Timestamp;

use super::ask::{Action, Ask, Circumstances, LeaseFacts, RoleFacts};
use crate::identity::{ClaimValue, Kind, Principal};

/// The most claims and list entries of one principal that are weighed. Cutting the list off
/// instead could drop the very entry that a `forbid` is about.
pub const CLAIMS_MAX: usize = 1_000;

pub(super) const SCHEMA: &str = include_str!("dayfly.cedarschema");
const BROKER: &str = "dayfly";

/// A question that cannot be put.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unaskable {
    #[error("the identity has {count} claims and list entries, and {CLAIMS_MAX} can be weighed")]
    Claims { count: usize },
    /// The border between issuer and subject in a principal's id; with one in the issuer's
    /// name, two principals could have one id.
    #[error("the issuer's name has a `|`")]
    Issuer,
    #[error("the question does not fit the schema")]
    Schema(#[source] Box<dyn Error + Send + Sync>),
}

/// The schema and its words, parsed once.
#[derive(Debug)]
pub(super) struct Vocabulary {
    schema: Schema,
    types: Types,
    actions: HashMap<Action, EntityUid>,
    broker: EntityUid,
}

#[derive(Debug)]
struct Types {
    backend: EntityTypeName,
    claim: EntityTypeName,
    human: EntityTypeName,
    issuer: EntityTypeName,
    lease: EntityTypeName,
    role: EntityTypeName,
    task: EntityTypeName,
    workload: EntityTypeName,
}

static VOCABULARY: LazyLock<Result<Vocabulary, String>> =
    LazyLock::new(|| Vocabulary::parse().map_err(|error| error.to_string()));

impl Vocabulary {
    /// The one vocabulary, or what is wrong with the schema that we were built with.
    pub(super) fn built_in() -> Result<&'static Self, String> {
        VOCABULARY.as_ref().map_err(Clone::clone)
    }

    fn parse() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)?;
        let named = |name: &str| -> Result<EntityTypeName, String> {
            format!("Dayfly::{name}").parse().map_err(|error: ParseErrors| error.to_string())
        };
        let action = named("Action")?;
        Ok(Self {
            schema,
            types: Types {
                backend: named("Backend")?,
                claim: named("Claim")?,
                human: named("Human")?,
                issuer: named("Issuer")?,
                lease: named("Lease")?,
                role: named("Role")?,
                task: named("Task")?,
                workload: named("Workload")?,
            },
            actions: Action::ALL.into_iter().map(|it| (it, uid(&action, it.as_str()))).collect(),
            broker: uid(&named("Broker")?, BROKER),
        })
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The request and the entities that it speaks of.
    pub(super) fn question(
        &self,
        principal: &Principal,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
    ) -> Result<(Request, Entities), Unaskable> {
        let caller = self.principal(principal)?;
        let resource = self.resource(ask)?;
        let action = self.actions.get(&ask.action());
        let action = action.ok_or_else(|| Unaskable::Schema("an action is missing".into()))?;
        let request = Request::new(
            caller.uid(),
            action.clone(),
            resource.uid(),
            context(ask, circumstances)?,
            Some(&self.schema),
        )
        .map_err(schema)?;
        // Built by the functions here and by nothing else, so not validated once more: that
        // would cost more than the rules do. The question itself was validated above.
        let entities = Entities::from_entities([caller, resource], None);
        Ok((request, entities.map_err(schema)?))
    }

    fn principal(&self, principal: &Principal) -> Result<Entity, Unaskable> {
        if principal.issuer.contains('|') {
            return Err(Unaskable::Issuer);
        }
        let mut tags = Vec::new();
        let mut parents = HashSet::from([uid(&self.types.issuer, &principal.issuer)]);
        let mut count: usize = 0;
        for (name, claim) in &principal.claims {
            match claim {
                ClaimValue::Text(value) => {
                    count = count.saturating_add(1);
                    tags.push((name.clone(), text(value)));
                }
                ClaimValue::List(entries) => {
                    count = count.saturating_add(entries.len());
                    let name = escaped(name);
                    let entry = |entry| uid(&self.types.claim, &format!("{name}={entry}"));
                    parents.extend(entries.iter().take(CLAIMS_MAX).map(entry));
                }
            }
        }
        if count > CLAIMS_MAX {
            return Err(Unaskable::Claims { count });
        }
        let kind = match principal.kind {
            Kind::Human => &self.types.human,
            Kind::Workload => &self.types.workload,
        };
        let id = principal.id();
        let attributes = [
            ("id", text(&id)),
            ("issuer", text(&principal.issuer)),
            ("subject", text(&principal.subject)),
        ];
        Entity::new_with_tags(uid(kind, &id), named(attributes), parents, tags).map_err(schema)
    }

    fn resource(&self, ask: &Ask<'_>) -> Result<Entity, Unaskable> {
        match ask {
            Ask::Mint { role, .. } => self.role(role),
            Ask::RenewLease { lease, .. }
            | Ask::RevokeLease { lease }
            | Ask::AbandonLease { lease }
            | Ask::ReadLease { lease } => self.lease(lease),
            Ask::CompleteTask { task, owner }
            | Ask::HeartbeatTask { task, owner }
            | Ask::ReadTask { task, owner } => {
                let attributes = [("id", text(task)), ("owner", text(owner))];
                entity(&self.types.task, task, named(attributes), [])
            }
            Ask::OpenTask { .. }
            | Ask::ListLeases
            | Ask::ListTasks
            | Ask::ListRoles
            | Ask::ListOwn
            | Ask::ReadAudit
            | Ask::ReadStanding
            | Ask::ReleaseHold
            | Ask::RotateRoot
            | Ask::Whoami => Ok(Entity::with_uid(self.broker.clone())),
        }
    }

    fn role(&self, role: &RoleFacts) -> Result<Entity, Unaskable> {
        let label = |name| role.labels.get(name).map(|value| (name, text(value)));
        let attributes = [
            ("name", text(&role.name)),
            ("backend", text(&role.backend)),
            ("owner", text(&role.owner)),
        ];
        let attributes = attributes.into_iter().chain(label("environment")).chain(label("risk"));
        Entity::new_with_tags(
            uid(&self.types.role, &role.name),
            named(attributes),
            [uid(&self.types.backend, &role.backend)],
            role.labels.iter().map(|(name, value)| (name.clone(), text(value))),
        )
        .map_err(schema)
    }

    fn lease(&self, lease: &LeaseFacts<'_>) -> Result<Entity, Unaskable> {
        let attributes = [
            ("id", text(lease.lease)),
            ("owner", text(lease.owner)),
            ("task", text(lease.task)),
            ("role", text(lease.role)),
            ("backend", text(lease.backend)),
        ];
        let parents = [uid(&self.types.role, lease.role), uid(&self.types.backend, lease.backend)];
        entity(&self.types.lease, lease.lease, named(attributes), parents)
    }
}

fn entity(
    kind: &EntityTypeName,
    id: &str,
    attributes: impl Iterator<Item = (String, Value)>,
    parents: impl IntoIterator<Item = EntityUid>,
) -> Result<Entity, Unaskable> {
    Entity::new_with_tags(uid(kind, id), attributes, parents, BTreeMap::new()).map_err(schema)
}

fn context(ask: &Ask<'_>, circumstances: &Circumstances) -> Result<Context, Unaskable> {
    let mut pairs = vec![("now", instant(circumstances.now))];
    // A client of a dual-stack listener must match rules on its IPv4 network.
    let address = circumstances.source_address.map(|address| address.to_canonical().to_string());
    pairs.extend(address.map(|address| ("source_address", Value::new_ip(address))));
    pairs.extend(circumstances.own_task.as_ref().map(|task| ("own_task", text(task))));
    match ask {
        Ask::OpenTask { purpose, ttl_seconds } => {
            pairs.push(("purpose", text(purpose)));
            pairs.push(("ttl_seconds", Value::new_long(*ttl_seconds)));
        }
        Ask::Mint { purpose, ttl_seconds, task, .. } => {
            pairs.push(("purpose", text(purpose)));
            pairs.push(("ttl_seconds", Value::new_long(*ttl_seconds)));
            pairs.push(("task", text(task)));
        }
        Ask::RenewLease { ttl_seconds, .. } => {
            pairs.push(("ttl_seconds", Value::new_long(*ttl_seconds)));
        }
        Ask::RevokeLease { .. }
        | Ask::AbandonLease { .. }
        | Ask::ReadLease { .. }
        | Ask::CompleteTask { .. }
        | Ask::HeartbeatTask { .. }
        | Ask::ReadTask { .. }
        | Ask::ListLeases
        | Ask::ListTasks
        | Ask::ListRoles
        | Ask::ListOwn
        | Ask::ReadAudit
        | Ask::ReadStanding
        | Ask::ReleaseHold
        | Ask::RotateRoot
        | Ask::Whoami => {}
    }
    Context::from_pairs(named(pairs)).map_err(schema)
}

/// In whole seconds: Cedar reads either no fraction or three digits of it.
fn instant(at: Timestamp) -> Value {
    // Cedar's times have at most three digits of a second.
    let text = Timestamp::from_seconds(at.seconds()).rfc3339();
    Value::new_datetime(text.replace(".000000Z", "Z"))
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn named<'a>(
    pairs: impl IntoIterator<Item = (&'a str, Value)>,
) -> impl Iterator<Item = (String, Value)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value))
}

/// A claim's name with `=` and `%` escaped: the first `=` of `name=entry` is the border, and
/// no two pairs of name and entry have one id.
fn escaped(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '=']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.replace('%', "%25").replace('=', "%3D"))
}

fn schema(error: impl Into<Box<dyn Error + Send + Sync>>) -> Unaskable {
    Unaskable::Schema(error.into())
}

//! A question in Cedar's terms.
//!
//! Invariant: entities and requests are built value by value. No text of a token, a request
//! or the configuration is ever parsed as Cedar or as Cedar's JSON, so a claim that looks
//! like a rule, or is named like one of Cedar's escapes, is a string and nothing else.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    error::Error,
    net::IpAddr,
    sync::LazyLock,
};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, Request,
    RestrictedExpression as Value, Schema,
};
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Binding;

use super::{
    ask::{Action, Ask, Circumstances, LeaseFacts, RoleFacts},
    mentions::Mentions,
};
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
}

/// Whom rules hear of besides the one that they are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beside<'a> {
    /// Who acts on the behalf of the person that is asked about.
    Actor(&'a Principal),
    /// On whose behalf the one that is asked about acts.
    Person(&'a Principal),
}

impl<'a> Beside<'a> {
    /// Its name in the context, and who it is.
    fn named(self) -> (&'static str, &'a Principal) {
        match self {
            Self::Actor(workload) => ("actor", workload),
            Self::Person(person) => ("on_behalf_of", person),
        }
    }
}

/// A question, in pieces.
pub(super) struct Parts {
    pub(super) caller: Entity,
    pub(super) action: EntityUid,
    pub(super) resource: Entity,
    /// Whether it is no more than its name.
    pub(super) resource_is_bare: bool,
    /// Whom the context names, if a rule asks for it.
    pub(super) beside: Option<Entity>,
    pub(super) context: Context,
}

/// Puts questions to rules that mention certain things: what they do not mention is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) vocabulary: &'static Vocabulary,
    pub(super) mentions: &'a Mentions,
}

impl Asker<'_> {
    /// The request and the entities that it speaks of. Neither is validated, which would cost
    /// more than the rules do: all of it is built by the functions here, and what no rule reads
    /// is not there. That each question fits the schema when nothing is left out, is tested.
    pub(super) fn question(
        &self,
        principal: &Principal,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
        beside: Option<Beside<'_>>,
    ) -> Result<(Request, Entities), Unaskable> {
        let Parts { caller, action, resource, resource_is_bare, beside, context } =
            self.parts(principal, ask, circumstances, beside)?;
        let request = Request::new(caller.uid(), action, resource.uid(), context, None);
        // One that Cedar does not know has nothing and is in nothing, as one of which nothing is
        // left; and it need not find out who that one is in.
        let resource = (!resource_is_bare).then_some(resource);
        let entities = [caller].into_iter().chain(resource).chain(beside);
        let entities = Entities::from_entities(entities, None);
        Ok((request.map_err(schema)?, entities.map_err(schema)?))
    }

    /// What a question is made of.
    pub(super) fn parts(
        &self,
        principal: &Principal,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
        beside: Option<Beside<'_>>,
    ) -> Result<Parts, Unaskable> {
        let action = self.vocabulary.actions.get(&ask.action());
        let action = action.ok_or_else(|| Unaskable::Schema("an action is missing".into()))?;
        let beside = match beside.map(Beside::named) {
            Some((name, principal)) if self.mentions.attribute(name) => {
                Some((name, self.principal(principal)?))
            }
            Some(_) | None => None,
        };
        let caller = self.principal(principal)?;
        let context = self.context(ask, circumstances, beside.as_ref())?;
        // Somebody who names themselves: no entity is there twice.
        let other = |beside: &Entity| beside.uid() != caller.uid();
        let beside = beside.map(|(_, entity)| entity).filter(other);
        let (resource, resource_is_bare) = self.resource(ask)?;
        Ok(Parts { caller, action: action.clone(), resource, resource_is_bare, beside, context })
    }

    fn principal(&self, principal: &Principal) -> Result<Entity, Unaskable> {
        if principal.issuer.contains('|') {
            return Err(Unaskable::Issuer);
        }
        let types = &self.vocabulary.types;
        let mut tags = Vec::new();
        let issuer = Some(&principal.issuer).filter(|issuer| self.mentions.issuer(issuer));
        let mut parents: Vec<EntityUid> =
            issuer.into_iter().map(|issuer| uid(&types.issuer, issuer)).collect();
        let mut count: usize = 0;
        for (name, claim) in &principal.claims {
            match claim {
                ClaimValue::Text(value) => {
                    count = count.saturating_add(1);
                    if self.mentions.tag(name) {
                        tags.push((name.clone(), text(value)));
                    }
                }
                ClaimValue::List(entries) => {
                    count = count.saturating_add(entries.len());
                    let name = escaped(name);
                    let entries = entries.iter().take(CLAIMS_MAX);
                    let ids = entries.map(|entry| format!("{name}={entry}"));
                    let mentioned = ids.filter(|id| self.mentions.claim(id));
                    parents.extend(mentioned.map(|id| uid(&types.claim, &id)));
                }
            }
        }
        if count > CLAIMS_MAX {
            return Err(Unaskable::Claims { count });
        }
        let kind = match principal.kind {
            Kind::Human => &types.human,
            Kind::Workload => &types.workload,
        };
        let id = principal.id();
        let attributes = [
            ("id", id.as_str()),
            ("issuer", principal.issuer.as_str()),
            ("subject", principal.subject.as_str()),
        ];
        let attributes = self.attributes(attributes);
        Entity::new_with_tags(uid(kind, &id), attributes, parents, tags).map_err(schema)
    }

    /// What it is about, and whether that is no more than its name.
    fn resource(&self, ask: &Ask<'_>) -> Result<(Entity, bool), Unaskable> {
        match ask {
            Ask::Mint { role, .. } => self.role(role),
            Ask::RenewLease { lease, .. }
            | Ask::RevokeLease { lease }
            | Ask::AbandonLease { lease }
            | Ask::ReadLease { lease } => self.lease(lease),
            Ask::CompleteTask { task, owner }
            | Ask::HeartbeatTask { task, owner }
            | Ask::ReadTask { task, owner } => {
                let attributes = self.attributes([("id", *task), ("owner", *owner)]);
                entity(uid(&self.vocabulary.types.task, task), attributes, None, Vec::new())
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
            | Ask::DisableIdentity
            | Ask::EnableIdentity
            | Ask::ListDisabled
            | Ask::Whoami => Ok((Entity::with_uid(self.vocabulary.broker.clone()), true)),
        }
    }

    fn role(&self, role: &RoleFacts) -> Result<(Entity, bool), Unaskable> {
        let types = &self.vocabulary.types;
        let label = |name| role.labels.get(name).map(|value| (name, value.as_str()));
        let attributes = [
            ("name", role.name.as_str()),
            ("backend", role.backend.as_str()),
            ("owner", role.owner.as_str()),
        ];
        let attributes = attributes.into_iter().chain(label("environment")).chain(label("risk"));
        let labels = role.labels.iter().filter(|(name, _)| self.mentions.tag(name));
        let labels = labels.map(|(name, value)| (name.clone(), text(value))).collect();
        let parents = self.backend(&role.backend);
        entity(uid(&types.role, &role.name), self.attributes(attributes), parents, labels)
    }

    fn lease(&self, lease: &LeaseFacts<'_>) -> Result<(Entity, bool), Unaskable> {
        let types = &self.vocabulary.types;
        let attributes = [
            ("id", lease.lease),
            ("owner", lease.owner),
            ("task", lease.task),
            ("role", lease.role),
            ("backend", lease.backend),
        ];
        let role = Some(lease.role).filter(|role| self.mentions.role(role));
        let role = role.map(|role| uid(&types.role, role));
        let parents = role.into_iter().chain(self.backend(lease.backend));
        let uid = uid(&types.lease, lease.lease);
        entity(uid, self.attributes(attributes), parents, Vec::new())
    }

    /// The backend as what something is in, if a rule asks for that.
    fn backend(&self, name: &str) -> Option<EntityUid> {
        self.mentions.backend(name).then(|| uid(&self.vocabulary.types.backend, name))
    }

    /// Those attributes that a rule mentions, with their texts as values.
    fn attributes<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> impl Iterator<Item = (String, Value)> {
        let mentioned = pairs.into_iter().filter(|(name, _)| self.mentions.attribute(name));
        mentioned.map(|(name, value)| (name.to_owned(), text(value)))
    }

    fn context(
        &self,
        ask: &Ask<'_>,
        circumstances: &Circumstances,
        beside: Option<&(&str, Entity)>,
    ) -> Result<Context, Unaskable> {
        let facts = facts(ask, circumstances);
        let mentioned = facts.into_iter().filter(|(name, _)| self.mentions.attribute(name));
        let pairs = mentioned.map(|(name, fact)| (name.to_owned(), fact.value()));
        let beside =
            beside.map(|(name, entity)| ((*name).to_owned(), Value::new_entity_uid(entity.uid())));
        Context::from_pairs(pairs.chain(beside)).map_err(schema)
    }
}

/// An entity, and whether it is no more than its name.
fn entity(
    uid: EntityUid,
    attributes: impl Iterator<Item = (String, Value)>,
    parents: impl IntoIterator<Item = EntityUid>,
    tags: Vec<(String, Value)>,
) -> Result<(Entity, bool), Unaskable> {
    let (attributes, parents): (Vec<_>, Vec<_>) =
        (attributes.collect(), parents.into_iter().collect());
    let is_bare = attributes.is_empty() && parents.is_empty() && tags.is_empty();
    let entity = Entity::new_with_tags(uid, attributes, parents, tags).map_err(schema)?;
    Ok((entity, is_bare))
}

/// What surrounds a question, before it is a value of Cedar's.
#[derive(Clone, Copy)]
enum Fact<'a> {
    Address(IpAddr),
    Instant(Timestamp),
    Seconds(i64),
    Text(&'a str),
}

impl Fact<'_> {
    fn value(self) -> Value {
        match self {
            // A client of a dual-stack listener must match rules on its IPv4 network.
            Self::Address(address) => Value::new_ip(address.to_canonical().to_string()),
            Self::Instant(at) => instant(at),
            Self::Seconds(seconds) => Value::new_long(seconds),
            Self::Text(value) => text(value),
        }
    }

    /// The same for people.
    fn text(self) -> String {
        match self {
            Self::Address(address) => address.to_canonical().to_string(),
            Self::Instant(at) => whole_second(at),
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Text(value) => value.to_owned(),
        }
    }
}

/// What surrounds a question, for the caller who asks it. The person is named by their id alone:
/// their claims are theirs.
pub(super) fn told(ask: &Ask<'_>, circumstances: &Circumstances) -> BTreeMap<String, String> {
    let facts = facts(ask, circumstances);
    let mut told: BTreeMap<String, String> =
        facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.text())).collect();
    if let Some(person) = &circumstances.on_behalf_of
        && ask.action().names_the_person()
    {
        told.insert("on_behalf_of".to_owned(), person.id());
    }
    told
}

fn facts<'a>(ask: &'a Ask<'a>, circumstances: &'a Circumstances) -> Vec<(&'static str, Fact<'a>)> {
    let binding = circumstances.binding.map_or("none", Binding::as_str);
    let mut facts =
        vec![("now", Fact::Instant(circumstances.now)), ("token_binding", Fact::Text(binding))];
    let address = circumstances.source_address;
    facts.extend(address.map(|address| ("source_address", Fact::Address(address))));
    facts.extend(circumstances.own_task.as_ref().map(|task| ("own_task", Fact::Text(task))));
    match ask {
        Ask::OpenTask { purpose, ttl_seconds } => {
            facts.push(("purpose", Fact::Text(purpose)));
            facts.push(("ttl_seconds", Fact::Seconds(*ttl_seconds)));
        }
        Ask::Mint { purpose, ttl_seconds, task, .. } => {
            facts.push(("purpose", Fact::Text(purpose)));
            facts.push(("ttl_seconds", Fact::Seconds(*ttl_seconds)));
            facts.push(("task", Fact::Text(task)));
        }
        Ask::RenewLease { ttl_seconds, .. } => {
            facts.push(("ttl_seconds", Fact::Seconds(*ttl_seconds)));
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
        | Ask::DisableIdentity
        | Ask::EnableIdentity
        | Ask::ListDisabled
        | Ask::Whoami => {}
    }
    facts
}

/// In whole seconds: Cedar reads either no fraction or three digits of it.
fn instant(at: Timestamp) -> Value {
    Value::new_datetime(whole_second(at))
}

fn whole_second(at: Timestamp) -> String {
    // Cedar's times have at most three digits of a second.
    Timestamp::from_seconds(at.seconds()).rfc3339().replace(".000000Z", "Z")
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
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

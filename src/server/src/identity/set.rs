//! Security event tokens (RFC 8417): what a transmitter of shared signals says of a subject.
//!
//! Invariant: what is read here was signed by the transmitter, for us, and as a security event: its
//! `typ` says so, so that no identity token passes for one, and it names no subject in the place
//! where an identity token has its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Clock;

use super::{
    FileKeys, HttpKeys, IssuerConfig, KeySource, Rejection, SetupError,
    claims::{audiences, text, time, token_id},
    json::Json,
    keys::KeyCache,
    preparse::{Compact, Header},
    provider, without_faults,
};

const TYPES: [&str; 2] = ["secevent+jwt", "application/secevent+jwt"];
const EVENTS_MAX: usize = 16;
const SUBJECTS_MAX: usize = 16;
const CREDENTIAL_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/credential-change";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

/// Who is believed: a transmitter, with its keys.
#[derive(Debug)]
pub(crate) struct Transmitter {
    rules: IssuerConfig,
    keys: Arc<KeyCache>,
    clock: Arc<dyn Clock>,
}

/// Whom a token is about, as far as identities of ours can be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A subject of the issuer with this URL.
    IssSub {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
    /// A subject that transmitter and receiver know by this id.
    Opaque(String),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// A credential of the subject was made, changed or taken back.
    CredentialChange,
    /// Something that concerns nothing of ours.
    Other,
    /// The subject's session was revoked.
    SessionRevoked,
    /// The stream is being tried out.
    Verification,
}

/// One event of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// Its URI.
    pub(crate) name: String,
    /// When it happened; never after the token was issued.
    pub(crate) at: Timestamp,
}

/// A token that was verified.
#[derive(Debug)]
pub(crate) struct SecurityEvents {
    /// `jti`.
    pub(crate) id: String,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) events: Vec<Event>,
}

impl Transmitter {
    /// Sets it up; asks for no key yet. Its `token_age_max_seconds` is the oldest token that is
    /// taken; `typ` is not for the configuration to say.
    pub(crate) fn new(rules: IssuerConfig, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        without_faults(&rules)?;
        let source: Arc<dyn KeySource> = match &rules.jwks_file {
            Some(path) => Arc::new(FileKeys::new(path)),
            None => Arc::new(HttpKeys::new(&rules)?),
        };
        Ok(Self::with_source(rules, source, clock))
    }

    fn with_source(rules: IssuerConfig, source: Arc<dyn KeySource>, clock: Arc<dyn Clock>) -> Self {
        provider::install();
        let keys = KeyCache::new(rules.name.clone(), source, Arc::clone(&clock));
        Self { rules, keys: Arc::new(keys), clock }
    }

    /// Verifies a token and reads it.
    pub(crate) async fn read(&self, token: &str) -> Result<SecurityEvents, Rejection> {
        let compact = Compact::parse(token)?;
        self.accepts(&compact.header)?;
        let claims = UnverifiedSet::parse(&compact.members()?)?;
        // Of the claims, only `iss` is used before the signature held, and only to compare.
        if claims.issuer != self.rules.issuer {
            return Err(Rejection::UnknownIssuer);
        }
        let key = self.keys.find(compact.header.kid.as_deref()).await?;
        key.verify(compact.header.algorithm, compact.message, compact.signature)?;
        claims.check(&self.rules, self.clock.now())?;
        Ok(claims.said)
    }

    fn accepts(&self, header: &Header) -> Result<(), Rejection> {
        if header.thumbprint {
            return Err(Rejection::malformed("the header names a certificate"));
        }
        let typ = header.typ.as_deref().map(str::to_ascii_lowercase);
        if !typ.is_some_and(|typ| TYPES.contains(&typ.as_str())) {
            return Err(Rejection::WrongType);
        }
        if !self.rules.algorithms.contains(&header.algorithm) {
            return Err(Rejection::AlgorithmRefused);
        }
        Ok(())
    }

    /// Renews keys that will soon be too old.
    pub(crate) async fn refresh(&self) {
        self.keys.refresh().await;
    }
}

/// What a token says, which nobody has verified.
struct UnverifiedSet {
    issuer: String,
    audiences: Vec<String>,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
    said: SecurityEvents,
}

impl UnverifiedSet {
    fn parse(members: &BTreeMap<String, Json>) -> Result<Self, Rejection> {
        if members.contains_key("sub") {
            return Err(Rejection::malformed("`sub` stands in a security event"));
        }
        let issued_at = time(members.get("iat"), "`iat` is not a time")?;
        let expires_at = match members.get("exp") {
            None => None,
            some => Some(time(some, "`exp` is not a time")?),
        };
        let id = token_id(members.get("jti"))?.ok_or(Rejection::malformed("`jti` is missing"))?;
        let mut subjects = Vec::new();
        if let Some(subject) = members.get("sub_id") {
            collect(subject, Place::Top, &mut subjects)?;
        }
        let events = events(members.get("events"), issued_at)?;
        Ok(Self {
            issuer: text(members, "iss", "`iss` is not a string")?,
            audiences: audiences(members.get("aud"))?,
            issued_at,
            expires_at,
            said: SecurityEvents { id, subjects, events },
        })
    }

    /// Holds it against the transmitter's rules, after the signature held. A token may be for
    /// several receivers. It needs no end, but one that has an end has ended then.
    fn check(&self, rules: &IssuerConfig, now: Timestamp) -> Result<(), Rejection> {
        if !self.audiences.contains(&rules.audience) {
            return Err(Rejection::WrongAudience);
        }
        let leeway = Duration::from_secs(rules.leeway_seconds);
        if self.issued_at > now.plus(leeway) {
            return Err(Rejection::IssuedInFuture);
        }
        if self.expires_at.is_some_and(|end| now >= end.plus(leeway)) {
            return Err(Rejection::Expired);
        }
        // Its `jti` is remembered for no longer.
        let age_max = Duration::from_secs(rules.token_age_max_seconds);
        if now.since(self.issued_at) > age_max {
            return Err(Rejection::TooLongLived);
        }
        Ok(())
    }
}

fn events(value: Option<&Json>, issued_at: Timestamp) -> Result<Vec<Event>, Rejection> {
    let Some(Json::Object(all)) = value else {
        return Err(Rejection::malformed("`events` is not an object"));
    };
    if all.is_empty() || all.len() > EVENTS_MAX {
        return Err(Rejection::malformed("`events` has none or too many"));
    }
    let event = |(name, payload): (&String, &Json)| {
        let Json::Object(payload) = payload else {
            return Err(Rejection::malformed("an event is not an object"));
        };
        // Drafts had milliseconds here, which lie beyond any token and so count as its own time.
        let happened = time(payload.get("event_timestamp"), "not a time").ok();
        Ok(Event {
            kind: kind(name),
            name: name.clone(),
            at: happened.map_or(issued_at, |at| at.min(issued_at)),
        })
    };
    all.iter().map(event).collect()
}

fn kind(name: &str) -> EventKind {
    match name {
        CREDENTIAL_CHANGE => EventKind::CredentialChange,
        SESSION_REVOKED => EventKind::SessionRevoked,
        VERIFICATION => EventKind::Verification,
        _ => EventKind::Other,
    }
}

/// Where a subject identifier stands. Each form may hold the ones below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Top,
    InComplex,
    InAliases,
}

/// Reads a subject identifier (RFC 9493, and the complex subject of SSF, of which only the user
/// can be an identity of ours). Of a form that names nothing of ours, nothing is taken.
fn collect(value: &Json, place: Place, subjects: &mut Vec<Subject>) -> Result<(), Rejection> {
    let Json::Object(members) = value else {
        return Err(Rejection::malformed("a subject identifier is not an object"));
    };
    let incomplete = "a subject identifier lacks what its format has";
    let format = text(members, "format", "a subject identifier has no format")?;
    match format.as_str() {
        "iss_sub" => {
            let issuer = text(members, "iss", incomplete)?;
            let subject = text(members, "sub", incomplete)?;
            subjects.push(Subject::IssSub { issuer, subject });
        }
        "opaque" => subjects.push(Subject::Opaque(text(members, "id", incomplete)?)),
        "complex" if place < Place::InComplex => {
            if let Some(user) = members.get("user") {
                collect(user, Place::InComplex, subjects)?;
            }
        }
        "aliases" if place < Place::InAliases => {
            let Some(Json::List(aliases)) = members.get("identifiers") else {
                return Err(Rejection::malformed(incomplete));
            };
            for alias in aliases {
                collect(alias, Place::InAliases, subjects)?;
            }
        }
        "aliases" | "complex" => {
            return Err(Rejection::malformed("subject identifiers stand within each other"));
        }
        _ => {}
    }
    if subjects.len() > SUBJECTS_MAX {
        return Err(Rejection::malformed("too many subject identifiers"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

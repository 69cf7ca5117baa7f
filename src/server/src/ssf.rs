//! Shared signals (SSF, CAEP): what an identity provider tells us of its subjects.
//!
//! Invariant: a stream concerns the identities of its own issuers alone, and can do nothing but
//! take away: it disables them up to the moment of the event, and ends their tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Secret;
use dayfly_lease::{Clock, Disabling};
use futures_util::future::join_all;
use ring::{digest, hmac};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    config::StreamConfig,
    identity::{
        EventKind, IssuerConfig, Principal, Rejection, SecurityEvents, SetupError, Subject,
        Transmitter,
    },
};

/// Tokens of strangers that are verified at a time.
const SLOTS: usize = 16;
/// Refused tokens of one stream are one record in so long.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// The configured streams.
pub struct Streams {
    by_name: BTreeMap<String, Stream>,
    slots: Semaphore,
}

impl Default for Streams {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), slots: Semaphore::new(SLOTS) }
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Streams {
    /// Those of a configuration; asks for no keys yet. `token_age_max` is the longest that any
    /// token is accepted after it was issued.
    ///
    /// # Errors
    /// What is wrong with a transmitter.
    pub fn new(
        streams: &[StreamConfig],
        issuers: &[IssuerConfig],
        token_age_max: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, SetupError> {
        let mut by_name = BTreeMap::new();
        for config in streams {
            let of = issuers.iter().filter(|issuer| config.subjects.contains(&issuer.name));
            let retention = Duration::from_secs(config.transmitter.token_age_max_seconds);
            let stream = Stream {
                name: config.transmitter.name.clone(),
                bearer: config.bearer.as_ref().map(Bearer::new),
                transmitter: Transmitter::new(config.transmitter.clone(), Arc::clone(clock))?,
                issuers: of.map(|issuer| (issuer.name.clone(), issuer.issuer.clone())).collect(),
                // A token is remembered for as long as it would be taken again.
                keep: token_age_max.max(retention.saturating_mul(2)),
                refused: Mutex::default(),
            };
            by_name.insert(stream.name.clone(), stream);
        }
        Ok(Self { by_name, ..Self::default() })
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Stream> {
        self.by_name.get(name)
    }

    /// Room to verify one token, if there is any.
    pub(crate) fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.try_acquire().ok()
    }

    /// Renews transmitters' keys that will soon be too old.
    pub async fn refresh(&self) {
        join_all(self.by_name.values().map(|stream| stream.transmitter.refresh())).await;
    }
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) name: String,
    bearer: Option<Bearer>,
    transmitter: Transmitter,
    /// Whose subjects are meant: names in the configuration, and what the issuers call themselves.
    issuers: Vec<(String, String)>,
    keep: Duration,
    refused: Mutex<Refused>,
}

/// Tokens that were refused since the last record of it.
#[derive(Default)]
struct Refused {
    times: u64,
    noted_at: Option<Duration>,
}

/// What the transmitter shows besides its signature. Compared by a keyed hash, so that how long it
/// takes says nothing of how much was right.
struct Bearer {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Bearer {
    fn new(secret: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let tag = hmac::sign(&key, secret.expose().as_bytes());
        Self { key, tag }
    }

    fn is(&self, shown: &str) -> bool {
        hmac::verify(&self.key, shown.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

impl Stream {
    /// Whether `shown` is the bearer that the stream asks for, if it asks for one.
    pub(crate) fn lets_in(&self, shown: Option<&str>) -> bool {
        self.bearer.as_ref().is_none_or(|bearer| shown.is_some_and(|shown| bearer.is(shown)))
    }

    /// Verifies a token and reads it.
    pub(crate) async fn read(&self, token: &str) -> Result<SecurityEvents, Rejection> {
        self.transmitter.read(token).await
    }

    /// What a verified token comes to; nothing, where it concerns no identity of ours, or says
    /// nothing that ends tasks.
    pub(crate) fn disablings(&self, said: &SecurityEvents) -> Vec<Disabling> {
        let ending = said.events.iter().filter_map(|event| ends_tasks(event.kind).zip(Some(event)));
        let Some((reason, event)) = ending.max_by_key(|(_, event)| event.at) else {
            return Vec::new();
        };
        let disabling = |principal: String| Disabling {
            // For each of them, so that what is told again after a crash ends nobody twice.
            delivery: Some(self.delivery(&said.id, &principal)),
            principal,
            cut_off: Some(event.at),
            actor: format!("ssf|{}", self.name),
            reason: Some(reason.to_owned()),
            keep: self.keep,
        };
        self.principals(&said.subjects).into_iter().map(disabling).collect()
    }

    /// What tells this token from the next. It stands among the tokens that were used, none of
    /// which begins with `|`; whatever a `jti` is made of, a hash of it fits in there.
    fn delivery(&self, id: &str, principal: &str) -> String {
        let hash = digest::digest(&digest::SHA256, format!("{principal}\0{id}").as_bytes());
        format!("|ssf|{}|{}", self.name, HEXLOWER.encode(hash.as_ref()))
    }

    fn principals(&self, subjects: &[Subject]) -> BTreeSet<String> {
        let of = |subject: &Subject| -> Vec<String> {
            let (url, text) = match subject {
                Subject::IssSub { issuer, subject } => (Some(issuer), subject),
                Subject::Opaque(id) => (None, id),
            };
            let meant = self.issuers.iter().filter(|(_, own)| url.is_none_or(|url| url == own));
            meant.filter_map(|(name, _)| Principal::id_of(name, text)).collect()
        };
        subjects.iter().flat_map(of).collect()
    }

    /// Counts a refused token. With how many there were since the last record, if it is time for
    /// one: whoever knocks often must not fill the audit log.
    pub(crate) fn refused(&self, running: Duration) -> Option<u64> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.times = refused.times.saturating_add(1);
        let noted = |at: Duration| running.saturating_sub(at) < NOTE_EVERY;
        if refused.noted_at.is_some_and(noted) {
            return None;
        }
        refused.noted_at = Some(running);
        Some(std::mem::take(&mut refused.times))
    }
}

/// The reason in the record, if the event ends tasks.
fn ends_tasks(kind: EventKind) -> Option<&'static str> {
    match kind {
        EventKind::CredentialChange => Some("credential-change"),
        EventKind::SessionRevoked => Some("session-revoked"),
        EventKind::Other | EventKind::Verification => None,
    }
}

//! Whether a request comes from whoever has the secret.
//!
//! Invariant: everything is compared in constant time, over the bytes that came. A header that is
//! there twice proves nothing.

use std::{fmt, time::Duration};

use axum::http::HeaderMap;
use data_encoding::{BASE64, HEXLOWER};
use dayfly_backend_sdk::{Secret, Timestamp};
use ring::hmac;
use zeroize::Zeroizing;

use crate::config::HookKind;

/// How far the platform's clock, or a request's time on its way, may be from ours.
const AGE_MAX: Duration = Duration::from_mins(5);
/// What GitLab calls its signing tokens; the rest is the key, in base64.
const SIGNING_TOKEN: &str = "whsec_";
/// Signatures in one request that are looked at.
const SIGNATURES_MAX: usize = 8;

/// A secret that requests are proved with.
#[derive(Clone)]
pub struct HookKey {
    hmac: hmac::Key,
    /// The secret under its own key, where the platform may send it as it is: two texts are
    /// compared by comparing what a key makes of them.
    text: Option<hmac::Tag>,
}

impl fmt::Debug for HookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookKey(…)")
    }
}

impl HookKey {
    /// The fewest bytes of a secret.
    pub const LEN_MIN: usize = 16;

    /// The key of a secret; none if it is too short, or a signing token that is damaged.
    pub fn parse(kind: HookKind, secret: &Secret) -> Option<Self> {
        let text = secret.expose();
        let signing = text.strip_prefix(SIGNING_TOKEN).filter(|_| kind == HookKind::Gitlab);
        let bytes = Zeroizing::new(match signing {
            Some(encoded) => BASE64.decode(encoded.as_bytes()).ok()?,
            None => text.as_bytes().to_vec(),
        });
        if bytes.len() < Self::LEN_MIN {
            return None;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let sent = match kind {
            HookKind::Buildkite => true,
            HookKind::Github => false,
            // Who signs must not be believed without a signature.
            HookKind::Gitlab => signing.is_none(),
        };
        let text = sent.then(|| hmac::sign(&key, text.as_bytes()));
        Some(Self { hmac: key, text })
    }

    fn signed(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.hmac, message, tag).is_ok()
    }

    fn is(&self, text: &[u8]) -> bool {
        let own = self.text.as_ref();
        own.is_some_and(|own| hmac::verify(&self.hmac, text, own.as_ref()).is_ok())
    }

    fn only_signs(&self) -> bool {
        self.text.is_none()
    }
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It has no signature, or more than one.
    Missing,
    /// It was signed too long ago, or by a clock that is too far off.
    Stale,
    /// The signature or the token is wrong.
    Wrong,
}

impl Unproven {
    /// Its name in the audit log.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "signature_missing",
            Self::Stale => "signature_stale",
            Self::Wrong => "signature_wrong",
        }
    }
}

/// The value of a header that is there once.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether there is anything that could prove a request to some webhook, of whatever kind: who has
/// nothing is not read, and who has something learns nothing of the webhook by that.
pub(crate) fn proves_something(headers: &HeaderMap) -> bool {
    const NAMES: [&str; 5] = [
        "x-hub-signature-256",
        "webhook-signature",
        "x-gitlab-token",
        "x-buildkite-signature",
        "x-buildkite-token",
    ];
    NAMES.into_iter().any(|name| headers.contains_key(name))
}

/// `X-Hub-Signature-256: sha256=HEX`. The older header with SHA-1 proves nothing.
pub(super) fn github(keys: &[HookKey], headers: &HeaderMap, body: &[u8]) -> Result<(), Unproven> {
    let given = only(headers, "x-hub-signature-256").ok_or(Unproven::Missing)?;
    let tag = given.strip_prefix("sha256=").and_then(unhex).ok_or(Unproven::Wrong)?;
    proved(keys.iter().any(|key| key.signed(body, &tag)))
}

/// `webhook-signature: v1,BASE64 …` over `ID.TIMESTAMP.BODY` where the secret is a signing token,
/// otherwise `X-Gitlab-Token`.
pub(super) fn gitlab(
    keys: &[HookKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Unproven> {
    if let Some(given) = only(headers, "webhook-signature") {
        let id = only(headers, "webhook-id").ok_or(Unproven::Missing)?;
        let sent = only(headers, "webhook-timestamp").ok_or(Unproven::Missing)?;
        let message = [id.as_bytes(), b".", sent.as_bytes(), b".", body].concat();
        let versions = given.split(' ').take(SIGNATURES_MAX);
        let tags =
            versions.filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?.as_bytes()).ok());
        let tags: Vec<_> = tags.collect();
        let signs = |key: &&HookKey| key.only_signs();
        let good = |key: &HookKey| tags.iter().any(|tag| key.signed(&message, tag));
        if keys.iter().filter(signs).any(good) {
            return fresh(sent, now);
        }
    }
    // While one kind of secret follows the other, GitLab may send both.
    match only(headers, "x-gitlab-token") {
        Some(token) => proved(keys.iter().any(|key| key.is(token.as_bytes()))),
        None if headers.contains_key("webhook-signature") => Err(Unproven::Wrong),
        None => Err(Unproven::Missing),
    }
}

/// `X-Buildkite-Signature: timestamp=…,signature=HEX` over `TIMESTAMP.BODY`, or
/// `X-Buildkite-Token`.
pub(super) fn buildkite(
    keys: &[HookKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Unproven> {
    let Some(given) = only(headers, "x-buildkite-signature") else {
        let token = only(headers, "x-buildkite-token").ok_or(Unproven::Missing)?;
        return proved(keys.iter().any(|key| key.is(token.as_bytes())));
    };
    let parts = given.strip_prefix("timestamp=").and_then(|rest| rest.split_once(",signature="));
    let (sent, tag) = parts.ok_or(Unproven::Wrong)?;
    let tag = unhex(tag).ok_or(Unproven::Wrong)?;
    let message = [sent.as_bytes(), b".", body].concat();
    proved(keys.iter().any(|key| key.signed(&message, &tag)))?;
    fresh(sent, now)
}

fn proved(holds: bool) -> Result<(), Unproven> {
    if holds { Ok(()) } else { Err(Unproven::Wrong) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok()
}

/// Asked after the signature held, since the time is what was signed.
fn fresh(sent: &str, now: Timestamp) -> Result<(), Unproven> {
    // A sign would be another writing of the same time.
    let digits = sent.bytes().all(|byte| byte.is_ascii_digit());
    let sent: i64 = sent.parse().ok().filter(|_| digits).ok_or(Unproven::Wrong)?;
    let off = Duration::from_secs(now.seconds().abs_diff(sent));
    if off <= AGE_MAX { Ok(()) } else { Err(Unproven::Stale) }
}

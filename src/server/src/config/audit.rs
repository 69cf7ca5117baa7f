//! `[audit]`: how the audit log is signed.
//!
//! Invariant: a signing key has 32 bytes and is never shown.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use dayfly_backend_sdk::Secret;
use zeroize::Zeroizing;

use super::section::{Reading, Section, text};
use super::tree::Item;

/// Every minute: as much as can be cut off unnoticed.
const CHECKPOINT: &str = "0 * * * * *";

/// `[audit]`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The key that signs checkpoints. Without it, the embedded store makes one beside its
    /// database.
    pub signing_key: Option<KeyBytes>,
    /// When a checkpoint is signed: cron with seconds, in UTC.
    pub checkpoint: String,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { signing_key: None, checkpoint: CHECKPOINT.to_owned() }
    }
}

/// 32 bytes: the seed of an Ed25519 key, or a key of AES-256.
#[derive(Clone)]
pub struct KeyBytes(Zeroizing<[u8; 32]>);

impl KeyBytes {
    /// From 64 hexadecimal digits, or base64 of either alphabet, padded or not.
    pub fn parse(secret: &Secret) -> Option<Self> {
        let text = secret.expose().as_bytes();
        let encodings = [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
        let bytes = if text.len() == 64 {
            HEXLOWER_PERMISSIVE.decode(text).ok()
        } else {
            encodings.iter().find_map(|encoding| encoding.decode(text).ok())
        };
        let bytes = Zeroizing::new(bytes?);
        bytes.as_slice().try_into().ok().map(|seed| Self(Zeroizing::new(seed)))
    }

    /// The seed itself. Every call is a place where it could leak.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(…)")
    }
}

pub(super) fn read(section: &Section<'_>) -> AuditConfig {
    let signing_key = section.secret("signing_key").and_then(|secret| {
        let seed = KeyBytes::parse(&secret);
        if seed.is_none() {
            section.fault("signing_key", "the secret is not 32 bytes in hex or base64");
        }
        seed
    });
    let checkpoint = section.optional("checkpoint", schedule);
    AuditConfig { signing_key, checkpoint: checkpoint.unwrap_or_else(|| CHECKPOINT.to_owned()) }
}

/// Cron text, checked by the scheduler that will run it.
pub(super) fn schedule(item: &Item) -> Reading<String> {
    let schedule = text(item)?;
    match tokio_cron_scheduler::Job::new(schedule.as_str(), |_, _| {}) {
        Ok(_) => Ok(schedule),
        Err(_) => {
            Err("expected six cron fields, seconds first, for example \"0 * * * * *\"".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_in_each_encoding() {
        let seed: [u8; 32] = std::array::from_fn(|index| 250 - u8::try_from(index).unwrap());
        for text in [
            HEXLOWER_PERMISSIVE.encode(&seed),
            HEXLOWER_PERMISSIVE.encode(&seed).to_uppercase(),
            BASE64.encode(&seed),
            BASE64_NOPAD.encode(&seed),
            BASE64URL.encode(&seed),
            BASE64URL_NOPAD.encode(&seed),
        ] {
            let parsed = KeyBytes::parse(&Secret::new(text.as_str()));
            assert_eq!(parsed.map(|parsed| *parsed.expose()), Some(seed), "{text}");
        }
    }

    #[test]
    fn another_length_is_no_seed() {
        for text in [String::new(), "00".repeat(31), "00".repeat(33), BASE64.encode(&[1; 33])] {
            assert!(KeyBytes::parse(&Secret::new(text.as_str())).is_none(), "{text}");
        }
        let seed = KeyBytes::parse(&Secret::new("ab".repeat(32))).unwrap();
        assert_eq!(format!("{seed:?}"), "KeyBytes(…)");
    }
}

//! `[seal]`: the key for what must be kept and not be read.
//!
//! Invariant: a key has 32 bytes and is never shown.

use super::{audit::KeyBytes, section::Section};

/// `[seal]`.
#[derive(Clone, Debug)]
pub struct SealConfig {
    /// What is sealed from now on.
    pub key: KeyBytes,
    /// What was sealed before it: opened, and never sealed with.
    pub previous_key: Option<KeyBytes>,
}

pub(super) fn read(section: &Section<'_>) -> Option<SealConfig> {
    let key = |name: &'static str| {
        let secret = section.secret(name)?;
        let key = KeyBytes::parse(&secret);
        if key.is_none() {
            section.fault(name, "must be 32 bytes, in base64 or as 64 hexadecimal digits");
        }
        key
    };
    if section.item("key").is_none() {
        section.fault_absent("key", "is needed: 32 bytes, `openssl rand -base64 32`");
    }
    let (key, previous_key) = (key("key"), key("previous_key"));
    Some(SealConfig { key: key?, previous_key })
}

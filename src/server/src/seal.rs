//! The seal: AES-256-GCM under the configured key.
//!
//! Invariant: what was sealed for one purpose opens for no other; each sealing has a nonce of
//! its own (96 random bits: NIST SP 800-38D §8.3 allows 2³² sealings under one key).

use std::{fmt, sync::Arc};

use dayfly_backend_sdk::Secret;
use dayfly_lease::{Entropy, Seal, SealError, Sealed};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use zeroize::Zeroizing;

use crate::config::{KeyBytes, SealConfig};

/// The first byte: how the rest is read.
const VERSION: u8 = 1;
/// Which key, by the beginning of its SHA-256.
const KEY_ID_LEN: usize = 4;

/// Seals with one key, and opens what that and the one before have sealed.
pub struct AesSeal {
    key: Key,
    previous: Option<Key>,
    entropy: Arc<dyn Entropy>,
}

struct Key {
    id: [u8; KEY_ID_LEN],
    key: LessSafeKey,
}

impl Key {
    fn new(bytes: &KeyBytes) -> Result<Self, SealError> {
        let unbound = UnboundKey::new(&AES_256_GCM, bytes.expose());
        let hash = digest::digest(&digest::SHA256, bytes.expose());
        let id = hash.as_ref().first_chunk().copied().ok_or(SealError::NoKey)?;
        Ok(Self { id, key: LessSafeKey::new(unbound.map_err(|_| SealError::NoKey)?) })
    }
}

impl AesSeal {
    /// With the keys of a configuration.
    ///
    /// # Errors
    /// [`SealError::NoKey`] when a key is none.
    pub fn new(config: &SealConfig, entropy: Arc<dyn Entropy>) -> Result<Self, SealError> {
        let previous = config.previous_key.as_ref().map(Key::new).transpose()?;
        Ok(Self { key: Key::new(&config.key)?, previous, entropy })
    }
}

impl fmt::Debug for AesSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesSeal(…)")
    }
}

impl Seal for AesSeal {
    fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.key.id);
        bytes.extend_from_slice(&nonce);
        let mut text = secret.expose().as_bytes().to_vec();
        let tag = self.key.key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut text,
        );
        let tag = tag.map_err(|_| SealError::NoRandom)?;
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(tag.as_ref());
        Ok(Sealed::from_bytes(bytes))
    }

    fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        open(&self.key, self.previous.as_ref(), purpose, sealed).ok_or(SealError::Unopened)
    }
}

fn open(key: &Key, previous: Option<&Key>, purpose: &str, sealed: &Sealed) -> Option<Secret> {
    let (&[VERSION], rest) = sealed.as_bytes().split_first_chunk()? else { return None };
    let (id, rest) = rest.split_first_chunk::<KEY_ID_LEN>()?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
    let key = [Some(key), previous].into_iter().flatten().find(|key| key.id == *id)?;
    let mut bytes = Zeroizing::new(rest.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key.key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut bytes).ok()?;
    Some(Secret::new(std::str::from_utf8(opened).ok()?))
}

#[cfg(test)]
mod tests {
    use dayfly_lease::SystemEntropy;

    use super::*;

    fn key(byte: char) -> KeyBytes {
        KeyBytes::parse(&Secret::new(byte.to_string().repeat(64))).unwrap()
    }

    fn seal(first: char, second: Option<char>) -> AesSeal {
        let config = SealConfig { key: key(first), previous_key: second.map(key) };
        AesSeal::new(&config, Arc::new(SystemEntropy::new())).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_for_its_purpose_alone() {
        let seal = seal('a', None);
        let secret = Secret::new("hunter2");
        let sealed = seal.seal("lease/1", &secret).unwrap();
        assert_eq!(seal.open("lease/1", &sealed), Ok(secret.clone()));
        assert_eq!(seal.open("lease/2", &sealed), Err(SealError::Unopened));
        assert!(!sealed.as_bytes().windows(7).any(|part| part == b"hunter2"));
        assert_ne!(seal.seal("lease/1", &secret).unwrap(), sealed, "a nonce of its own");
    }

    #[test]
    fn the_key_before_opens_and_another_does_not() {
        let sealed = seal('a', None).seal("x", &Secret::new("hunter2")).unwrap();
        assert!(seal('b', Some('a')).open("x", &sealed).is_ok());
        assert_eq!(seal('b', None).open("x", &sealed), Err(SealError::Unopened));
    }

    #[test]
    fn whatever_was_changed_does_not_open() {
        let seal = seal('a', None);
        let sealed = seal.seal("x", &Secret::new("hunter2")).unwrap();
        for index in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[index] ^= 1;
            let changed = Sealed::from_bytes(bytes);
            assert_eq!(seal.open("x", &changed), Err(SealError::Unopened), "byte {index}");
            let cut = Sealed::from_bytes(sealed.as_bytes()[..index].to_vec());
            assert_eq!(seal.open("x", &cut), Err(SealError::Unopened), "{index} bytes");
        }
    }
}

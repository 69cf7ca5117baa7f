//! The text of a key: `dfk_`, 32 random bytes in base62, a checksum.
//!
//! Invariant: every key of ours has the same length and a right checksum, so that a secret
//! scanner finds a leaked one and can tell it from noise without asking us.

use dayfly_backend_sdk::Secret;
use ring::digest::{SHA256, digest};

/// What every key begins with.
const MARK: &str = "dfk_";
const RANDOM_BYTES: usize = 32;
/// Base62 digits that 32 bytes need: 43 · log2(62) > 256.
const BODY_DIGITS: usize = 43;
/// Base62 digits that a CRC-32 needs.
const CHECKSUM_DIGITS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes 32 random bytes as a key.
pub(crate) fn key_of(random: &[u8; RANDOM_BYTES]) -> Secret {
    let body = base62(random, BODY_DIGITS);
    Secret::new(format!("{MARK}{body}{}", checksum(&body)))
}

/// Whether `text` looks like one of our keys. Says nothing about whether it is one.
pub(crate) fn well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(MARK) else { return false };
    let Some((body, sum)) = rest.split_at_checked(BODY_DIGITS) else { return false };
    body.bytes().all(|c| ALPHABET.contains(&c)) && sum == checksum(body)
}

/// What is kept of a key. The key has 256 random bits, so that a slow hash would add nothing.
pub(crate) fn hash_of(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn checksum(body: &str) -> String {
    base62(&crc32(body.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS)
}

/// `bytes` as one big number in base 62, the most significant digit first, `digits` long.
fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = Vec::with_capacity(digits);
    for _ in 0..digits {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let value = remainder * 256 + u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        out.push(ALPHABET.get(usize::from(remainder)).copied().map_or('0', char::from));
    }
    out.iter().rev().collect()
}

/// CRC-32 as in zlib (reflected, polynomial 0x04C11DB7): scanners have it at hand.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_gives_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn base62_writes_a_big_number() {
        assert_eq!(base62(&[0], 3), "000");
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[1, 0], 3), "048");
        // 2^256 - 1 still fits in the digits that a key has.
        assert_eq!(base62(&[0xff; 32], BODY_DIGITS + 1).chars().next(), Some('0'));
    }

    #[test]
    fn every_key_has_the_same_shape() {
        for fill in [0x00, 0x01, 0x7f, 0xff] {
            let key = key_of(&[fill; 32]);
            assert_eq!(key.expose().len(), 4 + 43 + 6);
            assert!(key.expose().starts_with("dfk_"));
            assert!(well_formed(key.expose()));
        }
        assert_ne!(key_of(&[1; 32]), key_of(&[2; 32]));
    }

    #[test]
    fn one_changed_character_breaks_the_checksum() {
        let key = key_of(&[7; 32]);
        for at in 4..key.expose().len() {
            let mut bytes = key.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert!(!well_formed(std::str::from_utf8(&bytes).unwrap()), "{at}");
        }
    }

    #[test]
    fn what_is_not_a_key_is_not_well_formed() {
        let key = key_of(&[7; 32]);
        let longer = format!("{}0", key.expose());
        for text in ["", "dfk_", "dfk_é", "ghp_0", key.expose().trim_start_matches("dfk_"), &longer]
        {
            assert!(!well_formed(text), "{text:?}");
        }
    }
}

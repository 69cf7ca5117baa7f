//! What the server is told of a password.
//!
//! Invariant: the password cannot be computed back: it has 256 random bits, so that the weak
//! hash of `mysql_native_password` too is no way to it.

use std::num::NonZeroU32;

use curve25519_dalek::EdwardsPoint;
use data_encoding::{BASE64, BASE64_NOPAD, HEXUPPER};
use ring::{
    digest::{self, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, SHA512_OUTPUT_LEN},
    pbkdf2::{self, PBKDF2_HMAC_SHA512},
};

/// The length of a salt of `caching_sha2_password`, in characters.
pub(crate) const SALT_LEN: usize = 20;
/// The least that the server takes: `$A$005$` is 5,000 (MySQL,
/// `caching_sha2_password_digest_rounds`).
const ROUNDS: usize = 5_000;
/// The same number for the other form: `$B$005$`.
const PBKDF2_ROUNDS: NonZeroU32 = match NonZeroU32::new(5_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};
/// Of a SHA-512, the bytes that the private scalar is made of.
const SCALAR_LEN: usize = 32;
/// crypt's alphabet, six bits a character, the lowest first.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The forms of a `caching_sha2_password` hash (MySQL, `caching_sha2_password_storage_format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sha2Form {
    /// The only one of most servers, and the default of all.
    Crypt5,
    /// What hardened servers ask for.
    Pbkdf2Sha512,
}

/// MariaDB's `ed25519`: the public key of RFC 8032, section 5.1.5, with the password where the
/// private key stands, however long it is.
pub(crate) fn ed25519(password: &str) -> String {
    let expanded = digest::digest(&SHA512, password.as_bytes());
    let mut scalar = [0; SCALAR_LEN];
    for (byte, found) in scalar.iter_mut().zip(expanded.as_ref()) {
        *byte = *found;
    }
    BASE64_NOPAD.encode(EdwardsPoint::mul_base_clamped(scalar).compress().as_bytes())
}

/// `mysql_native_password` (MySQL internals, "Native Authentication"): SHA-1 of SHA-1.
pub(crate) fn native(password: &str) -> String {
    let sha1 = |bytes: &[u8]| digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let stored = sha1(sha1(password.as_bytes()).as_ref());
    format!("*{}", HEXUPPER.encode(stored.as_ref()))
}

/// `caching_sha2_password`: SHA-crypt with SHA-256 (Drepper, "Unix crypt using SHA-256 and
/// SHA-512"), with a salt of 20 characters where crypt takes 16.
pub(crate) fn caching_sha2(password: &str, salt: &[u8; SALT_LEN]) -> String {
    let digest = sha256_crypt(password.as_bytes(), salt);
    let salt: String = salt.iter().copied().map(char::from).collect();
    format!("$A$005${salt}{}", encode(&digest))
}

/// `caching_sha2_password` in its newer form (MySQL WL#17160): PBKDF2 with HMAC-SHA-512.
pub(crate) fn caching_sha2_pbkdf2(password: &str, salt: &[u8; SALT_LEN]) -> String {
    let mut key = [0; SHA512_OUTPUT_LEN];
    pbkdf2::derive(PBKDF2_HMAC_SHA512, PBKDF2_ROUNDS, salt, password.as_bytes(), &mut key);
    let salt: String = salt.iter().copied().map(char::from).collect();
    format!("$B$005${salt}{}", BASE64.encode(&key))
}

fn sha256_crypt(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let length = password.len();
    // Digest B, then A: the steps 1 to 12 of the specification.
    let alternate = sha256(&[password, salt, password]);
    let mut first = Context::new(&SHA256);
    first.update(password);
    first.update(salt);
    first.update(&repeated(&alternate, length));
    let mut bits = length;
    while bits > 0 {
        first.update(if bits & 1 == 1 { &alternate } else { password });
        bits >>= 1;
    }
    let mut result = first.finish().as_ref().to_vec();
    // Steps 13 to 20: a text of the password's length, and one of the salt's.
    let p = repeated(&sha256(&vec![password; length]), length);
    let times = 16 + result.first().copied().map_or(0, usize::from);
    let s = repeated(&sha256(&vec![salt; times]), salt.len());
    // Step 21.
    for round in 0..ROUNDS {
        let mut context = Context::new(&SHA256);
        context.update(if round % 2 == 1 { &p } else { &result });
        if round % 3 != 0 {
            context.update(&s);
        }
        if round % 7 != 0 {
            context.update(&p);
        }
        context.update(if round % 2 == 1 { &result } else { &p });
        result = context.finish().as_ref().to_vec();
    }
    let mut bytes = [0; 32];
    for (byte, found) in bytes.iter_mut().zip(result) {
        *byte = found;
    }
    bytes
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// `bytes` over and over, `length` of them.
fn repeated(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().cycle().take(length).collect()
}

/// Step 22: the bytes in crypt's own order.
fn encode(digest: &[u8; 32]) -> String {
    let at = |index: usize| u32::from(digest.get(index).copied().unwrap_or_default());
    let mut out = String::with_capacity(43);
    let mut group = |bits: u32, characters: usize| {
        for character in 0..characters {
            let index = usize::try_from((bits >> (6 * character)) & 63).unwrap_or_default();
            out.push(ALPHABET.get(index).copied().map_or('.', char::from));
        }
    };
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        group((at(a) << 16) | (at(b) << 8) | at(c), 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    group((at(31) << 8) | at(30), 3);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification, with the rounds and the salt's length that it has there.
    #[test]
    fn sha_crypt_gives_what_the_specification_says() {
        let digest = sha256_crypt(b"Hello world!", b"saltstring");
        assert_eq!(encode(&digest), "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
    }

    /// What MySQL and MariaDB answer to `SELECT PASSWORD('password')`.
    #[test]
    fn the_native_hash_is_the_servers() {
        assert_eq!(native("password"), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    /// MariaDB's `ed25519_password()`, from its own tests and documentation.
    #[test]
    fn the_public_key_is_the_servers() {
        for (password, key) in [
            ("secret", "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY"),
            ("foo", "vubFBzIrapbfHct1/J72dnUryz5VS7lA6XHH8sIx4TI"),
            ("foobar", "qv2mG6HWCuy32Slb5xhV4THStewNz2VINVPbgk+XAJ8"),
            ("foo bar", "Y5fV74JAVRMOK2cdnUsYS+WW9sXaaL/o+6WGKOgqnzc"),
            ("bar", "pfzkeWMzkTefY1oshXS+/kATeN51M+4jxi3/cbyTd10"),
        ] {
            assert_eq!(ed25519(password), key, "{password}");
        }
        // A password as long as ours, by another implementation.
        let long = ed25519(&"A".repeat(52));
        assert_eq!(long, "dj2TrozpHHkniAkHmVNl8tQoWwFk6WBfKtdZKQS/ORY");
    }

    /// By another implementation of PBKDF2.
    #[test]
    fn the_newer_form_is_pbkdf2() {
        assert_eq!(
            caching_sha2_pbkdf2("secret", b"abcdefghijklmnopqrst"),
            "$B$005$abcdefghijklmnopqrstUkLC/ECvu+TT1ZMZOPbHwEC5AWsfu8mpaj4edsndxQg4PLTwBIOZgiCU\
             FCrlrz82SkwuXHDdVsnwq4IokWgEqg=="
        );
    }

    #[test]
    fn the_hash_has_the_length_that_the_server_asks_for() {
        let hash = caching_sha2("secret", b"abcdefghijklmnopqrst");
        assert_eq!(hash.len(), 7 + 20 + 43);
        assert!(hash.starts_with("$A$005$abcdefghijklmnopqrst"));
    }
}

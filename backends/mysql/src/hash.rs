//! What the server is told of a password.
//!
//! Invariant: the password cannot be computed back: it has 256 random bits, so that the weak
//! hash of `mysql_native_password` too is no way to it.

use data_encoding::HEXUPPER;
use ring::digest::{self, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The length of a salt of `caching_sha2_password`, in characters.
pub(crate) const SALT_LEN: usize = 20;
/// The least that the server takes: `$A$005$` is 5,000 (MySQL,
/// `caching_sha2_password_digest_rounds`).
const ROUNDS: usize = 5_000;
/// crypt's alphabet, six bits a character, the lowest first.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

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

    #[test]
    fn the_hash_has_the_length_that_the_server_asks_for() {
        let hash = caching_sha2("secret", b"abcdefghijklmnopqrst");
        assert_eq!(hash.len(), 7 + 20 + 43);
        assert!(hash.starts_with("$A$005$abcdefghijklmnopqrst"));
    }
}

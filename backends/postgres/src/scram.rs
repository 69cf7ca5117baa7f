//! The verifier that PostgreSQL keeps instead of a password (RFC 5802, RFC 7677, and the
//! form of RFC 5803).
//!
//! Invariant: the server is given the verifier and never the password, so that neither its
//! log nor its statistics can hold one.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::{
    digest::{SHA256, digest},
    hmac,
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
};

pub(crate) const SALT_LEN: usize = 16;

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. The password must be ASCII, which
/// `SASLprep` leaves as it is.
pub(crate) fn verifier(password: &str, salt: &[u8; SALT_LEN], iterations: NonZeroU32) -> String {
    let keys = Keys::derive(password, salt, iterations);
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(&keys.stored),
        BASE64.encode(&keys.server)
    )
}

struct Keys {
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl Keys {
    fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; 32];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client = hmac::sign(&key, b"Client Key");
        Self {
            stored: digest(&SHA256, client.as_ref()).as_ref().to_vec(),
            server: hmac::sign(&key, b"Server Key").as_ref().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    const AUTH_MESSAGE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
        c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    #[test]
    fn the_keys_prove_the_exchange_of_rfc_7677() {
        let salt = BASE64.decode(SALT.as_bytes()).unwrap();
        let keys = Keys::derive("pencil", &salt, NonZeroU32::new(4096).unwrap());
        let sign = |key: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), AUTH_MESSAGE.as_bytes())
        };
        assert_eq!(
            BASE64.encode(sign(&keys.server).as_ref()),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        // The client's proof, undone with the stored key, must be the key that was stored.
        let proof = BASE64.decode(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = sign(&keys.stored);
        let client: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA256, &client).as_ref(), keys.stored);
    }

    #[test]
    fn the_verifier_has_the_form_that_the_server_reads() {
        let text = verifier("pencil", &[0; SALT_LEN], NonZeroU32::MIN);
        let (head, keys) = text.rsplit_once('$').unwrap();
        assert_eq!(head, "SCRAM-SHA-256$1:AAAAAAAAAAAAAAAAAAAAAA==");
        let (stored, server) = keys.split_once(':').unwrap();
        assert_eq!(stored.len(), 44);
        assert_eq!(server.len(), 44);
    }
}

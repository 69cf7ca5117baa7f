//! Proof Key for Code Exchange (RFC 7636): whoever gets hold of a code cannot use it.
//!
//! Invariant: the verifier leaves this process for the token endpoint alone.

use data_encoding::BASE64URL_NOPAD;
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use zeroize::Zeroizing;

use super::Error;

/// A verifier of one question.
pub(super) struct Pkce(Zeroizing<String>);

impl Pkce {
    pub(super) fn new() -> Result<Self, Error> {
        random().map(Zeroizing::new).map(Self)
    }

    /// What the question says.
    pub(super) fn challenge(&self) -> String {
        BASE64URL_NOPAD.encode(digest(&SHA256, self.0.as_bytes()).as_ref())
    }

    /// What only whoever asked can say.
    pub(super) fn verifier(&self) -> &str {
        &self.0
    }
}

/// 256 bits that nobody guesses, in characters of URLs (§4.1).
pub(super) fn random() -> Result<String, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(bytes.as_mut());
    filled.map_err(|_| Error::NoRandomness)?;
    Ok(BASE64URL_NOPAD.encode(bytes.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn a_challenge_is_the_hash_of_its_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let challenge = Pkce(Zeroizing::new(verifier)).challenge();
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn each_question_has_a_verifier_of_its_own() {
        let (one, other) = (Pkce::new().unwrap(), Pkce::new().unwrap());
        assert_ne!(one.verifier(), other.verifier());
        // §4.1: 43 to 128 characters.
        assert_eq!(one.verifier().len(), 43);
    }
}

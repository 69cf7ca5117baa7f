//! The cryptography of `jsonwebtoken`, made of ring.
//!
//! Invariant: symmetric algorithms are refused here too, so that no key, whatever its bytes,
//! can ever be used as a shared secret.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result, new_error},
    jwk::ThumbprintHash,
    signature as traits,
};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{
        self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest,
    },
};

/// Makes ring the cryptography of `jsonwebtoken` and of rustls in this process. May be
/// called again; the first call counts.
pub fn install() {
    // Both answer with an error when a provider is there already, and no other than ring is
    // compiled in.
    RING.install_default().ok();
    rustls::crypto::ring::default_provider().install_default().ok();
}

fn unsupported() -> Error {
    new_error(ErrorKind::UnsupportedAlgorithm)
}

#[expect(clippy::needless_pass_by_value, reason = "the library's signature")]
fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &digest::SHA256,
        ThumbprintHash::SHA384 => &digest::SHA384,
        ThumbprintHash::SHA512 => &digest::SHA512,
        _ => return Err(unsupported()),
    };
    Ok(digest::digest(algorithm, data).as_ref().to_vec())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    let check = check(*algorithm)?;
    Ok(Box::new(Verifier { algorithm: *algorithm, check, key: key.clone() }))
}

enum Check {
    Bytes(&'static dyn VerificationAlgorithm),
    Rsa(&'static RsaParameters),
}

fn check(algorithm: Algorithm) -> Result<Check> {
    match algorithm {
        Algorithm::ES256 => Ok(Check::Bytes(&signature::ECDSA_P256_SHA256_FIXED)),
        Algorithm::ES384 => Ok(Check::Bytes(&signature::ECDSA_P384_SHA384_FIXED)),
        Algorithm::EdDSA => Ok(Check::Bytes(&signature::ED25519)),
        Algorithm::RS256 => Ok(Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256)),
        Algorithm::RS384 => Ok(Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384)),
        Algorithm::RS512 => Ok(Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512)),
        Algorithm::PS256 => Ok(Check::Rsa(&signature::RSA_PSS_2048_8192_SHA256)),
        Algorithm::PS384 => Ok(Check::Rsa(&signature::RSA_PSS_2048_8192_SHA384)),
        Algorithm::PS512 => Ok(Check::Rsa(&signature::RSA_PSS_2048_8192_SHA512)),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | _ => Err(unsupported()),
    }
}

struct Verifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl traits::Verifier<Vec<u8>> for Verifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), traits::Error> {
        let verified = match (&self.check, self.key.kind()) {
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Check::Rsa(parameters), DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(*parameters, der).verify(message, signature)
            }
            (Check::Bytes(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(*algorithm, point).verify(message, signature)
            }
            (Check::Bytes(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
                Err(ring::error::Unspecified)
            }
        };
        verified.map_err(|_| traits::Error::new())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    let der = key.as_bytes();
    let random = SystemRandom::new();
    let pair = match algorithm {
        Algorithm::ES256 => {
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                .map(Pair::Ec)
                .map_err(|_| new_error(ErrorKind::InvalidEcdsaKey))?
        }
        Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Pair::Ed)
            .map_err(|_| new_error(ErrorKind::InvalidEddsaKey))?,
        Algorithm::RS256 => RsaKeyPair::from_der(der)
            .map(Pair::Rsa)
            .map_err(|e| new_error(ErrorKind::InvalidRsaKey(e.to_string())))?,
        Algorithm::ES384
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512
        | Algorithm::HS256
        | Algorithm::HS384
        | Algorithm::HS512
        | _ => return Err(unsupported()),
    };
    Ok(Box::new(Signer { algorithm: *algorithm, pair, random }))
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

struct Signer {
    algorithm: Algorithm,
    pair: Pair,
    random: SystemRandom,
}

impl JwtSigner for Signer {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl traits::Signer<Vec<u8>> for Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, traits::Error> {
        match &self.pair {
            Pair::Ec(pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| traits::Error::new()),
            Pair::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| traits::Error::new())?;
                Ok(signature)
            }
        }
    }
}

//! The keys that sign, and their public halves.
//!
//! Invariant: a key is P-256 or Ed25519 and says its algorithm itself, so that no token is
//! signed by one algorithm under the name of another.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Secret;
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Map, Value, json};

/// `SubjectPublicKeyInfo` of P-256 (RFC 5480) up to the point, and of Ed25519 (RFC 8410) up to
/// the key: all of it but the key is the same in each.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// How a point begins that is written with both coordinates.
const UNCOMPRESSED: u8 = 0x04;

/// The public half of a key that signs, has signed or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    Ed25519([u8; 32]),
    P256 { x: [u8; 32], y: [u8; 32] },
}

impl PublicKey {
    /// The one key that `pem` has; none if it is another thing, or not alone.
    pub(super) fn from_pem(pem: &str) -> Option<Self> {
        let der: SubjectPublicKeyInfoDer<'_> = alone(pem)?;
        let der: &[u8] = der.as_ref();
        match der.strip_prefix(&P256_HEAD) {
            Some(point) => Self::of_point(point),
            None => Self::of_ed25519(der.strip_prefix(&ED25519_HEAD)?),
        }
    }

    fn of_point(point: &[u8]) -> Option<Self> {
        let (&first, rest) = point.split_first()?;
        let (x, y) = rest.split_at_checked(32)?;
        let uncompressed = first == UNCOMPRESSED;
        uncompressed.then_some(Self::P256 { x: x.try_into().ok()?, y: y.try_into().ok()? })
    }

    fn of_ed25519(key: &[u8]) -> Option<Self> {
        key.try_into().ok().map(Self::Ed25519)
    }

    /// `alg` (RFC 7518, RFC 8037).
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256 { .. } => "ES256",
        }
    }

    /// The name of the key: its thumbprint (RFC 7638), which says the same of the same key at
    /// every replica and after every restart.
    pub(super) fn kid(&self) -> String {
        let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        // The members that the RFC asks for, in its order and without a blank.
        let members = match self {
            Self::Ed25519(x) => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64(x))
            }
            Self::P256 { x, y } => {
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, base64(x), base64(y))
            }
        };
        base64(digest(&SHA256, members.as_bytes()).as_ref())
    }

    /// As it is published.
    pub(super) fn jwk(&self) -> Value {
        let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let (alg, kid) = (self.algorithm(), self.kid());
        match self {
            Self::Ed25519(x) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": base64(x), "use": "sig",
                "alg": alg, "kid": kid,
            }),
            Self::P256 { x, y } => json!({
                "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y), "use": "sig",
                "alg": alg, "kid": kid,
            }),
        }
    }
}

/// A key that signs.
pub(super) struct SigningKey {
    pair: Pair,
    public: PublicKey,
    /// The header of all its tokens, encoded.
    header: String,
    random: SystemRandom,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    /// The one key that `pem` has; none if it is another thing, or not alone.
    pub(super) fn from_pem(pem: &Secret) -> Option<Self> {
        let der: PrivatePkcs8KeyDer<'_> = alone(pem.expose())?;
        let (der, random) = (der.secret_pkcs8_der(), SystemRandom::new());
        // OpenSSL writes an Ed25519 key without its public half.
        let (pair, public) = if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = PublicKey::of_ed25519(pair.public_key().as_ref())?;
            (Pair::Ed(pair), public)
        } else {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &random).ok()?;
            let public = PublicKey::of_point(pair.public_key().as_ref())?;
            (Pair::Ec(pair), public)
        };
        let header = json!({ "alg": public.algorithm(), "kid": public.kid(), "typ": "at+jwt" });
        let header = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        Some(Self { pair, public, header, random })
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A token that says `claims`; none if the system has no random numbers.
    pub(super) fn token(&self, claims: &Map<String, Value>) -> Option<Secret> {
        let claims = serde_json::to_vec(claims).ok()?;
        let message = format!("{}.{}", self.header, BASE64URL_NOPAD.encode(&claims));
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&self.random, message.as_bytes()).ok()?,
            Pair::Ed(pair) => pair.sign(message.as_bytes()),
        };
        Some(Secret::new(format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What `pem` has one of, and nothing that cannot be read besides.
fn alone<T: PemObject>(pem: &str) -> Option<T> {
    let mut found = T::pem_slice_iter(pem.as_bytes());
    let one = found.next()?.ok()?;
    found.next().is_none().then_some(one)
}

//! A certificate authority that signs whatever a test wants, right or wrong.

use data_encoding::BASE64;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::identity::tests::kit::{der, der_integer};

const ECDSA_WITH_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_WITH_SHA1: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
const RSA_ENCRYPTION: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0x00];
const EC_PUBLIC_KEY_P256: [u8; 19] = [
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1,
    7,
];

/// The point of P-256 that all keys are multiples of, uncompressed.
const GENERATOR: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40,
    0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2,
    0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e,
    0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51,
    0xf5,
];

/// Bits of keyUsage, in the first byte.
pub(super) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(super) const CERT_SIGN: u8 = 0x04;
pub(super) const CRL_SIGN: u8 = 0x02;

/// The last part of the purposes below 1.3.6.1.5.5.7.3.
pub(super) const SERVER_AUTH: u8 = 1;
pub(super) const CLIENT_AUTH: u8 = 2;

/// What is to be certified.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) uris: Vec<String>,
    pub(super) dns: Option<String>,
    pub(super) ca: bool,
    /// pathLenConstraint.
    pub(super) path_len: Option<u8>,
    pub(super) usage: Option<u8>,
    pub(super) usage_critical: bool,
    pub(super) purposes: Vec<u8>,
    pub(super) from: &'static str,
    pub(super) until: &'static str,
    /// Signed as if by SHA-1: it says so, but ring signs nothing by it.
    pub(super) sha1: bool,
    /// An extension as it stands, or several.
    pub(super) more: Vec<u8>,
}

impl Wanted {
    /// A workload's certificate with these URIs, of the day that the tests begin on.
    pub(super) fn workload(uris: &[&str]) -> Self {
        Self {
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            dns: None,
            ca: false,
            path_len: None,
            usage: Some(DIGITAL_SIGNATURE),
            usage_critical: true,
            purposes: vec![SERVER_AUTH, CLIENT_AUTH],
            from: "20260921120000Z",
            until: "20260922120000Z",
            sha1: false,
            more: Vec::new(),
        }
    }

    /// A signing certificate.
    pub(super) fn signer() -> Self {
        let usage = Some(CERT_SIGN | CRL_SIGN);
        let (from, until) = ("20200101000000Z", "20991231235959Z");
        Self { ca: true, usage, purposes: Vec::new(), from, until, ..Self::workload(&[]) }
    }

    fn extensions(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut constraints = if self.ca { der(0x01, &[0xff]) } else { Vec::new() };
        constraints.extend(self.path_len.iter().flat_map(|len| der(0x02, &[*len])));
        all.extend(extension(&[0x55, 0x1d, 0x13], true, &der(0x30, &constraints)));
        if let Some(bits) = self.usage {
            let unused = u8::try_from(bits.trailing_zeros()).unwrap();
            let value = der(0x03, &[unused, bits]);
            all.extend(extension(&[0x55, 0x1d, 0x0f], self.usage_critical, &value));
        }
        if !self.purposes.is_empty() {
            let purpose = |last: &u8| der(0x06, &[0x2b, 6, 1, 5, 5, 7, 3, *last]);
            let purposes: Vec<u8> = self.purposes.iter().flat_map(purpose).collect();
            all.extend(extension(&[0x55, 0x1d, 0x25], false, &der(0x30, &purposes)));
        }
        all.extend(self.names());
        all.extend(&self.more);
        all
    }

    /// subjectAltName, if there is any name.
    pub(super) fn names(&self) -> Vec<u8> {
        let uris = self.uris.iter().flat_map(|uri| der(0x86, uri.as_bytes()));
        let mut names: Vec<u8> = uris.collect();
        names.extend(self.dns.iter().flat_map(|dns| der(0x82, dns.as_bytes())));
        if names.is_empty() {
            return Vec::new();
        }
        extension(&[0x55, 0x1d, 0x11], false, &der(0x30, &names))
    }
}

/// A key with its certificate.
pub(super) struct Authority {
    pair: EcdsaKeyPair,
    name: String,
    pub(super) certificate: CertificateDer<'static>,
}

impl Authority {
    /// Signed by itself.
    pub(super) fn new(name: &str) -> Self {
        Self::certified(name, &Wanted::signer())
    }

    /// Signed by itself, with a certificate that says something else.
    pub(super) fn certified(name: &str, wanted: &Wanted) -> Self {
        let pair = key_pair();
        let certificate = certificate((&pair, name), (&public(&pair), name), wanted);
        Self { pair, name: name.to_owned(), certificate }
    }

    /// Another one below this.
    pub(super) fn below(&self, name: &str, wanted: &Wanted) -> Self {
        let pair = key_pair();
        let certificate = certificate((&self.pair, &self.name), (&public(&pair), name), wanted);
        Self { pair, name: name.to_owned(), certificate }
    }

    /// A certificate for a key that nobody keeps.
    pub(super) fn sign(&self, wanted: &Wanted) -> CertificateDer<'static> {
        self.sign_key(&public(&key_pair()), wanted)
    }

    /// A certificate for this public key.
    pub(super) fn sign_key(&self, key: &[u8], wanted: &Wanted) -> CertificateDer<'static> {
        certificate((&self.pair, &self.name), (key, "workload"), wanted)
    }

    /// As a bundle has it.
    pub(super) fn jwk(&self) -> Value {
        json!({ "kty": "EC", "use": "x509-svid", "x5c": [BASE64.encode(&self.certificate)] })
    }
}

/// An authority that makes the same certificates of the same wishes in each run: its Ed25519 key
/// is made of a seed, and nothing is drawn for its signatures. For what must be found again.
pub(super) struct Seeded {
    pair: Ed25519KeyPair,
    name: &'static str,
    pub(super) certificate: CertificateDer<'static>,
}

impl Seeded {
    /// Signed by itself.
    pub(super) fn new(name: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let body = body(&ED25519, name, (&ed25519_public(&pair), name), &Wanted::signer());
        let certificate = sealed(&body, &ED25519, pair.sign(&body).as_ref());
        Self { pair, name, certificate }
    }

    /// Another one below this.
    pub(super) fn below(&self, name: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = ed25519_public(&pair);
        let certificate = self.seal(&body(&ED25519, self.name, (&key, name), &Wanted::signer()));
        Self { pair, name, certificate }
    }

    /// A certificate for a key that everybody knows.
    pub(super) fn sign(&self, wanted: &Wanted) -> CertificateDer<'static> {
        self.seal(&body(&ED25519, self.name, (&point(&GENERATOR), "workload"), wanted))
    }

    /// Signs whatever this is.
    pub(super) fn seal(&self, body: &[u8]) -> CertificateDer<'static> {
        sealed(body, &ED25519, self.pair.sign(body).as_ref())
    }

    /// Its public key, 32 bytes.
    pub(super) fn key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

fn ed25519_public(pair: &Ed25519KeyPair) -> Vec<u8> {
    der(0x30, &[der(0x30, &ED25519), bits(pair.public_key().as_ref())].concat())
}

fn key_pair() -> EcdsaKeyPair {
    let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

/// A public key as a certificate has it.
fn public(pair: &EcdsaKeyPair) -> Vec<u8> {
    point(pair.public_key().as_ref())
}

fn point(point: &[u8]) -> Vec<u8> {
    der(0x30, &[der(0x30, &EC_PUBLIC_KEY_P256), bits(point)].concat())
}

/// The same of an RSA key: both numbers big-endian, without leading zeros.
pub(super) fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = der(0x30, &[der_integer(modulus), der_integer(exponent)].concat());
    der(0x30, &[der(0x30, &RSA_ENCRYPTION), bits(&numbers)].concat())
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes].concat())
}

/// The nameConstraints that permit the URIs or DNS names, by their tag, of one host.
pub(super) fn permitted(tag: u8, host: &str) -> Vec<u8> {
    subtree(0xa0, tag, host)
}

/// The nameConstraints that exclude them.
pub(super) fn excluded(tag: u8, host: &str) -> Vec<u8> {
    subtree(0xa1, tag, host)
}

fn subtree(which: u8, tag: u8, host: &str) -> Vec<u8> {
    let names = der(which, &der(0x30, &der(tag, host.as_bytes())));
    extension(&[0x55, 0x1d, 0x1e], true, &der(0x30, &names))
}

pub(super) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[0xff]) } else { Vec::new() };
    der(0x30, &[der(0x06, id), critical, der(0x04, value)].concat())
}

fn certificate(
    (issuer, issuer_name): (&EcdsaKeyPair, &str),
    (key, subject_name): (&[u8], &str),
    wanted: &Wanted,
) -> CertificateDer<'static> {
    let signed_with: &[u8] = if wanted.sha1 { &ECDSA_WITH_SHA1 } else { &ECDSA_WITH_SHA256 };
    let body = body(signed_with, issuer_name, (key, subject_name), wanted);
    let signature = issuer.sign(&SystemRandom::new(), &body).unwrap();
    sealed(&body, signed_with, signature.as_ref())
}

/// What is signed.
fn body(
    signed_with: &[u8],
    issuer_name: &str,
    (key, subject_name): (&[u8], &str),
    wanted: &Wanted,
) -> Vec<u8> {
    let name = |cn: &str| {
        let attribute = [der(0x06, &[0x55, 4, 3]), der(0x0c, cn.as_bytes())].concat();
        der(0x30, &der(0x31, &der(0x30, &attribute)))
    };
    let time = |text: &str| der(0x18, text.as_bytes());
    let parts = [
        der(0xa0, &der(0x02, &[2])),
        der(0x02, &[1]),
        der(0x30, signed_with),
        name(issuer_name),
        der(0x30, &[time(wanted.from), time(wanted.until)].concat()),
        name(subject_name),
        key.to_vec(),
        der(0xa3, &der(0x30, &wanted.extensions())),
    ];
    der(0x30, &parts.concat())
}

fn sealed(body: &[u8], signed_with: &[u8], signature: &[u8]) -> CertificateDer<'static> {
    let parts = [body, &der(0x30, signed_with), &bits(signature)];
    CertificateDer::from(der(0x30, &parts.concat()))
}

//! A SPIFFE trust domain: an authority by `openssl`, its workloads' documents, its bundle.
//!
//! Invariant: it certifies whatever a test wants, right or wrong.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use data_encoding::BASE64URL_NOPAD;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run;

/// What a workload's certificate says beside its name, when it is right.
const WORKLOAD: [&str; 3] = [
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=serverAuth,clientAuth",
];

/// One trust domain with one authority and one key for tokens.
pub struct TrustDomain {
    directory: TempDir,
    signer: EcdsaKeyPair,
}

impl TrustDomain {
    /// With fresh keys. Which domain it is for, its workloads' ids say.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("dft").tempdir().unwrap();
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let signer = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let domain = Self { directory, signer };
        let usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        domain.openssl("/CN=authority", "ca", 30, &usage);
        domain
    }

    /// The key and certificate of the workload `id`, PEM.
    pub fn svid(&self, id: &str) -> Vec<u8> {
        self.certified(&format!("URI:{id}"), &WORKLOAD)
    }

    /// The same, valid for so many days and not for one.
    pub fn svid_for(&self, id: &str, days: u32) -> Vec<u8> {
        self.signed("-sha256", days, &format!("URI:{id}"), &WORKLOAD)
    }

    /// The same with any names, as openssl writes them, and any extensions.
    pub fn certified(&self, names: &str, extensions: &[&str]) -> Vec<u8> {
        self.signed("-sha256", 1, names, extensions)
    }

    /// The key and certificate of the workload `id`, signed by SHA-1.
    pub fn certified_by_sha1(&self, id: &str) -> Vec<u8> {
        self.signed("-sha1", 1, &format!("URI:{id}"), &WORKLOAD)
    }

    fn signed(&self, hash: &str, days: u32, names: &str, extensions: &[&str]) -> Vec<u8> {
        let names = format!("subjectAltName={names}");
        let (ca, key) = (self.text_of("ca.pem"), self.text_of("ca.key"));
        let mut arguments = vec![hash, "-CA", &ca, "-CAkey", &key, "-addext", &names];
        for extension in extensions {
            arguments.extend(["-addext", extension]);
        }
        self.openssl("/CN=workload", "svid", days, &arguments);
        [self.read("svid.key"), self.read("svid.pem")].concat()
    }

    /// The same with one name too many.
    pub fn certified_twice(&self, id: &str, other: &str) -> Vec<u8> {
        self.certified(&format!("URI:{id},URI:{other}"), &WORKLOAD)
    }

    /// A JWT-SVID.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.signer.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    /// Its bundle.
    pub fn bundle(&self) -> String {
        let pem = String::from_utf8(self.read("ca.pem")).unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let point = self.signer.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap().split_at(32);
        let [x, y] = [x, y].map(|part| BASE64URL_NOPAD.encode(part));
        json!({
            "spiffe_sequence": 1,
            "spiffe_refresh_hint": 300,
            "keys": [
                { "kty": "EC", "use": "x509-svid", "x5c": [base64] },
                { "kty": "EC", "use": "jwt-svid", "kid": "k1", "crv": "P-256", "x": x, "y": y },
            ],
        })
        .to_string()
    }

    fn openssl(&self, subject: &str, name: &str, days: u32, more: &[&str]) {
        let (key, out) =
            (self.text_of(&format!("{name}.key")), self.text_of(&format!("{name}.pem")));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let days = days.to_string();
        command.args(["-nodes", "-days", &days, "-subj", subject, "-keyout", &key, "-out", &out]);
        run(command.args(more));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text_of(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustDomain").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Replaces a file in one step, as whoever writes bundles does.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

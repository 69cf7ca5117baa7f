//! The attack corpus on SPIFFE identities.
//!
//! Every desk first accepts a good SVID, so that no refusal below passes for another reason
//! than the one it names.

mod bundle;
mod endpoint;
mod fuzz;
mod id;
mod jwt;
mod pki;
mod tls;
mod x509;

use std::{path::PathBuf, sync::Arc};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{
    Authenticator, BundleFrom, ClaimValue, Principal, Rejection, TrustDomainConfig,
    tests::kit::{AUDIENCE, FakeClock, Signer},
};
use pki::{Authority, Wanted};

const DOMAIN: &str = "example.org";
const OTHER: &str = "other.example";
const WEB: &str = "spiffe://example.org/ns/prod/sa/web";

/// Two trust domains, each with an authority, a key `k1` for tokens, and a bundle in a file.
struct Desk {
    directory: TempDir,
    clock: Arc<FakeClock>,
    authenticator: Authenticator,
    authority: Authority,
    signer: Signer,
    other: Authority,
    other_signer: Signer,
}

impl Desk {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other rules for [`DOMAIN`].
    async fn with(change: impl FnOnce(&mut TrustDomainConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = FakeClock::new();
        let (authority, other) = (Authority::new("one"), Authority::new("two"));
        let (signer, other_signer) = (Signer::es256(), Signer::es256());
        let rules = |name: &str| {
            let file = directory.path().join(name);
            let rules = TrustDomainConfig::new(name, BundleFrom::File(file));
            TrustDomainConfig { audiences: vec![AUDIENCE.to_owned()], ..rules }
        };
        let mut first = rules(DOMAIN);
        change(&mut first);
        let authenticator = Authenticator::new(Vec::new(), clock.clone()).unwrap();
        let authenticator = authenticator.trusting(vec![first, rules(OTHER)]).unwrap();
        let desk = Self { directory, clock, authenticator, authority, signer, other, other_signer };
        desk.publish(DOMAIN, &[desk.authority.jwk(), token_key(&desk.signer, "k1")]);
        desk.publish(OTHER, &[desk.other.jwk(), token_key(&desk.other_signer, "k1")]);
        let good = desk.authority.sign(&Wanted::workload(&[WEB]));
        assert_eq!(desk.show(&[good]).await.unwrap().subject, WEB);
        desk
    }

    fn file(&self, domain: &str) -> PathBuf {
        self.directory.path().join(domain)
    }

    fn publish(&self, domain: &str, keys: &[Value]) {
        let bundle = json!({ "keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300 });
        std::fs::write(self.file(domain), bundle.to_string()).unwrap();
    }

    async fn show(&self, chain: &[CertificateDer<'_>]) -> Result<Principal, Rejection> {
        self.authenticator.authenticate_certificate(chain).await
    }

    async fn ask(&self, token: &str) -> Result<Principal, Rejection> {
        self.authenticator.authenticate(token).await
    }
}

/// A key for JWT-SVIDs as a bundle has it.
fn token_key(signer: &Signer, kid: &str) -> Value {
    let mut key = signer.jwk(kid);
    key["use"] = json!("jwt-svid");
    key
}

fn text(principal: &Principal, claim: &str) -> String {
    match principal.claims.get(claim) {
        Some(ClaimValue::Text(text)) => text.clone(),
        other => panic!("{claim} is {other:?}"),
    }
}

//! The issuer of `dev` and `demo`.

use std::sync::Arc;

use dayfly_lease::SystemEntropy;

use super::kit::{AUDIENCE, FakeClock, ISSUER, claims};
use crate::identity::{Authenticator, FixedKeys, IssuerConfig, LocalIssuer, Rejection};

#[tokio::test]
async fn its_tokens_pass_like_any_others() {
    let issuer = LocalIssuer::new(&SystemEntropy::new()).unwrap();
    let keys = FixedKeys::parse(issuer.jwks().to_string().as_bytes()).unwrap();
    let rules = IssuerConfig::new("local", ISSUER, AUDIENCE);
    let desk =
        Authenticator::with_sources(vec![(rules, Arc::new(keys))], FakeClock::new()).unwrap();
    let principal = desk.authenticate(&issuer.sign(&claims())).await.unwrap();
    assert_eq!(principal.id(), "local|repo:acme/app");

    let other = LocalIssuer::new(&SystemEntropy::new()).unwrap();
    assert_eq!(desk.authenticate(&other.sign(&claims())).await, Err(Rejection::UnknownKey));
    assert!(!format!("{issuer:?}").contains("pair"));
}

#[tokio::test]
async fn its_keys_work_from_a_file_too_and_are_rotated_by_replacing_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let (old, new) = (
        LocalIssuer::new(&SystemEntropy::new()).unwrap(),
        LocalIssuer::new(&SystemEntropy::new()).unwrap(),
    );
    let mut rules = IssuerConfig::new("local", ISSUER, AUDIENCE);
    rules.jwks_file = Some(path.clone());
    let clock = FakeClock::new();
    let desk = Authenticator::new(vec![rules], clock.clone()).unwrap();
    assert_eq!(desk.authenticate(&old.sign(&claims())).await, Err(Rejection::KeysUnavailable));
    std::fs::write(&path, old.jwks().to_string()).unwrap();
    clock.advance(5);
    assert!(desk.authenticate(&old.sign(&claims())).await.is_ok());
    std::fs::write(&path, new.jwks().to_string()).unwrap();
    clock.advance(30);
    assert!(desk.authenticate(&new.sign(&claims())).await.is_ok());
    assert_eq!(desk.authenticate(&old.sign(&claims())).await, Err(Rejection::UnknownKey));
}

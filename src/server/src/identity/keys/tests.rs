//! Keys over HTTP: a server that behaves, and servers that do not.

pub(crate) mod server;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use serde_json::json;

use self::server::{Handle, Site, Tls, never_ending};
use super::{
    super::{
        Authenticator, IssuerConfig, Rejection,
        tests::kit::{AUDIENCE, FakeClock, Signer, claims},
    },
    DiscoveryFault, HttpKeys, KeySet, KeySource, KeysError,
};

fn rules(url: &str) -> IssuerConfig {
    let mut rules = IssuerConfig::new("idp", url, AUDIENCE);
    rules.insecure_http = url.starts_with("http:");
    rules
}

fn token(signer: &Signer, kid: &str, url: &str) -> String {
    let mut claims = claims();
    claims["iss"] = json!(url);
    claims["exp"] = json!(super::super::tests::kit::NOW + 86_000);
    signer.token(&json!({"alg": "ES256", "kid": kid}).to_string(), &claims.to_string())
}

/// A site with key `k1`, its key, a clock, and a desk that trusts it.
async fn desk() -> (Handle, Signer, Arc<FakeClock>, Authenticator) {
    let signer = Signer::es256();
    let site = Site::open().await;
    site.publish(&[signer.jwk("k1")]);
    let clock = FakeClock::new();
    let desk = Authenticator::new(vec![rules(&site.url)], clock.clone()).unwrap();
    (site, signer, clock, desk)
}

#[tokio::test]
async fn keys_are_discovered_once_and_kept() {
    let (site, signer, _, desk) = desk().await;
    for _ in 0..10 {
        let principal = desk.authenticate(&token(&signer, "k1", &site.url)).await.unwrap();
        assert_eq!(principal.issuer, "idp");
    }
    assert_eq!(site.jwks_requests(), 1);
    assert_eq!(desk.key_fetches()["idp"], 1);
}

/// Line 44: the many that wait for the first keys wait for one request.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_come_together_cause_one_fetch() {
    let (site, signer, _, desk) = desk().await;
    site.delay_millis.store(100, Ordering::Relaxed);
    let token = token(&signer, "k1", &site.url);
    let all = (0..100).map(|_| desk.authenticate(&token));
    for answer in futures_util::future::join_all(all).await {
        assert!(answer.is_ok());
    }
    assert_eq!(site.jwks_requests(), 1);
}

/// Line 44: a flood of unknown ids causes one fetch in thirty seconds, and a known key works
/// all the while without a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_kids_causes_one_fetch_in_thirty_seconds() {
    let (site, signer, clock, desk) = desk().await;
    let good = token(&signer, "k1", &site.url);
    assert!(desk.authenticate(&good).await.is_ok());
    for round in 1..=3_u64 {
        clock.advance(30);
        for wave in 0..10 {
            let tokens: Vec<String> =
                (0..50).map(|i| token(&signer, &format!("x{wave}-{i}"), &site.url)).collect();
            let all = tokens.iter().map(|token| desk.authenticate(token));
            for answer in futures_util::future::join_all(all).await {
                assert_eq!(answer, Err(Rejection::UnknownKey));
            }
            assert!(desk.authenticate(&good).await.is_ok());
        }
        assert_eq!(site.jwks_requests(), 1 + round);
    }
    clock.advance(29);
    let unknown = token(&signer, "x", &site.url);
    assert_eq!(desk.authenticate(&unknown).await, Err(Rejection::UnknownKey));
    assert_eq!(site.jwks_requests(), 4);
}

/// Line 44: a new key works as soon as it is asked for, a removed one no longer than five
/// minutes.
#[tokio::test]
async fn keys_are_rotated_and_taken_back() {
    let (site, old, clock, desk) = desk().await;
    assert!(desk.authenticate(&token(&old, "k1", &site.url)).await.is_ok());
    let new = Signer::es256();
    site.publish(&[new.jwk("k2")]);
    // Right after a fetch the new key is not asked for yet.
    let with_new = token(&new, "k2", &site.url);
    assert_eq!(desk.authenticate(&with_new).await, Err(Rejection::UnknownKey));
    assert!(desk.authenticate(&token(&old, "k1", &site.url)).await.is_ok());
    clock.advance(30);
    assert!(desk.authenticate(&with_new).await.is_ok());
    assert_eq!(desk.authenticate(&token(&old, "k1", &site.url)).await, Err(Rejection::UnknownKey));

    site.publish(&[]);
    clock.advance(299);
    assert!(desk.authenticate(&with_new).await.is_ok());
    clock.advance(1);
    assert_eq!(desk.authenticate(&with_new).await, Err(Rejection::UnknownKey));
}

/// The background loop renews keys before a caller has to wait for them.
#[tokio::test]
async fn keys_are_renewed_ahead_of_need() {
    let (site, signer, clock, desk) = desk().await;
    desk.refresh().await;
    assert_eq!(site.jwks_requests(), 1, "fetched before anyone asked");
    clock.advance(239);
    desk.refresh().await;
    assert_eq!(site.jwks_requests(), 1);
    clock.advance(1);
    desk.refresh().await;
    assert_eq!(site.jwks_requests(), 2);
    clock.advance(200);
    assert!(desk.authenticate(&token(&signer, "k1", &site.url)).await.is_ok());
    assert_eq!(site.jwks_requests(), 2);
}

/// Line 44: an outage is bridged for an hour, then we fail closed; when the issuer is back, so
/// are we.
#[tokio::test]
async fn an_outage_is_bridged_for_an_hour_and_no_longer() {
    let (site, signer, clock, desk) = desk().await;
    let good = token(&signer, "k1", &site.url);
    assert!(desk.authenticate(&good).await.is_ok());
    site.status.store(503, Ordering::Relaxed);
    for _ in 0..12 {
        clock.advance(300);
        assert!(desk.authenticate(&good).await.is_ok());
        assert!(desk.authenticate(&good).await.is_ok());
    }
    assert_eq!(desk.key_fetches()["idp"], 13, "one attempt at a time, none in between");
    clock.advance(1);
    assert_eq!(desk.authenticate(&good).await, Err(Rejection::KeysUnavailable));
    // Five seconds at the least lie between attempts without any key.
    clock.advance(30);
    assert_eq!(desk.authenticate(&good).await, Err(Rejection::KeysUnavailable));
    let asked = desk.key_fetches()["idp"];
    for _ in 0..20 {
        assert_eq!(desk.authenticate(&good).await, Err(Rejection::KeysUnavailable));
    }
    assert_eq!(desk.key_fetches()["idp"], asked);
    site.status.store(200, Ordering::Relaxed);
    clock.advance(5);
    assert!(desk.authenticate(&good).await.is_ok());
}

/// A clock that is set back makes no key young again.
#[tokio::test]
async fn a_clock_that_is_set_back_ages_the_keys() {
    let (site, signer, clock, desk) = desk().await;
    clock.advance(400);
    assert!(desk.authenticate(&token(&signer, "k1", &site.url)).await.is_ok());
    clock.set_back(100);
    assert!(desk.authenticate(&token(&signer, "k1", &site.url)).await.is_ok());
    assert_eq!(site.jwks_requests(), 2);
}

/// A caller that goes away does not take the fetch with it.
#[tokio::test]
async fn a_fetch_outlives_the_caller_that_started_it() {
    let (site, signer, _, desk) = desk().await;
    site.delay_millis.store(200, Ordering::Relaxed);
    let good = token(&signer, "k1", &site.url);
    let gone = tokio::time::timeout(Duration::from_millis(20), desk.authenticate(&good)).await;
    assert!(gone.is_err());
    assert!(desk.authenticate(&good).await.is_ok());
    assert_eq!(site.jwks_requests(), 1);
}

#[derive(Debug)]
struct Broken;

#[async_trait]
impl KeySource for Broken {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        panic!("a source that panics")
    }
}

/// A source that panics leaves no lock behind.
#[tokio::test]
async fn a_source_that_panics_is_an_outage() {
    let signer = Signer::es256();
    let url = "https://issuer.example";
    let issuers: Vec<(_, Arc<dyn KeySource>)> = vec![(rules(url), Arc::new(Broken))];
    let clock = FakeClock::new();
    let desk = Authenticator::with_sources(issuers, clock.clone()).unwrap();
    for _ in 0..2 {
        let answer = desk.authenticate(&token(&signer, "k1", url)).await;
        assert_eq!(answer, Err(Rejection::KeysUnavailable));
        clock.advance(5);
    }
    assert_eq!(desk.key_fetches()["idp"], 2);
}

/// A source that fails after a while, by its clock; or never answers.
#[derive(Debug)]
struct Slow {
    clock: Arc<FakeClock>,
    answers: bool,
}

#[async_trait]
impl KeySource for Slow {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        if !self.answers {
            return std::future::pending().await;
        }
        // Those who wait have come by then.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.clock.advance(10);
        Err(KeysError::Timeout)
    }
}

fn slow_desk(answers: bool) -> (Arc<FakeClock>, String, Authenticator) {
    let (clock, url) = (FakeClock::new(), "https://issuer.example");
    let source = Slow { clock: clock.clone(), answers };
    let issuers: Vec<(_, Arc<dyn KeySource>)> = vec![(rules(url), Arc::new(source))];
    let desk = Authenticator::with_sources(issuers, clock.clone()).unwrap();
    (clock, token(&Signer::es256(), "k1", url), desk)
}

/// Line 44: otherwise the last of a hundred waits a hundred times as long as the first.
#[tokio::test]
async fn whoever_waits_for_an_issuer_that_fails_waits_for_one_fetch() {
    let (clock, token, desk) = slow_desk(true);
    let all = (0..100).map(|_| desk.authenticate(&token));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, Err(Rejection::KeysUnavailable));
    }
    assert_eq!(desk.key_fetches()["idp"], 1);
    // The pause before the next one begins when the last one has failed.
    clock.advance(4);
    assert_eq!(desk.authenticate(&token).await, Err(Rejection::KeysUnavailable));
    assert_eq!(desk.key_fetches()["idp"], 1);
    clock.advance(1);
    assert_eq!(desk.authenticate(&token).await, Err(Rejection::KeysUnavailable));
    assert_eq!(desk.key_fetches()["idp"], 2);
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_holds_up_so_many_and_no_more() {
    let (_, token, desk) = slow_desk(false);
    let mut waiting: Vec<_> =
        (0..super::WAITING_MAX).map(|_| Box::pin(desk.authenticate(&token))).collect();
    for one in &mut waiting {
        assert!(one.now_or_never().is_none(), "it waits");
    }
    assert_eq!(desk.authenticate(&token).await, Err(Rejection::KeysUnavailable));
    // One that goes away makes room.
    drop(waiting.pop());
    assert!(Box::pin(desk.authenticate(&token)).now_or_never().is_none(), "it waits");
}

async fn fetched(site: &Handle) -> Result<KeySet, KeysError> {
    let mut keys = HttpKeys::new(&rules(&site.url)).unwrap();
    keys.timeout = Duration::from_millis(700);
    keys.fetch().await
}

/// Line 40.
#[tokio::test]
async fn answers_that_are_huge_slow_or_endless_are_cut_off() {
    let site = Site::open().await;
    site.publish(&[Signer::es256().jwk("k1")]);
    assert_eq!(fetched(&site).await.unwrap().len(), 1);

    site.answer(|| Bytes::from(vec![b' '; 512 * 1024 + 1]).into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::TooLarge)));
    site.answer(|| never_ending(Duration::ZERO, 64 * 1024).into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::TooLarge)));
    site.answer(|| never_ending(Duration::from_millis(50), 1).into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::Timeout)));
    site.answer(|| ([(header::CONTENT_ENCODING, "gzip")], "x").into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::Compressed)));
    site.answer(|| "not a key set".into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::Jwks(_))));
    site.answer(|| StatusCode::NO_CONTENT.into_response());
    assert!(matches!(fetched(&site).await, Err(KeysError::Status(204))));
    site.delay_millis.store(2_000, Ordering::Relaxed);
    assert!(matches!(fetched(&site).await, Err(KeysError::Timeout)));
}

fn redirect(status: StatusCode, to: &str) -> Response {
    (status, [(header::LOCATION, to)]).into_response()
}

/// Line 41: no redirect is followed, not even to where the good keys are.
#[tokio::test]
async fn redirects_are_not_followed() {
    let (site, other) = (Site::open().await, Site::open().await);
    other.publish(&[Signer::es256().jwk("k1")]);
    site.publish(&[Signer::es256().jwk("k1")]);
    let targets = [format!("{}/jwks", other.url), format!("{}/elsewhere", site.url)];
    for to in targets {
        for status in [StatusCode::FOUND, StatusCode::PERMANENT_REDIRECT] {
            let to = to.clone();
            site.answer(move || redirect(status, &to));
            assert!(matches!(fetched(&site).await, Err(KeysError::Redirect)));
        }
    }
    assert_eq!(other.jwks_requests(), 0);
}

/// Line 42.
#[tokio::test]
async fn a_discovery_document_is_for_the_issuer_and_points_at_its_origin() {
    let (site, other) = (Site::open().await, Site::open().await);
    site.publish(&[Signer::es256().jwk("k1")]);
    other.publish(&[Signer::es256().jwk("k1")]);
    let jwks = format!("{}/jwks", site.url);
    let port = site.url.rsplit_once(':').unwrap().1;
    let fault = async |document: String| {
        site.describe(document);
        match fetched(&site).await {
            Err(KeysError::Discovery(fault)) => fault,
            answer => panic!("{answer:?}"),
        }
    };
    for issuer in [format!("{}/", site.url), other.url.clone(), site.url.to_uppercase()] {
        let document = json!({"issuer": issuer, "jwks_uri": jwks}).to_string();
        assert_eq!(fault(document).await, DiscoveryFault::Issuer);
    }
    let document = json!({"jwks_uri": jwks}).to_string();
    assert_eq!(fault(document).await, DiscoveryFault::Issuer);
    for uri in [
        format!("{}/jwks", other.url),
        format!("http://localhost:{port}/jwks"),
        format!("https://127.0.0.1:{port}/jwks"),
        format!("http://127.0.0.1:{port}@evil.example/jwks"),
        format!("http://user@127.0.0.1:{port}/jwks"),
        "/jwks".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest".to_owned(),
    ] {
        let document = json!({"issuer": site.url, "jwks_uri": uri}).to_string();
        assert_eq!(fault(document).await, DiscoveryFault::JwksUri, "{uri}");
    }
    let twice = format!(r#"{{"issuer":"{0}","issuer":"{0}","jwks_uri":"{jwks}"}}"#, site.url);
    assert_eq!(fault(twice).await, DiscoveryFault::Malformed);
    assert_eq!(fault("[]".into()).await, DiscoveryFault::Malformed);
    assert_eq!(other.jwks_requests(), 0);

    // The twin, with the members that real documents have besides.
    site.describe(
        json!({"issuer": site.url, "jwks_uri": jwks, "claims_supported": ["sub"], "x": 1.5})
            .to_string(),
    );
    assert_eq!(fetched(&site).await.unwrap().len(), 1);
}

/// Line 42: keys on another origin work where the configuration names them.
#[tokio::test]
async fn a_configured_jwks_url_may_be_elsewhere() {
    let (site, other) = (Site::open().await, Site::open().await);
    let signer = Signer::es256();
    other.publish(&[signer.jwk("k1")]);
    let mut rules = rules(&site.url);
    rules.jwks_url = Some(format!("{}/jwks", other.url));
    let desk = Authenticator::new(vec![rules], FakeClock::new()).unwrap();
    assert!(desk.authenticate(&token(&signer, "k1", &site.url)).await.is_ok());
    assert_eq!((site.requests(), other.jwks_requests()), (0, 1));
}

/// Line 43: an issuer that is not configured is never asked, whatever the token says.
#[tokio::test]
async fn an_issuer_named_by_a_token_is_never_asked() {
    let (site, signer, _, desk) = desk().await;
    let stranger = Site::open().await;
    stranger.publish(&[signer.jwk("k1")]);
    let answer = desk.authenticate(&token(&signer, "k1", &stranger.url)).await;
    assert_eq!(answer, Err(Rejection::UnknownIssuer));
    assert_eq!((stranger.requests(), site.requests()), (0, 0));
}

/// Line 43: an error tells what went wrong and nothing of what the issuer answered.
#[tokio::test]
async fn an_error_does_not_echo_the_answer() {
    let site = Site::open().await;
    site.answer(|| (StatusCode::FORBIDDEN, "CANARY-7f3a").into_response());
    let error = fetched(&site).await.unwrap_err();
    assert!(matches!(error, KeysError::Status(403)));
    site.answer(|| Body::from(r#"{"keys":"CANARY-7f3a"}"#).into_response());
    let other = fetched(&site).await.unwrap_err();
    assert!(!format!("{error:?} {error} {other:?} {other}").contains("CANARY"));
}

/// TLS is verified: a certificate of an authority that we do not know is refused, one of the
/// configured authority is accepted, and not for another name.
#[tokio::test]
async fn a_certificate_must_be_of_a_trusted_authority_and_for_the_name() {
    let (authority, stranger) = (Tls::authority(), Tls::authority());
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let signer = Signer::es256();
    for (name, signed_by, trusted) in [
        ("localhost", &authority, true),
        ("localhost", &stranger, false),
        ("other.example", &authority, false),
    ] {
        let site = Site::open_tls(signed_by.server(name));
        site.publish(&[signer.jwk("k1")]);
        let mut rules = rules(&site.url);
        rules.ca_file = Some(ca_file.clone());
        let desk = Authenticator::new(vec![rules], FakeClock::new()).unwrap();
        let answer = desk.authenticate(&token(&signer, "k1", &site.url)).await;
        if trusted {
            assert!(answer.is_ok(), "{answer:?}");
            assert_eq!(site.jwks_requests(), 1);
        } else {
            assert_eq!(answer, Err(Rejection::KeysUnavailable), "{name}");
            assert_eq!(site.requests(), 0);
        }
    }
}

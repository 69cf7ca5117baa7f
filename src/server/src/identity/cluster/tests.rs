//! The attack corpus on tokens that a cluster is asked about, and on what it answers.
//!
//! Every desk first accepts a good token, so that no refusal below passes for another reason than
//! the one it names. The stand-in for the API server checks no signature: what it answers is what
//! is tested, in the shapes of Kubernetes 1.33.

mod answers;
mod config;
mod transport;

use std::{
    io::Write,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::identity::{
    Authenticator, IssuerConfig,
    tests::kit::{AUDIENCE, FakeClock, NOW, Signer, fixed},
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const HEADER: &str = r#"{"alg":"ES256","kid":"k1"}"#;
const ACCOUNT_UID: &str = "51fa6c1e-7d04-4c1b-9a57-0c6a1b7e11d2";
const POD_UID: &str = "7ce5a3c0-40c2-4f0e-8a54-3f1c6a1b7e11";
const NODE_UID: &str = "646e4ac2-11d8-4a0b-8a33-9d3b8a1c2f10";
const JTI: &str = "ea28ed49-2e11-4280-9ec5-bc3d1d84661a";

/// What the token of a pod says.
fn claims() -> Value {
    json!({
        "aud": [AUDIENCE], "exp": NOW + 3_600, "iat": NOW - 10, "iss": ISSUER, "jti": JTI,
        "kubernetes.io": {
            "namespace": "ci",
            "node": { "name": "n1", "uid": NODE_UID },
            "pod": { "name": "job-abc", "uid": POD_UID },
            "serviceaccount": { "name": "runner", "uid": ACCOUNT_UID },
        },
        "nbf": NOW - 10, "sub": "system:serviceaccount:ci:runner",
    })
}

/// What the cluster says of it.
fn answer() -> Value {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "creationTimestamp": null,
            "managedFields": [{
                "manager": "dayfly-server", "operation": "Update",
                "apiVersion": "authentication.k8s.io/v1", "time": "2026-09-21T14:13:20Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": { "f:spec": { "f:audiences": {}, "f:token": {} } },
            }],
        },
        "spec": { "token": "a token", "audiences": [AUDIENCE] },
        "status": {
            "authenticated": true,
            "user": {
                "username": "system:serviceaccount:ci:runner",
                "uid": ACCOUNT_UID,
                "groups": [
                    "system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated",
                ],
                "extra": {
                    "authentication.kubernetes.io/credential-id": [format!("JTI={JTI}")],
                    "authentication.kubernetes.io/node-name": ["n1"],
                    "authentication.kubernetes.io/node-uid": [NODE_UID],
                    "authentication.kubernetes.io/pod-name": ["job-abc"],
                    "authentication.kubernetes.io/pod-uid": [POD_UID],
                },
            },
            "audiences": [AUDIENCE],
        },
    })
}

type Answer = Box<dyn Fn() -> Response + Send>;

/// A stand-in for an API server, and what it was sent.
struct Site {
    answer: Mutex<Answer>,
    delay_millis: AtomicU64,
    asked: Mutex<Vec<(Method, String, HeaderMap, String)>>,
}

impl Site {
    /// One that listens, and its URL.
    async fn start() -> (Arc<Self>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let site = Arc::new(Self {
            answer: Mutex::new(Box::new(|| axum::Json(answer()).into_response())),
            delay_millis: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        let router = Router::new().fallback(answered).with_state(Arc::clone(&site));
        drop(dayfly_lease::spawn(async move { axum::serve(listener, router).await }));
        (site, url)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn answered(
    State(site): State<Arc<Site>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    site.asked.lock().unwrap().push((method, uri.to_string(), headers, body));
    let delay = site.delay_millis.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let answer = site.answer.lock().unwrap();
    answer()
}

/// A cluster that is asked, and us.
struct Desk {
    site: Arc<Site>,
    url: String,
    token_file: NamedTempFile,
    signer: Signer,
    clock: Arc<FakeClock>,
    authenticator: Authenticator,
}

fn reviewed(name: &str, url: &str, token_file: &NamedTempFile, audience: &str) -> ClusterConfig {
    ClusterConfig {
        name: name.to_owned(),
        api_url: url.to_owned(),
        ca_file: None,
        token_file: token_file.path().to_owned(),
        tokens: ClusterTokens::Reviewed {
            issuer: ISSUER.to_owned(),
            audiences: vec![audience.to_owned()],
            age_max: Duration::from_hours(24),
        },
        watch: PodWatch::Off,
        namespaces: Vec::new(),
    }
}

fn token_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "our.own.token").unwrap();
    file
}

impl Desk {
    async fn new() -> Self {
        let (site, url) = Site::start().await;
        let token_file = token_file();
        let clock = FakeClock::new();
        let config = reviewed("eu", &url, &token_file, AUDIENCE);
        let authenticator = Self::over(&clock, vec![config]).unwrap();
        let signer = Signer::es256();
        let desk = Self { site, url, token_file, signer, clock, authenticator };
        let good = desk.ask(&claims()).await.unwrap();
        assert_eq!(good.id(), "eu|system:serviceaccount:ci:runner");
        desk.site.asked.lock().unwrap().clear();
        desk
    }

    fn over(
        clock: &Arc<FakeClock>,
        clusters: Vec<ClusterConfig>,
    ) -> Result<Authenticator, SetupError> {
        Authenticator::with_sources(Vec::new(), clock.clone())?.with_clusters(clusters)
    }

    fn token(&self, claims: &Value) -> String {
        self.signer.token(HEADER, &claims.to_string())
    }

    async fn ask(&self, claims: &Value) -> Result<Principal, Rejection> {
        self.authenticator.authenticate(&self.token(claims)).await
    }

    fn answers(&self, answer: impl Fn() -> Response + Send + 'static) {
        *self.site.answer.lock().unwrap() = Box::new(answer);
    }

    /// Has the cluster say this.
    fn says(&self, answer: &Value) {
        self.says_text(answer.to_string());
    }

    fn says_text(&self, text: String) {
        self.answers(move || {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, text.clone()).into_response()
        });
    }
}

/// A value with another one somewhere in it.
fn with(mut value: Value, pointer: &str, other: impl Into<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[name.replace("~1", "/").as_str()] = other.into();
    value
}

/// A value without one that is somewhere in it.
fn without(mut value: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.remove(&name.replace("~1", "/")).unwrap();
    value
}

/// One policy serves both ways: what a token's own claims say and what a review says is the same.
#[tokio::test]
async fn a_reviewed_token_has_the_claims_of_a_verified_one() {
    let desk = Desk::new().await;
    let reviewed = desk.ask(&claims()).await.unwrap();
    let rules = IssuerConfig::of(Platform::Kubernetes, "eu", ISSUER, AUDIENCE);
    let source = fixed(&[desk.signer.jwk("k1")]);
    let keys = Authenticator::with_sources(vec![(rules, source)], desk.clock.clone()).unwrap();
    let verified = keys.authenticate(&desk.token(&claims())).await.unwrap();
    assert_eq!(reviewed, verified);
    assert_eq!(json!(reviewed.claims)["kubernetes.io.pod.uid"], POD_UID);
    assert_eq!(reviewed.token_id.as_deref(), Some(JTI));
    assert_eq!(reviewed.token_expires_at, Timestamp::from_seconds(NOW + 3_600));
}

#[tokio::test]
async fn the_cluster_is_sent_the_token_and_our_audiences() {
    let desk = Desk::new().await;
    desk.ask(&claims()).await.unwrap();
    let asked = desk.site.asked.lock().unwrap();
    let [(method, uri, headers, body)] = asked.as_slice() else { panic!("asked once") };
    assert_eq!((method, uri.as_str()), (&Method::POST, review::PATH));
    assert_eq!(headers["authorization"], "Bearer our.own.token");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["accept"], "application/json");
    let body: Value = serde_json::from_str(body).unwrap();
    let token = desk.token(&claims());
    // An ECDSA signature is another each time; what is signed is not.
    let sent = body["spec"]["token"].as_str().unwrap();
    assert_eq!(sent.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().0);
    let expected = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "token": sent, "audiences": [AUDIENCE] },
    });
    assert_eq!(body, expected);
}

/// No answer is kept: a token whose pod is gone is refused as soon as the cluster says so.
#[tokio::test]
async fn the_cluster_is_asked_each_time() {
    let desk = Desk::new().await;
    let token = desk.token(&claims());
    for _ in 0..2 {
        desk.authenticator.authenticate(&token).await.unwrap();
    }
    assert_eq!(desk.site.asked(), 2);
    desk.says(&with(answer(), "/status", json!({
        "user": {}, "error": "[invalid bearer token, service account token has been invalidated]",
    })));
    let gone = desk.authenticator.authenticate(&token).await;
    assert_eq!(gone, Err(Rejection::ReviewRefused));
}

/// Bound tokens are replaced all the time.
#[tokio::test]
async fn our_own_token_is_read_for_each_request() {
    let desk = Desk::new().await;
    std::fs::write(desk.token_file.path(), "the.next.token").unwrap();
    desk.ask(&claims()).await.unwrap();
    let authorization = desk.site.asked.lock().unwrap()[0].2["authorization"].clone();
    assert_eq!(authorization, "Bearer the.next.token");
    for bad in ["", "\n", "two words", "a\nb", "schl\u{fc}ssel"] {
        std::fs::write(desk.token_file.path(), bad).unwrap();
        assert_eq!(desk.ask(&claims()).await, Err(Rejection::ClusterUnavailable), "{bad:?}");
    }
    std::fs::remove_file(desk.token_file.path()).unwrap();
    assert_eq!(desk.ask(&claims()).await, Err(Rejection::ClusterUnavailable));
    assert_eq!(desk.site.asked(), 1, "without a token of ours nothing is sent");
}

/// What is not for us, or cannot be a pod's token, is sent nowhere.
#[tokio::test]
async fn a_token_that_says_itself_that_it_is_not_good_is_sent_to_nobody() {
    let desk = Desk::new().await;
    let missing = |claim| Err(Rejection::ClaimMissing { claim });
    let malformed = |why| Err(Rejection::Malformed { why });
    let legacy = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ci:runner",
        "kubernetes.io/serviceaccount/namespace": "ci",
        "kubernetes.io/serviceaccount/secret.name": "runner-token-x7k2p",
        "kubernetes.io/serviceaccount/service-account.name": "runner",
        "kubernetes.io/serviceaccount/service-account.uid": ACCOUNT_UID,
    });
    let timeless = malformed("`aud` is not a string or a list of strings");
    for (words, claims, expected) in [
        ("for another", with(claims(), "/aud", json!(["x"])), Err(Rejection::WrongAudience)),
        ("for the server", with(claims(), "/aud", json!([ISSUER])), Err(Rejection::WrongAudience)),
        ("of another issuer", with(claims(), "/iss", "https://x"), Err(Rejection::UnknownIssuer)),
        (
            "another spelling",
            with(claims(), "/iss", format!("{ISSUER}/")),
            Err(Rejection::UnknownIssuer),
        ),
        ("without an end", without(claims(), "/exp"), malformed("`exp` is not a time")),
        ("without claims", without(claims(), "/kubernetes.io"), missing("kubernetes.io.namespace")),
        ("old", legacy.clone(), timeless.clone()),
        ("old, renamed", with(legacy, "/iss", ISSUER), timeless),
    ] {
        assert_eq!(desk.ask(&claims).await, expected, "{words}");
    }
    assert_eq!(desk.site.asked(), 0);
}

/// Many clusters have the `iss` that their installer gives them all.
#[tokio::test]
async fn clusters_of_one_issuer_are_told_apart_by_audience() {
    let desk = Desk::new().await;
    let (other, other_url) = Site::start().await;
    let eu = reviewed("eu", &desk.url, &desk.token_file, AUDIENCE);
    let us = reviewed("us", &other_url, &desk.token_file, "https://dayfly.example/us");
    let both = Desk::over(&desk.clock, vec![eu, us]).unwrap();
    *other.answer.lock().unwrap() = Box::new(|| {
        let audiences = json!(["https://dayfly.example/us"]);
        axum::Json(with(answer(), "/status/audiences", audiences)).into_response()
    });
    let token = desk.token(&with(claims(), "/aud", json!(["https://dayfly.example/us"])));
    let principal = both.authenticate(&token).await.unwrap();
    assert_eq!(principal.id(), "us|system:serviceaccount:ci:runner");
    assert_eq!((desk.site.asked(), other.asked()), (0, 1));
    let principal = both.authenticate(&desk.token(&claims())).await.unwrap();
    assert_eq!(principal.issuer, "eu");
    assert_eq!((desk.site.asked(), other.asked()), (1, 1));
}

#[tokio::test]
async fn times_are_held_against_our_own_clock_too() {
    let desk = Desk::new().await;
    for (words, claims, rejection) in [
        ("over", with(claims(), "/exp", NOW - 31), Rejection::Expired),
        ("to come", with(claims(), "/nbf", NOW + 31), Rejection::NotYetValid),
        ("from the future", with(claims(), "/iat", NOW + 31), Rejection::IssuedInFuture),
        ("for a year", with(claims(), "/exp", NOW + 31_536_000), Rejection::TooLongLived),
    ] {
        assert_eq!(desk.ask(&claims).await, Err(rejection), "{words}");
    }
}

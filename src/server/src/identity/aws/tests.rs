//! The attack corpus on signed requests, on what STS answers and on whom it names.
//!
//! Every desk first accepts a good request, so that no refusal below passes for another reason
//! than the one it names. Signatures are made up here: the stand-in for STS checks none. The
//! suites have a real signer and a server that does.

mod answers;
mod callers;
mod config;
mod fuzz;
mod requests;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{request::BODY, *};
use crate::identity::tests::kit::NOW;

const SERVER_ID: &str = "https://dayfly.example";
const ACCOUNT: &str = "123456789012";
const SIGNED: &str =
    "content-type;host;x-amz-date;x-amz-security-token;x-dayfly-nonce;x-dayfly-server-id";

/// What a session of the role `deploy` sends.
fn request() -> Value {
    json!({
        "url": "https://sts.eu-central-1.amazonaws.com/",
        "method": "POST",
        "headers": {
            "Authorization": authorization("20260921/eu-central-1/sts/aws4_request", SIGNED),
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Amz-Date": "20260921T141320Z",
            "X-Amz-Security-Token": "IQoJb3JpZ2luX2VjEXAMPLE//////////wE=",
            "X-Dayfly-Nonce": "n-1",
            "X-Dayfly-Server-Id": SERVER_ID,
        },
        "body": BODY,
    })
}

fn authorization(scope: &str, signed: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLEKEY000001/{scope}, SignedHeaders={signed}, \
         Signature={}",
        "0a".repeat(32)
    )
}

/// The same as it is sent.
fn bearer(text: &str) -> String {
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(text.as_bytes()))
}

/// What STS answers to it.
fn answer() -> Value {
    json!({ "GetCallerIdentityResponse": {
        "GetCallerIdentityResult": {
            "Account": ACCOUNT,
            "Arn": "arn:aws:sts::123456789012:assumed-role/deploy/build-7",
            "UserId": "AROAEXAMPLEROLE00001:build-7",
        },
        "ResponseMetadata": { "RequestId": "4f0e6e5c-7d04-4c1b-9a57-0c6a1b7e11d2" },
    } })
}

type Answer = Box<dyn Fn() -> Response + Send>;

/// A stand-in for STS, and what it was sent.
struct Site {
    answer: Mutex<Answer>,
    delay_millis: AtomicU64,
    asked: Mutex<Vec<(Method, String, HeaderMap, String)>>,
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

/// One source of identities, and the stand-in that it asks.
struct Desk {
    site: Arc<Site>,
    identities: AwsIdentities,
}

impl Desk {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut AwsIdentityConfig)) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let site = Arc::new(Site {
            answer: Mutex::new(Box::new(|| axum::Json(answer()).into_response())),
            delay_millis: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        let router = Router::new().fallback(answered).with_state(Arc::clone(&site));
        drop(dayfly_lease::spawn(async move { axum::serve(listener, router).await }));
        let mut config =
            AwsIdentityConfig::new("aws", SERVER_ID, &[ACCOUNT], &["eu-central-1", "aws-global"]);
        config.endpoint_url = Some(url);
        let good = Self::over(&site, config.clone());
        assert_eq!(
            good.ask(&request()).await.unwrap().subject,
            "arn:aws:sts::123456789012:assumed-role/deploy#AROAEXAMPLEROLE00001"
        );
        site.asked.lock().unwrap().clear();
        change(&mut config);
        Self::over(&site, config)
    }

    fn over(site: &Arc<Site>, config: AwsIdentityConfig) -> Self {
        let identities = AwsIdentities::new(vec![config], BTreeSet::new()).unwrap();
        Self { site: Arc::clone(site), identities }
    }

    async fn ask(&self, request: &Value) -> Result<Principal, Rejection> {
        self.ask_text(&request.to_string()).await
    }

    async fn ask_text(&self, text: &str) -> Result<Principal, Rejection> {
        self.ask_at(text, NOW).await
    }

    async fn ask_at(&self, text: &str, seconds: i64) -> Result<Principal, Rejection> {
        let now = Timestamp::from_seconds(seconds);
        self.identities.authenticate(&bearer(text), now).await
    }

    fn answers(&self, answer: impl Fn() -> Response + Send + 'static) {
        *self.site.answer.lock().unwrap() = Box::new(answer);
    }

    /// How often STS was asked since the desk was opened.
    fn asked(&self) -> usize {
        self.site.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_session_of_a_role_is_a_workload() {
    let desk = Desk::new().await;
    let principal = desk.ask(&request()).await.unwrap();
    assert_eq!(principal.kind, Kind::Workload);
    assert_eq!(
        principal.id(),
        "aws|arn:aws:sts::123456789012:assumed-role/deploy#AROAEXAMPLEROLE00001"
    );
    let claims = json!({
        "account": ACCOUNT,
        "arn": "arn:aws:sts::123456789012:assumed-role/deploy/build-7",
        "kind": "assumed-role",
        "partition": "aws",
        "role": "deploy",
        "session": "build-7",
        "unique_id": "AROAEXAMPLEROLE00001",
        "user_id": "AROAEXAMPLEROLE00001:build-7",
    });
    assert_eq!(json!(principal.claims), claims);
    assert!(principal.single_use);
    assert_eq!(principal.token_expires_at, Timestamp::from_seconds(NOW + 300));
}

#[tokio::test]
async fn sts_is_sent_what_was_signed_and_nothing_else() {
    let desk = Desk::new().await;
    desk.ask(&request()).await.unwrap();
    let asked = desk.site.asked.lock().unwrap();
    let [(method, uri, headers, body)] = asked.as_slice() else { panic!("asked once") };
    assert_eq!((method, uri.as_str(), body.as_str()), (&Method::POST, "/", BODY));
    let mut names: Vec<_> = headers.keys().map(reqwest::header::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-amz-date",
        "x-amz-security-token",
        "x-dayfly-nonce",
        "x-dayfly-server-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(headers["host"], "sts.eu-central-1.amazonaws.com", "as it was signed");
    assert_eq!(headers["accept"], "application/json");
    assert_eq!(headers["authorization"], request()["headers"]["Authorization"].as_str().unwrap());
}

/// However it is written down, it is the same request: each opens one task, together.
#[tokio::test]
async fn a_request_that_is_written_differently_is_the_same_to_the_replay_check() {
    let desk = Desk::new().await;
    let first = desk.ask(&request()).await.unwrap();
    let spaced = serde_json::to_string_pretty(&request()).unwrap().replace("X-Amz", "x-AMZ");
    let second = desk.ask_text(&spaced).await.unwrap();
    assert_eq!(first.replay_key(), second.replay_key());
    let mut other = request();
    let header = authorization("20260921/eu-central-1/sts/aws4_request", SIGNED);
    other["headers"]["Authorization"] = json!(header.replace("0a0a", "0b0b"));
    let other = desk.ask(&other).await.unwrap();
    assert_ne!(first.replay_key(), other.replay_key());
}

/// No answer is kept: what STS no longer confirms is over at once.
#[tokio::test]
async fn sts_is_asked_each_time() {
    let desk = Desk::new().await;
    desk.ask(&request()).await.unwrap();
    desk.ask(&request()).await.unwrap();
    assert_eq!(desk.asked(), 2);
    desk.answers(|| StatusCode::FORBIDDEN.into_response());
    assert_eq!(desk.ask(&request()).await, Err(Rejection::BadSignature));
}

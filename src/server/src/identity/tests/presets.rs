//! Each platform's sample token through the whole verification, and everything that one can
//! do to it.
//!
//! The samples are in `testdata/presets`, signed here with a key of the test's.

mod attacks;
mod settings;

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::kit::{FakeClock, Signer, fixed};
use crate::identity::{
    Authenticator, ClaimValue, Form, Freshness, IssuerConfig, Platform, Principal, Rejection,
};

/// What a platform says of a job; signed at the second at which every test begins.
fn sample(platform: Platform) -> Value {
    let name = platform.preset().name;
    let file = format!("src/identity/testdata/presets/{name}.json");
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The issuer and the audience of the sample, under the preset's name.
fn rules(platform: Platform) -> IssuerConfig {
    let sample = sample(platform);
    let issuer = sample["iss"].as_str().unwrap();
    let audience = sample["aud"].as_str().or_else(|| sample["aud"][0].as_str()).unwrap();
    IssuerConfig::of(platform, platform.preset().name, issuer, audience)
}

/// One platform's issuer, and us.
struct Desk {
    authenticator: Authenticator,
    signer: Signer,
    header: Value,
}

impl Desk {
    async fn of(platform: Platform) -> Self {
        Self::with_rules(platform, rules(platform)).await
    }

    async fn with_rules(platform: Platform, rules: IssuerConfig) -> Self {
        assert_eq!(rules.faults(), Vec::<String>::new(), "{platform:?}");
        let signer = Signer::rsa();
        let issuers = vec![(rules, fixed(&[signer.jwk("k1")]))];
        let authenticator = Authenticator::with_sources(issuers, FakeClock::new()).unwrap();
        let mut header = json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" });
        if platform.preset().sends_x5t {
            header["x5t"] = json!("eBZ_cn3sXYAd0ch4THBKHIgOwOE");
        }
        let desk = Self { authenticator, signer, header };
        desk.ask(&sample(platform)).await.unwrap();
        desk
    }

    async fn ask(&self, claims: &Value) -> Result<Principal, Rejection> {
        let token = self.signer.token(&self.header.to_string(), &claims.to_string());
        self.authenticator.authenticate(&token).await
    }
}

/// The object in which the claim at a dotted path stands or would stand, and its name there.
fn place<'a>(
    claims: &'a mut Map<String, Value>,
    path: &str,
) -> (&'a mut Map<String, Value>, String) {
    let outer = claims.iter().find_map(|(name, value)| {
        let inner = path.strip_prefix(name.as_str())?.strip_prefix('.')?;
        value.is_object().then(|| (name.clone(), inner.to_owned()))
    });
    match outer {
        None => (claims, path.to_owned()),
        Some((name, inner)) => {
            let object = claims.get_mut(&name).and_then(Value::as_object_mut).unwrap();
            place(object, &inner)
        }
    }
}

/// The sample with another value at a path.
fn with(platform: Platform, path: &str, value: impl Into<Value>) -> Value {
    let mut claims = sample(platform);
    let (object, name) = place(claims.as_object_mut().unwrap(), path);
    object.insert(name, value.into());
    claims
}

/// The sample without what is at a path.
fn without(platform: Platform, path: &str) -> Value {
    let mut claims = sample(platform);
    let (object, name) = place(claims.as_object_mut().unwrap(), path);
    object.remove(&name).unwrap();
    claims
}

fn text(value: &str) -> ClaimValue {
    ClaimValue::Text(value.to_owned())
}

#[tokio::test]
async fn each_platforms_sample_is_accepted_with_what_is_known_of_it() {
    for platform in Platform::ALL {
        let preset = platform.preset();
        let desk = Desk::of(platform).await;
        let principal = desk.ask(&sample(platform)).await.unwrap();
        assert_eq!(principal.issuer, preset.name);
        let fresh = matches!(preset.freshness, Freshness::PerRequest | Freshness::PerSecond);
        assert_eq!(principal.single_use, fresh, "{platform:?}");
        let of_one_job = [Freshness::PerJob, Freshness::PerPhase].contains(&preset.freshness);
        assert_eq!(principal.first_key_binds, of_one_job, "{platform:?}");
        for claim in preset.claims.iter().filter(|claim| claim.required) {
            assert!(principal.claims.contains_key(claim.name), "{platform:?} {}", claim.name);
        }
        for id in preset.ids {
            let known = preset.claims.iter().any(|claim| claim.name == *id);
            assert!(known, "{platform:?}: the form of {id} is not said");
        }
    }
}

/// Ids, flags and lists as rules compare them, however the platform writes them.
#[tokio::test]
async fn claims_reach_rules_as_text_and_lists() {
    let cases = [
        (Platform::Github, "repository_id", text("456789")),
        (Platform::Github, "ref_protected", text("true")),
        (Platform::Gitlab, "job_id", text("302")),
        (Platform::Gitlab, "runner_id", text("1")),
        (Platform::Gitlab, "environment_protected", text("true")),
        (Platform::Buildkite, "build_number", text("1")),
        (Platform::Circleci, "oidc.circleci.com/ssh-rerun", text("false")),
        (Platform::Jenkins, "build_number", text("12")),
        (Platform::Google, "email_verified", text("true")),
        (Platform::Google, "google.compute_engine.project_number", text("65")),
        (Platform::Aws, "https://sts.amazonaws.com/.aws_account", text("011122223333")),
        (Platform::Kubernetes, "kubernetes.io.namespace", text("ci")),
    ];
    for (platform, claim, value) in cases {
        let principal = Desk::of(platform).await.ask(&sample(platform)).await.unwrap();
        assert_eq!(principal.claims.get(claim), Some(&value), "{platform:?} {claim}");
    }
    let circleci = Desk::of(Platform::Circleci).await;
    let principal = circleci.ask(&sample(Platform::Circleci)).await.unwrap();
    let contexts = ClaimValue::List(vec!["0184990a-4771-4d4a-9c48-000000000006".to_owned()]);
    assert_eq!(principal.claims.get("oidc.circleci.com/context-ids"), Some(&contexts));
    let buildkite = Desk::of(Platform::Buildkite).await;
    let principal = buildkite.ask(&sample(Platform::Buildkite)).await.unwrap();
    assert_eq!(principal.claims.get("build_tag"), None, "`null` says nothing");
    // A number and its digits are one id.
    let github = Desk::of(Platform::Github).await;
    let number = with(Platform::Github, "repository_id", 456_789);
    let principal = github.ask(&number).await.unwrap();
    assert_eq!(principal.claims.get("repository_id"), Some(&text("456789")));
}

/// What a webhook will be compared with.
#[tokio::test]
async fn a_token_names_its_job_by_claims_that_no_other_job_has() {
    let uuid = |n: u8| format!("0184990a-4771-4d4a-9c48-{n:012}");
    let steps = format!("pipelineUuid=%7B{}%7D&stepUuid=%7B{}%7D", uuid(3), uuid(4));
    let cases = [
        (Platform::Aws, None),
        (Platform::Azure, None),
        (Platform::AzureDevops, Some(format!("org_id={}&prj_id={}&run_id=77", uuid(1), uuid(2)))),
        (Platform::Bitbucket, Some(steps)),
        (Platform::Buildkite, Some(format!("job_id={}", uuid(1)))),
        (Platform::Circleci, None),
        (Platform::Github, Some("check_run_id=49000000123".to_owned())),
        (Platform::Gitlab, Some("job_project_id=20&job_id=302".to_owned())),
        (
            Platform::Google,
            Some("google.compute_engine.instance_id=8100000000000000001".to_owned()),
        ),
        (
            Platform::HcpTerraform,
            Some("terraform_run_id=run-1&terraform_run_phase=apply".to_owned()),
        ),
        (
            Platform::Jenkins,
            Some("sub=https%3A%2F%2Fjenkins.example%2Fjob%2Fapp%2F&build_number=12".to_owned()),
        ),
        (Platform::Kubernetes, Some(format!("kubernetes.io.pod.uid={}", uuid(2)))),
    ];
    assert_eq!(cases.len(), Platform::ALL.len());
    for (platform, key) in cases {
        let principal = Desk::of(platform).await.ask(&sample(platform)).await.unwrap();
        assert_eq!(platform.preset().job_key(&principal.claims), key, "{platform:?}");
    }
    // A GitHub that does not say which job it is.
    let desk = Desk::of(Platform::Github).await;
    let run = desk.ask(&without(Platform::Github, "check_run_id")).await.unwrap();
    let key = Platform::Github.preset().job_key(&run.claims);
    assert_eq!(key.unwrap(), "repository_id=456789&run_id=17000000001&run_attempt=1");
    // A value cannot pass for the border between two.
    let feigned = BTreeMap::from([
        ("sub".to_owned(), text("a&build_number=1")),
        ("build_number".to_owned(), text("2")),
    ]);
    let key = Platform::Jenkins.preset().job_key(&feigned);
    assert_eq!(key.unwrap(), "sub=a%26build_number%3D1&build_number=2");
}

/// The reader of all tokens refuses these two itself, before any preset is asked.
const READ_BEFORE: [&str; 2] = ["sub", "jti"];

#[tokio::test]
async fn a_claim_that_every_token_has_is_missed() {
    for platform in Platform::ALL {
        let desk = Desk::of(platform).await;
        for claim in platform.preset().claims.iter().filter(|claim| claim.required) {
            let claim = claim.name;
            let missing = Err(Rejection::ClaimMissing { claim });
            if claim != "sub" {
                let answer = desk.ask(&without(platform, claim)).await;
                assert_eq!(answer, missing, "{platform:?} {claim}");
            }
            let nothings = [json!(""), json!(null), json!({})];
            for nothing in nothings.iter().filter(|_| !READ_BEFORE.contains(&claim)) {
                let answer = desk.ask(&with(platform, claim, nothing.clone())).await;
                assert_eq!(answer, missing, "{platform:?} {claim} {nothing}");
            }
        }
    }
}

/// What must not pass for a value of this form.
fn wrong(form: Form) -> Vec<Value> {
    match form {
        Form::Flag => vec![
            json!(1),
            json!("True"),
            json!("TRUE"),
            json!("yes"),
            json!("1"),
            json!(" true"),
            json!(["true"]),
            json!({ "x": "true" }),
        ],
        Form::List => vec![json!("a"), json!(1), json!(true), json!({ "x": "a" })],
        Form::Number => vec![
            json!(true),
            json!(-1),
            json!("-1"),
            json!("+1"),
            json!("007"),
            json!("1e3"),
            json!(" 7"),
            json!("7\u{0}"),
            json!("0x7"),
            json!("\u{0667}"),
            json!("7".repeat(21)),
            json!(["7"]),
            json!({ "x": "7" }),
        ],
        Form::Text => {
            vec![json!(["a"]), json!([]), json!({ "x": "a" }), json!([{ "x": "a" }])]
        }
    }
}

#[tokio::test]
async fn a_claim_of_another_form_is_a_refusal_and_never_taken_for_absent() {
    for platform in Platform::ALL {
        let desk = Desk::of(platform).await;
        let claims = platform.preset().claims.iter();
        for claim in claims.filter(|claim| !READ_BEFORE.contains(&claim.name)) {
            let malformed = Err(Rejection::ClaimMalformed { claim: claim.name });
            for value in wrong(claim.form) {
                let answer = desk.ask(&with(platform, claim.name, value.clone())).await;
                assert_eq!(answer, malformed, "{platform:?} {} {value}", claim.name);
            }
        }
    }
}

#[tokio::test]
async fn a_token_for_nobody_or_for_somebody_else_is_refused() {
    for platform in Platform::ALL {
        let desk = Desk::of(platform).await;
        let answer = desk.ask(&without(platform, "aud")).await;
        assert!(matches!(answer, Err(Rejection::Malformed { .. })), "{platform:?}");
        let other = with(platform, "aud", "https://elsewhere.example");
        assert_eq!(desk.ask(&other).await, Err(Rejection::WrongAudience), "{platform:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_only_begins_or_ends_like_ours_is_unknown() {
    for platform in Platform::ALL {
        let desk = Desk::of(platform).await;
        let iss = rules(platform).issuer;
        let host = iss.strip_prefix("https://").unwrap();
        for feigned in [
            format!("{iss}.evil.example"),
            format!("{iss}/"),
            format!("https://evil.example/{host}"),
            format!("https://evil.example@{host}"),
            format!("http://{host}"),
            iss.to_uppercase(),
        ] {
            let answer = desk.ask(&with(platform, "iss", feigned.clone())).await;
            assert_eq!(answer, Err(Rejection::UnknownIssuer), "{feigned}");
        }
    }
}

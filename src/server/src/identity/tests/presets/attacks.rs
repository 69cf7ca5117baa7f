//! The traps of the platforms, one by one, and what is left for rules to tell apart.

use std::path::Path;

use dayfly_backend_sdk::Timestamp;
use serde_json::{Value, json};

use super::{super::kit::NOW, Desk, rules, sample, with, without};
use crate::{
    identity::{Platform, Principal, Rejection},
    policy::{Ask, Circumstances, Policies, RoleFacts},
};

/// The rule of an example file that decides whether `principal` gets the role
/// `orders-migrate`, the id of the rule that permits or denies it.
fn decided_by(file: &str, principal: &Principal) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/policies").join(file);
    let roles = ["orders-migrate", "orders-read", "build-cache"].map(|name| RoleFacts {
        name: name.to_owned(),
        backend: "orders".to_owned(),
        owner: "a-team".to_owned(),
        labels: [].into(),
    });
    let files = [(file.to_owned(), std::fs::read_to_string(path).unwrap())];
    let policies = Policies::from_texts(&files, &roles).unwrap();
    let ask = Ask::Mint { role: &roles[0], purpose: "a test", ttl_seconds: 60, task: "tsk_1" };
    let now = Timestamp::from_seconds(NOW);
    let circumstances = Circumstances { now, ..Circumstances::default() };
    match policies.authorize(principal, &ask, &circumstances) {
        Ok(allowed) => allowed.decision().rules[0].id.clone(),
        Err(denial) => denial.denied_by().to_owned(),
    }
}

async fn accepted(platform: Platform, claims: &Value) -> Principal {
    Desk::of(platform).await.ask(claims).await.unwrap()
}

#[tokio::test]
async fn another_organisation_is_an_identity_that_no_rule_lets_in() {
    let github = Platform::Github;
    let own = accepted(github, &sample(github)).await;
    assert_eq!(decided_by("github.cedar", &own), "github/orders-migrate");
    let other = accepted(github, &with(github, "repository_owner_id", "999999")).await;
    assert_eq!(decided_by("github.cedar", &other), "default-deny");
    let gitlab = Platform::Gitlab;
    let own = accepted(gitlab, &sample(gitlab)).await;
    assert_eq!(decided_by("gitlab.cedar", &own), "gitlab/orders-migrate");
    let other = accepted(gitlab, &with(gitlab, "namespace_id", "720")).await;
    assert_eq!(decided_by("gitlab.cedar", &other), "default-deny");
}

/// The next owner of the name has the same names everywhere, the old subject too, and other
/// ids.
#[tokio::test]
async fn a_recycled_name_has_another_id_and_gets_nothing() {
    let github = Platform::Github;
    let mut claims = with(github, "repository_id", "777777");
    claims["repository_owner_id"] = json!("888888");
    let heir = accepted(github, &claims).await;
    assert_eq!(heir.subject, accepted(github, &sample(github)).await.subject);
    assert_eq!(decided_by("github.cedar", &heir), "default-deny");
    let gitlab = Platform::Gitlab;
    let mut claims = with(gitlab, "project_id", "21");
    claims["job_project_id"] = json!("21");
    let heir = accepted(gitlab, &claims).await;
    assert_eq!(decided_by("gitlab.cedar", &heir), "default-deny");
}

#[tokio::test]
async fn what_a_stranger_starts_at_github_is_refused_unless_it_is_allowed_by_name() {
    let github = Platform::Github;
    let desk = Desk::of(github).await;
    for (event, trap) in [
        ("pull_request_target", "pull-request-target"),
        ("workflow_run", "workflow-run"),
        ("discussion", "strangers-event"),
        ("discussion_comment", "strangers-event"),
        ("fork", "strangers-event"),
        ("issue_comment", "strangers-event"),
        ("issues", "strangers-event"),
        ("watch", "strangers-event"),
    ] {
        let foreign = with(github, "event_name", event);
        assert_eq!(desk.ask(&foreign).await, Err(Rejection::Trapped { trap }));
        let mut rules = rules(github);
        rules.allow_traps = vec![trap.to_owned()];
        let allowed = Desk::with_rules(github, rules).await.ask(&foreign).await.unwrap();
        assert_eq!(decided_by("github.cedar", &allowed), "github/no-foreign-triggers");
    }
    let mut rules = rules(github);
    rules.allow_traps = vec!["workflow-run".to_owned()];
    let other = Desk::with_rules(github, rules).await;
    let answer = other.ask(&with(github, "event_name", "pull_request_target")).await;
    assert_eq!(answer, Err(Rejection::Trapped { trap: "pull-request-target" }));
    // A token that does not say what started it.
    let answer = desk.ask(&without(github, "event_name")).await;
    assert_eq!(answer, Err(Rejection::ClaimMissing { claim: "event_name" }));
}

#[tokio::test]
async fn a_fork_merge_request_is_refused_unless_it_is_allowed_by_name() {
    let gitlab = Platform::Gitlab;
    let trapped = Err(Rejection::Trapped { trap: "fork-merge-request" });
    let desk = Desk::of(gitlab).await;
    let fork = with(gitlab, "project_id", "9001");
    assert_eq!(desk.ask(&fork).await, trapped);
    assert_eq!(desk.ask(&with(gitlab, "job_project_id", "9001")).await, trapped);
    assert_eq!(desk.ask(&without(gitlab, "job_project_id")).await, trapped);
    let mut rules = rules(gitlab);
    rules.allow_traps = vec!["fork-merge-request".to_owned()];
    let allowed = Desk::with_rules(gitlab, rules).await.ask(&fork).await.unwrap();
    assert_eq!(decided_by("gitlab.cedar", &allowed), "gitlab/no-forks");
    // Where the job runs is what a job hook names.
    let key = gitlab.preset().job_key(&allowed.claims);
    assert_eq!(key.unwrap(), "job_project_id=20&job_id=302");
}

#[tokio::test]
async fn another_tenant_of_entra_id_is_refused_though_it_shares_the_keys() {
    let azure = Platform::Azure;
    let desk = Desk::of(azure).await;
    let other = "0184990a-4771-4d4a-9c48-000000000009";
    let iss = with(azure, "iss", format!("https://sts.windows.net/{other}/"));
    assert_eq!(desk.ask(&iss).await, Err(Rejection::UnknownIssuer));
    let version_two = with(
        azure,
        "iss",
        "https://login.microsoftonline.com/0184990a-4771-4d4a-9c48-000000000001/v2.0",
    );
    assert_eq!(desk.ask(&version_two).await, Err(Rejection::UnknownIssuer));
    for tid in [other, "", "0184990a-4771-4d4a-9c48-00000000000"] {
        let answer = desk.ask(&with(azure, "tid", tid)).await;
        let refused = match tid {
            "" => Rejection::ClaimMissing { claim: "tid" },
            _ => Rejection::Trapped { trap: "other-tenant" },
        };
        assert_eq!(answer, Err(refused), "{tid}");
    }
    let person = desk.ask(&with(azure, "idtyp", "user")).await;
    assert_eq!(person, Err(Rejection::Trapped { trap: "user-token" }));
}

#[tokio::test]
async fn a_job_that_a_person_is_logged_in_to_is_refused() {
    let circleci = Platform::Circleci;
    let desk = Desk::of(circleci).await;
    for yes in [json!(true), json!("true")] {
        let answer = desk.ask(&with(circleci, "oidc.circleci.com/ssh-rerun", yes)).await;
        assert_eq!(answer, Err(Rejection::Trapped { trap: "ssh-rerun" }));
    }
}

#[tokio::test]
async fn an_address_that_google_has_not_verified_is_refused() {
    let google = Platform::Google;
    let desk = Desk::of(google).await;
    for no in [json!(false), json!("false")] {
        let answer = desk.ask(&with(google, "email_verified", no)).await;
        assert_eq!(answer, Err(Rejection::Trapped { trap: "email-unverified" }));
    }
}

/// The old tokens of service accounts, which never expired, have flat claims of other names.
#[tokio::test]
async fn a_legacy_token_of_a_service_account_is_refused() {
    let kubernetes = Platform::Kubernetes;
    let desk = Desk::of(kubernetes).await;
    let mut legacy = without(kubernetes, "kubernetes.io");
    legacy["kubernetes.io/serviceaccount/namespace"] = json!("ci");
    legacy["kubernetes.io/serviceaccount/service-account.uid"] = json!("51fa");
    let answer = desk.ask(&legacy).await;
    assert_eq!(answer, Err(Rejection::ClaimMissing { claim: "kubernetes.io.namespace" }));
}

/// `{"kubernetes.io.namespace":…}` beside the object would choose which of the two rules see.
#[tokio::test]
async fn a_flat_claim_cannot_stand_beside_the_nested_one() {
    let mut twice = sample(Platform::Kubernetes);
    twice["kubernetes.io.namespace"] = json!("kube-system");
    let answer = Desk::of(Platform::Kubernetes).await.ask(&twice).await;
    assert_eq!(answer, Err(Rejection::Malformed { why: "two claims have the same path" }));
}

/// Two accounts that differ in a zero are two.
#[tokio::test]
async fn an_aws_account_is_its_twelve_digits() {
    let claim = "https://sts.amazonaws.com/.aws_account";
    let short = accepted(Platform::Aws, &with(Platform::Aws, claim, "11122223333")).await;
    let own = accepted(Platform::Aws, &sample(Platform::Aws)).await;
    assert_ne!(short.claims.get(claim), own.claims.get(claim));
}

#[tokio::test]
async fn a_token_of_another_platform_with_our_key_is_not_one_of_ours() {
    let github = Desk::of(Platform::Github).await;
    for platform in Platform::ALL.into_iter().filter(|it| *it != Platform::Github) {
        let mut claims = sample(platform);
        assert_eq!(github.ask(&claims).await, Err(Rejection::UnknownIssuer), "{platform:?}");
        claims["iss"] = json!(rules(Platform::Github).issuer);
        claims["aud"] = json!(rules(Platform::Github).audience);
        let answer = github.ask(&claims).await;
        assert!(matches!(answer, Err(Rejection::ClaimMissing { .. })), "{platform:?}");
    }
}

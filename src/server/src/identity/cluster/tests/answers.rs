//! What an API server, or something in its place, says of a token.

use super::*;

const EXTRA: &str = "/status/user/extra/authentication.kubernetes.io~1";

fn refused(why: &'static str) -> Rejection {
    Rejection::AnswerRefused { why }
}

fn extra(name: &str, value: impl Into<Value>) -> Value {
    with(answer(), &format!("{EXTRA}{name}"), value)
}

fn without_extra(name: &str) -> Value {
    without(answer(), &format!("{EXTRA}{name}"))
}

/// An API server that does not know audiences leaves them out, and says yes to what is for
/// itself.
#[tokio::test]
async fn an_audience_that_is_not_repeated_is_no_answer() {
    let desk = Desk::new().await;
    let unsaid = refused("it repeats no audience");
    for (words, answer, rejection) in [
        ("none", without(answer(), "/status/audiences"), unsaid),
        ("null", with(answer(), "/status/audiences", Value::Null), unsaid),
        ("an empty list", with(answer(), "/status/audiences", json!([])), unsaid),
        ("another", with(answer(), "/status/audiences", json!([ISSUER])), Rejection::WrongAudience),
        (
            "another spelling",
            with(answer(), "/status/audiences", json!([format!("{AUDIENCE}/")])),
            Rejection::WrongAudience,
        ),
        (
            "in what was asked alone",
            with(answer(), "/status/audiences", json!(["x"])),
            Rejection::WrongAudience,
        ),
        ("as text", with(answer(), "/status/audiences", AUDIENCE), refused("it is not a review")),
    ] {
        desk.says(&answer);
        assert_eq!(desk.ask(&claims()).await, Err(rejection), "{words}");
    }
    // What else it is for is not for us to know.
    desk.says(&with(answer(), "/status/audiences", json!(["x", AUDIENCE])));
    let principal = desk.ask(&claims()).await.unwrap();
    assert_eq!(json!(principal.claims)["aud"], json!([AUDIENCE]));
}

#[tokio::test]
async fn only_yes_without_an_error_is_yes() {
    let desk = Desk::new().await;
    let (no, none) = (Rejection::ReviewRefused, refused("it is not a review"));
    for (words, answer, rejection) in [
        ("no", with(answer(), "/status/authenticated", false), no),
        ("nothing", without(answer(), "/status/authenticated"), no),
        ("yes with an error", with(answer(), "/status/error", "token lookup failed"), no),
        ("an error of another kind", with(answer(), "/status/error", json!({})), no),
        ("yes in words", with(answer(), "/status/authenticated", "true"), none),
        ("one", with(answer(), "/status/authenticated", 1), none),
        ("no status", without(answer(), "/status"), none),
        ("another kind", with(answer(), "/kind", "SubjectAccessReview"), none),
        ("another version", with(answer(), "/apiVersion", "authentication.k8s.io/v1beta1"), none),
        ("a list", json!([answer()]), none),
        ("nobody", without(answer(), "/status/user"), none),
    ] {
        desk.says(&answer);
        assert_eq!(desk.ask(&claims()).await, Err(rejection), "{words}");
    }
    desk.says(&with(answer(), "/status/error", ""));
    assert!(desk.ask(&claims()).await.is_ok(), "an empty error is none");
}

#[tokio::test]
async fn a_text_with_two_meanings_is_no_answer() {
    let desk = Desk::new().await;
    let good = answer().to_string();
    let twice =
        good.replace("\"authenticated\":true", "\"authenticated\":false,\"authenticated\":true");
    for text in [twice, format!("{good}{good}"), format!("{good}x"), String::new()] {
        assert_ne!(text, good);
        desk.says_text(text);
        assert_eq!(desk.ask(&claims()).await, Err(refused("it is not a review")));
    }
}

#[tokio::test]
async fn who_is_no_service_account_is_nobody() {
    let desk = Desk::new().await;
    for name in [
        "",
        "system:admin",
        "system:node:n1",
        "kubernetes-admin",
        "system:serviceaccount:ci",
        "system:serviceaccount:ci:",
        "system:serviceaccount::runner",
        "system:serviceaccount:ci:runner:x",
        "oidc:system:serviceaccount:ci:runner",
    ] {
        desk.says(&with(answer(), "/status/user/username", name));
        assert_eq!(desk.ask(&claims()).await, Err(Rejection::CallerRefused), "{name}");
    }
    desk.says(&without(answer(), "/status/user/uid"));
    let rejection = refused("the account has no uid");
    assert_eq!(desk.ask(&claims()).await, Err(rejection));
}

/// The answer must be about the token that was sent, and the pod of the one that of the other.
#[tokio::test]
async fn a_review_that_says_something_else_than_its_token_is_refused() {
    let desk = Desk::new().await;
    let differs = refused("it is not about the token that was sent");
    for (words, answer) in [
        ("another pod", extra("pod-uid", json!(["8df6b4d1-51d3-401f-9b65-402d7b2c8f22"]))),
        ("another pod's name", extra("pod-name", json!(["job-xyz"]))),
        ("no pod", without_extra("pod-uid")),
        ("no pod's name", without_extra("pod-name")),
        ("nothing of it", without(answer(), "/status/user/extra")),
        ("another token", extra("credential-id", json!(["JTI=another"]))),
        ("another account", with(answer(), "/status/user/uid", "another")),
        (
            "another account's name",
            with(answer(), "/status/user/username", "system:serviceaccount:ci:deployer"),
        ),
        (
            "another namespace",
            with(answer(), "/status/user/username", "system:serviceaccount:prod:runner"),
        ),
    ] {
        desk.says(&answer);
        assert_eq!(desk.ask(&claims()).await, Err(differs), "{words}");
    }
    let bare = without(claims(), "/kubernetes.io/pod");
    desk.says(&answer());
    assert_eq!(desk.ask(&bare).await, Err(differs), "a pod that the token does not name");
    let single = refused("something that it says of the token has not one value");
    for two in [json!([POD_UID, "x"]), json!([]), json!([""]), json!([7])] {
        desk.says(&extra("pod-uid", two));
        assert_eq!(desk.ask(&claims()).await, Err(single));
    }
}

/// What older clusters do not say yet is missing and not invented.
#[tokio::test]
async fn what_the_cluster_does_not_say_is_no_claim() {
    let desk = Desk::new().await;
    desk.says(&without(without_extra("node-name"), &format!("{EXTRA}node-uid")));
    let principal = desk.ask(&claims()).await.unwrap();
    assert!(!principal.claims.keys().any(|name| name.starts_with("kubernetes.io.node")));
    desk.says(&without_extra("credential-id"));
    assert!(!desk.ask(&claims()).await.unwrap().claims.contains_key("jti"));
    // Of `kubectl create token`: bound to nothing, but with an end.
    let unbound =
        without(without(answer(), &format!("{EXTRA}pod-uid")), &format!("{EXTRA}pod-name"));
    desk.says(&unbound);
    let principal = desk.ask(&without(claims(), "/kubernetes.io/pod")).await.unwrap();
    assert!(!principal.claims.keys().any(|name| name.starts_with("kubernetes.io.pod")));
}

//! Whom STS names.

use super::{super::sts::CallerIdentity, *};
use crate::identity::ClaimValue;

const ID: &str = "AROAEXAMPLEROLE00001";

fn caller(arn: &str, user_id: &str) -> Result<Caller, Rejection> {
    let identity = CallerIdentity {
        account: ACCOUNT.to_owned(),
        arn: arn.to_owned(),
        user_id: user_id.to_owned(),
    };
    Caller::of(&identity, "aws")
}

#[test]
fn each_kind_of_caller_has_its_subject() {
    for (arn, user_id, kind, subject) in [
        (
            "arn:aws:sts::123456789012:assumed-role/deploy/i-0123456789abcdef0",
            "AROAEXAMPLEROLE00001:i-0123456789abcdef0",
            AwsCallerKind::AssumedRole,
            "arn:aws:sts::123456789012:assumed-role/deploy#AROAEXAMPLEROLE00001",
        ),
        (
            "arn:aws:iam::123456789012:user/ops/alice",
            "AIDAEXAMPLEUSER00001",
            AwsCallerKind::User,
            "arn:aws:iam::123456789012:user/ops/alice#AIDAEXAMPLEUSER00001",
        ),
        (
            "arn:aws:sts::123456789012:federated-user/bob",
            "123456789012:bob",
            AwsCallerKind::FederatedUser,
            "arn:aws:sts::123456789012:federated-user/bob",
        ),
        (
            "arn:aws:iam::123456789012:root",
            "123456789012",
            AwsCallerKind::Root,
            "arn:aws:iam::123456789012:root",
        ),
    ] {
        let found = caller(arn, user_id).unwrap();
        assert_eq!((found.kind, found.subject.as_str()), (kind, subject));
        assert_eq!(found.claims["kind"], ClaimValue::Text(kind.as_str().to_owned()));
        assert_eq!(found.claims["arn"], ClaimValue::Text(arn.to_owned()));
    }
    let user = caller("arn:aws:iam::123456789012:user/ops/alice", "AIDAEXAMPLEUSER00001");
    assert_eq!(user.unwrap().claims["user"], ClaimValue::Text("alice".to_owned()));
}

/// A role that was deleted and made again has its name and another id, and so is another.
#[test]
fn a_role_of_the_same_name_is_another_principal() {
    let role = "arn:aws:sts::123456789012:assumed-role/deploy/x1";
    let before = caller(role, "AROAEXAMPLEROLE00001:x1").unwrap();
    let after = caller(role, "AROAEXAMPLEROLE00002:x1").unwrap();
    assert_ne!(before.subject, after.subject);
    let other = "arn:aws:sts::123456789012:assumed-role/deploy/x2";
    assert_eq!(caller(other, "AROAEXAMPLEROLE00001:x2").unwrap().subject, before.subject);
}

#[test]
fn what_does_not_tell_of_one_caller_is_refused() {
    let session = format!("{ID}:s1");
    let session = session.as_str();
    for (words, arn, user_id) in [
        ("another account", "arn:aws:sts::999999999999:assumed-role/r/s1", session),
        ("another partition", "arn:aws-cn:sts::123456789012:assumed-role/r/s1", session),
        ("another service", "arn:aws:iam::123456789012:assumed-role/r/s1", session),
        ("a region", "arn:aws:sts:eu-central-1:123456789012:assumed-role/r/s1", session),
        ("another session", "arn:aws:sts::123456789012:assumed-role/r/s2", session),
        ("no session", "arn:aws:sts::123456789012:assumed-role/r", session),
        ("a path in the role", "arn:aws:sts::123456789012:assumed-role/p/r/s1", session),
        ("an empty role", "arn:aws:sts::123456789012:assumed-role//s1", session),
        ("a separator in the role", "arn:aws:sts::123456789012:assumed-role/r#x/s1", session),
        ("no unique id", "arn:aws:sts::123456789012:assumed-role/r/s1", ":s1"),
        ("a short unique id", "arn:aws:sts::123456789012:assumed-role/r/s1", "AROA:s1"),
        ("a session for a user", "arn:aws:iam::123456789012:user/alice", session),
        ("a user without a name", "arn:aws:iam::123456789012:user/", ID),
        ("a user with a blank", "arn:aws:iam::123456789012:user/a b/alice", ID),
        ("another federated name", "arn:aws:sts::123456789012:federated-user/b", "123456789012:c"),
        ("root by another id", "arn:aws:iam::123456789012:root", ID),
        ("something new", "arn:aws:iam::123456789012:role/r", ID),
        ("no ARN", "123456789012", ID),
        ("nothing", "", ""),
    ] {
        let why = "its account, ARN and user id are not of one caller";
        assert_eq!(caller(arn, user_id), Err(Rejection::AnswerRefused { why }), "{words}");
    }
}

fn said(account: &str, arn: &str, user_id: &str) -> Value {
    json!({ "GetCallerIdentityResponse": { "GetCallerIdentityResult": {
        "Account": account, "Arn": arn, "UserId": user_id } } })
}

#[tokio::test]
async fn accounts_and_kinds_that_are_not_listed_are_refused() {
    let desk = Desk::new().await;
    let of = |account: &str| {
        said(
            account,
            &format!("arn:aws:sts::{account}:assumed-role/deploy/s1"),
            &format!("{ID}:s1"),
        )
    };
    for (words, answer, expected) in [
        ("another account", of("999999999999"), Rejection::AccountRefused),
        (
            "the account's root",
            said(ACCOUNT, "arn:aws:iam::123456789012:root", ACCOUNT),
            Rejection::CallerRefused,
        ),
        (
            "a federated user",
            said(ACCOUNT, "arn:aws:sts::123456789012:federated-user/b", "123456789012:b"),
            Rejection::CallerRefused,
        ),
    ] {
        desk.answers(move || axum::Json(answer.clone()).into_response());
        assert_eq!(desk.ask(&request()).await, Err(expected), "{words}");
    }
    let desk = Desk::with(|config| config.kinds = vec![AwsCallerKind::Root]).await;
    assert_eq!(desk.ask(&request()).await, Err(Rejection::CallerRefused), "a role");
    desk.answers(|| {
        axum::Json(said(ACCOUNT, "arn:aws:iam::123456789012:root", ACCOUNT)).into_response()
    });
    assert!(desk.ask(&request()).await.is_ok(), "root, where that is meant");
}

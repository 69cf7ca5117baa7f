//! `TokenReview`: what a cluster is asked about a token, and what its answer means.
//!
//! Invariant: a token is good only if the answer says so without an error and repeats an
//! audience of ours. A server that does not know audiences leaves them out, and then the token
//! may be for anybody.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::{
    ClaimValue, Rejection,
    claims::UnverifiedClaims,
    json::{self, Json, Limits},
    preparse::TOKEN_LEN_MAX,
};

pub(super) const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenReview";
/// The answer repeats the token, and says who else has written what in it.
pub(super) const ANSWER_LEN_MAX: usize = 128 * 1_024;
const LIMITS: Limits =
    Limits { depth: 16, members: 1_000, elements: 1_000, text_len: TOKEN_LEN_MAX };
const ACCOUNT: &str = "system:serviceaccount:";
/// What begins the names of what a review says beyond name and groups.
const EXTRA: &str = "authentication.kubernetes.io/";
/// What is there of it for a token that has it, and the claim of the token that says the same.
const NAMES: [(&str, &str); 4] = [
    ("node-name", "kubernetes.io.node.name"),
    ("node-uid", "kubernetes.io.node.uid"),
    ("pod-name", "kubernetes.io.pod.name"),
    ("pod-uid", "kubernetes.io.pod.uid"),
];
/// Those that decide for which pod a token is, so that token and review must not differ.
const POD: [&str; 2] = ["kubernetes.io.pod.name", "kubernetes.io.pod.uid"];

/// Who the cluster says that a token is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reviewed {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub(super) username: String,
    namespace: String,
    account: String,
    account_uid: String,
    /// Those that we asked for and the token is for.
    audiences: Vec<String>,
    /// By name, without what they all begin with.
    extra: BTreeMap<String, String>,
}

/// What is asked about `token`.
pub(super) fn request(token: &str, audiences: &[String]) -> String {
    let spec = json!({ "token": token, "audiences": audiences });
    json!({ "apiVersion": API_VERSION, "kind": KIND, "spec": spec }).to_string()
}

/// What an answer says of a token that is to be for one of `audiences`.
///
/// # Errors
/// The token is not good, or the answer is none.
pub(super) fn parse(bytes: &[u8], audiences: &[String]) -> Result<Reviewed, Rejection> {
    let none = refused("it is not a review");
    let mut answer = json::object(bytes, LIMITS).map_err(|_| none)?;
    let is = |name: &str, text: &str| answer.get(name).and_then(Json::text) == Some(text);
    if !is("apiVersion", API_VERSION) || !is("kind", KIND) {
        return Err(none);
    }
    let Some(Json::Object(status)) = answer.remove("status") else { return Err(none) };
    match status.get("authenticated") {
        Some(Json::Bool(true)) => {}
        None | Some(Json::Bool(false)) => return Err(Rejection::ReviewRefused),
        Some(
            Json::Null
            | Json::Integer(_)
            | Json::Inexact
            | Json::Text(_)
            | Json::List(_)
            | Json::Object(_),
        ) => return Err(none),
    }
    if status.get("error").is_some_and(|error| error.text() != Some("")) {
        return Err(Rejection::ReviewRefused);
    }
    let echoed = echoed(status.get("audiences"), audiences)?;
    let Some(Json::Object(user)) = status.get("user") else { return Err(none) };
    let username = user.get("username").and_then(Json::text).unwrap_or_default();
    let names = username.strip_prefix(ACCOUNT).and_then(|names| names.split_once(':'));
    let is_name = |name: &str| !name.is_empty() && !name.contains(':');
    let (namespace, account) = names
        .filter(|(namespace, account)| is_name(namespace) && is_name(account))
        .ok_or(Rejection::CallerRefused)?;
    let uid = user.get("uid").and_then(Json::text).filter(|uid| !uid.is_empty());
    Ok(Reviewed {
        username: username.to_owned(),
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        account_uid: uid.ok_or(refused("the account has no uid"))?.to_owned(),
        audiences: echoed,
        extra: extra(user.get("extra"))?,
    })
}

fn refused(why: &'static str) -> Rejection {
    Rejection::AnswerRefused { why }
}

/// Those of our audiences that the answer repeats.
fn echoed(said: Option<&Json>, ours: &[String]) -> Result<Vec<String>, Rejection> {
    let said = match said {
        None | Some(Json::Null) => return Err(refused("it repeats no audience")),
        Some(Json::List(said)) => said,
        Some(
            Json::Bool(_) | Json::Integer(_) | Json::Inexact | Json::Text(_) | Json::Object(_),
        ) => return Err(refused("it is not a review")),
    };
    if said.is_empty() {
        return Err(refused("it repeats no audience"));
    }
    let is_said = |audience: &&String| said.iter().any(|one| one.text() == Some(audience.as_str()));
    let echoed: Vec<String> = ours.iter().filter(is_said).cloned().collect();
    if echoed.is_empty() { Err(Rejection::WrongAudience) } else { Ok(echoed) }
}

/// What is said of the token and of what it is bound to, each of which has one value.
fn extra(said: Option<&Json>) -> Result<BTreeMap<String, String>, Rejection> {
    let said = match said {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(Json::Object(said)) => said,
        Some(Json::Bool(_) | Json::Integer(_) | Json::Inexact | Json::Text(_) | Json::List(_)) => {
            return Err(refused("it is not a review"));
        }
    };
    let ours = said.iter().filter_map(|(name, value)| Some((name.strip_prefix(EXTRA)?, value)));
    let single = |(name, value): (&str, &Json)| match value {
        Json::List(values) => match values.as_slice() {
            [Json::Text(one)] if !one.is_empty() => Ok((name.to_owned(), one.clone())),
            _ => Err(refused("something that it says of the token has not one value")),
        },
        Json::Null
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Inexact
        | Json::Text(_)
        | Json::Object(_) => Err(refused("it is not a review")),
    };
    ours.map(single).collect()
}

impl Reviewed {
    /// The claims, as a token of the cluster has them, so that a rule need not know in which way
    /// the token was found good. All but the times are the cluster's own words.
    ///
    /// # Errors
    /// The token itself says something else.
    pub(super) fn claims(
        self,
        token: &UnverifiedClaims,
    ) -> Result<BTreeMap<String, ClaimValue>, Rejection> {
        let differs = refused("it is not about the token that was sent");
        let says = |claim: &str| match token.all.get(claim) {
            None => Ok(None),
            Some(ClaimValue::Text(text)) => Ok(Some(text.as_str())),
            Some(ClaimValue::List(_)) => Err(differs),
        };
        let mut claims = BTreeMap::new();
        let mut claim = |name: &str, value: String| {
            claims.insert(name.to_owned(), ClaimValue::Text(value));
        };
        for (name, path) in NAMES {
            let said = self.extra.get(name);
            if POD.contains(&path) && says(path)? != said.map(String::as_str) {
                return Err(differs);
            }
            if let Some(said) = said {
                claim(path, said.clone());
            }
        }
        let id = self.extra.get("credential-id").map(|id| id.strip_prefix("JTI=").unwrap_or(id));
        if id.is_some() && id != token.token_id.as_deref() {
            return Err(differs);
        }
        if let Some(id) = id {
            claim("jti", id.to_owned());
        }
        let always = [
            ("kubernetes.io.namespace", self.namespace),
            ("kubernetes.io.serviceaccount.name", self.account),
            ("kubernetes.io.serviceaccount.uid", self.account_uid),
            ("sub", self.username),
        ];
        for (path, said) in always {
            if says(path)? != Some(said.as_str()) {
                return Err(differs);
            }
            claim(path, said);
        }
        claim("iss", token.issuer.clone());
        for time in ["exp", "iat", "nbf"] {
            if let Some(said) = says(time)? {
                claim(time, said.to_owned());
            }
        }
        claims.insert("aud".to_owned(), ClaimValue::List(self.audiences));
        Ok(claims)
    }
}

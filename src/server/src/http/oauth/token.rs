//! `POST /oauth2/token`: identity tokens in, a task's token out (RFC 8693).
//!
//! Invariant: with an actor, the actor's is the task and the subject is the person on whose behalf
//! it acts; it is what `POST /api/v1/tasks` does, by the same code, and no more can be had by it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, request::Parts},
    response::Response,
};
use dayfly_api as api;

use super::{
    super::{
        caller::Caller,
        gate::Heard,
        handover::{Handover, respond},
        problem::Fault,
        tasks::create::{Opened, opened, token_type},
    },
    ACCESS_TOKEN, Form, GRANT_TYPE, OauthFault, read_form, uncached,
};
use crate::broker::Broker;

/// What tokens that say who somebody is can be called. Which one it is, each says itself.
const IDENTITIES: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
    ACCESS_TOKEN,
];
/// How long a task may take whose client says nothing of that.
const TTL: Duration = Duration::from_mins(15);
const PURPOSE: &str = "token exchange";

/// Opens a task by token exchange (RFC 8693). With an `actor_token` the actor opens it on behalf of
/// the subject, a person; both must be permitted.
#[utoipa::path(
    post, path = "/oauth2/token", tag = "workload",
    request_body(
        content = String, content_type = "application/x-www-form-urlencoded",
        description = "`grant_type=urn:ietf:params:oauth:grant-type:token-exchange`, `subject_token`, `subject_token_type`, and with an actor `actor_token` and `actor_token_type`; `purpose` and `ttl_seconds` as in `POST /api/v1/tasks`"
    ),
    params(("DPoP" = Option<String>, Header, description = "a proof of a key (RFC 9449), to which the task's token is bound")),
    responses(
        (status = 200, body = api::OauthToken),
        (status = 400, body = api::OauthError),
        (status = 401, body = api::OauthError),
        (status = 413, body = api::OauthError),
        (status = 503, body = api::OauthError),
    ),
)]
pub(crate) async fn handler(
    State(broker): State<Arc<Broker>>,
    parts: Parts,
    heard: Result<Heard, Fault>,
) -> Result<Response, OauthFault> {
    let Heard { body, place: _place } = heard?;
    let own = broker.public_url.as_deref();
    let exchange = Exchange::read(read_form(&parts.headers, &body)?, own)?;
    let (token, person) = match exchange.actor {
        Some(actor) => (actor, Some(exchange.subject)),
        None => (exchange.subject, None),
    };
    let caller = Caller::of_identity(&parts, &broker, &token).await?;
    let ttl = exchange
        .ttl_seconds
        .unwrap_or_else(|| TTL.min(broker.limits.task_ttl_max).as_secs().cast_signed());
    let wanted = api::CreateTask {
        purpose: exchange.purpose,
        ttl_seconds: ttl,
        heartbeat_seconds: None,
        bind: None,
        roles: Vec::new(),
        on_behalf_of: person.map(api::PersonToken),
    };
    let Opened { token, task, guard, .. } = opened(&broker, caller, &wanted).await?;
    let act = api::Actor { sub: task.principal.clone() };
    let (sub, act) = match &task.on_behalf_of {
        Some(person) => (person.principal.clone(), Some(act)),
        None => (act.sub, None),
    };
    let body = api::OauthToken {
        access_token: token.expose().to_owned(),
        issued_token_type: ACCESS_TOKEN.to_owned(),
        token_type: token_type(task.binding).to_owned(),
        expires_in: task.expires_at.since(task.opened_at).as_secs(),
        task: task.id.to_string(),
        sub,
        act,
    };
    let handover = Handover { deliveries: Vec::new(), task: Some(guard) };
    let mut response = respond(StatusCode::OK, &body, handover)?;
    uncached(&mut response);
    Ok(response)
}

/// What a form asks for.
struct Exchange {
    subject: String,
    /// Who acts for the subject, if not the subject itself.
    actor: Option<String>,
    purpose: String,
    ttl_seconds: Option<i64>,
}

impl Exchange {
    /// Reads a form of a broker that calls itself `own`. There is one kind of token to be had and
    /// one place where it counts: whoever asks for another would take ours for that.
    fn read(mut form: Form, own: Option<&str>) -> Result<Self, OauthFault> {
        if form.required("grant_type")? != GRANT_TYPE {
            let description = format!("the grant type must be {GRANT_TYPE}");
            return Err(OauthFault::new("unsupported_grant_type", description));
        }
        let subject = form.required("subject_token")?;
        check_type(&form.required("subject_token_type")?, "subject_token_type")?;
        let actor = form.take("actor_token");
        match (&actor, form.take("actor_token_type")) {
            (Some(_), Some(kind)) => check_type(&kind, "actor_token_type")?,
            (Some(_), None) => {
                return Err(OauthFault::invalid_request("`actor_token_type` is missing"));
            }
            (None, Some(_)) => {
                return Err(OauthFault::invalid_request("`actor_token` is missing"));
            }
            (None, None) => {}
        }
        if form.take("requested_token_type").is_some_and(|kind| kind != ACCESS_TOKEN) {
            let description = format!("`requested_token_type` must be {ACCESS_TOKEN}");
            return Err(OauthFault::invalid_request(description));
        }
        for name in ["audience", "resource"] {
            if form.take(name).is_some_and(|named| !is_own(&named, own)) {
                let description = format!("`{name}` must be this broker, or be left out");
                return Err(OauthFault::new("invalid_target", description));
            }
        }
        if form.has("scope") {
            let description = "there are no scopes: what the token may have, policy says";
            return Err(OauthFault::new("invalid_scope", description));
        }
        let ttl_seconds = form.take("ttl_seconds").map(|text| text.parse()).transpose();
        let not_a_number = |_| OauthFault::invalid_request("`ttl_seconds` must be a whole number");
        Ok(Self {
            subject,
            actor,
            purpose: form.take("purpose").unwrap_or_else(|| PURPOSE.to_owned()),
            ttl_seconds: ttl_seconds.map_err(not_a_number)?,
        })
    }
}

fn check_type(kind: &str, name: &str) -> Result<(), OauthFault> {
    if IDENTITIES.contains(&kind) {
        return Ok(());
    }
    Err(OauthFault::invalid_request(format!("`{name}` must be one of: {}", IDENTITIES.join(", "))))
}

/// Whether `named` is what we call ourselves, to the letter but for a slash at its end.
fn is_own(named: &str, own: Option<&str>) -> bool {
    let named = named.strip_suffix('/').unwrap_or(named);
    own.is_some_and(|own| own == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://dayfly.example.com/base";
    const JWT: &str = IDENTITIES[0];

    /// The parameters of a good exchange, with some of them changed or left out.
    fn with(changes: &[(&str, Option<&str>)]) -> String {
        let good = [
            ("grant_type", GRANT_TYPE),
            ("subject_token", "ada"),
            ("subject_token_type", JWT),
            ("actor_token", "job"),
            ("actor_token_type", IDENTITIES[1]),
        ];
        let mut pairs: Vec<(&str, &str)> = good
            .into_iter()
            .filter(|(name, _)| !changes.iter().any(|(it, _)| it == name))
            .collect();
        pairs.extend(changes.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    fn read(changes: &[(&str, Option<&str>)]) -> Result<Exchange, OauthFault> {
        Exchange::read(Form::of(&with(changes))?, Some(OWN))
    }

    #[test]
    fn the_actor_acts_and_the_subject_asks() {
        let exchange = read(&[]).ok().unwrap();
        assert_eq!((exchange.subject.as_str(), exchange.actor.as_deref()), ("ada", Some("job")));
        assert_eq!((exchange.purpose.as_str(), exchange.ttl_seconds), (PURPOSE, None));
        let alone = [("actor_token", None), ("actor_token_type", None)];
        assert_eq!(read(&alone).ok().unwrap().actor, None);
        let more = [
            ("purpose", Some("a nightly run")),
            ("ttl_seconds", Some("60")),
            ("audience", Some(OWN)),
            ("resource", Some("https://dayfly.example.com/base/")),
            ("requested_token_type", Some(ACCESS_TOKEN)),
            ("client_id", Some("an unknown parameter is left alone")),
        ];
        let exchange = read(&more).ok().unwrap();
        assert_eq!(exchange.purpose, "a nightly run");
        assert_eq!(exchange.ttl_seconds, Some(60));
    }

    #[test]
    fn what_is_not_meant_for_us_is_refused_by_its_name() {
        let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
        for (name, value, error) in [
            ("grant_type", None, "invalid_request"),
            ("grant_type", Some("client_credentials"), "unsupported_grant_type"),
            ("grant_type", Some(""), "invalid_request"),
            ("subject_token", None, "invalid_request"),
            ("subject_token", Some(""), "invalid_request"),
            ("subject_token_type", None, "invalid_request"),
            ("subject_token_type", Some("jwt"), "invalid_request"),
            ("subject_token_type", Some(refresh), "invalid_request"),
            ("actor_token", None, "invalid_request"),
            ("actor_token_type", None, "invalid_request"),
            ("actor_token_type", Some(refresh), "invalid_request"),
            ("requested_token_type", Some(JWT), "invalid_request"),
            ("audience", Some("https://other.example.com"), "invalid_target"),
            ("audience", Some("https://dayfly.example.com"), "invalid_target"),
            ("resource", Some("HTTPS://dayfly.example.com/base"), "invalid_target"),
            ("resource", Some("https://dayfly.example.com/base//"), "invalid_target"),
            ("scope", Some("openid"), "invalid_scope"),
            ("ttl_seconds", Some("1h"), "invalid_request"),
            ("ttl_seconds", Some("1.5"), "invalid_request"),
        ] {
            let fault = read(&[(name, value)]).err();
            let fault = fault.unwrap_or_else(|| panic!("{name}={value:?} was accepted"));
            assert_eq!((fault.error, fault.status), (error, StatusCode::BAD_REQUEST), "{name}");
            assert!(!fault.description.contains("ada"), "{fault:?}");
        }
        let twice = format!("{}&subject_token=eve", with(&[]));
        assert_eq!(Form::of(&twice).err().unwrap().error, "invalid_request");
    }

    #[test]
    fn who_does_not_know_its_url_is_nobodys_target() {
        let anywhere = Form::of(&with(&[])).ok().unwrap();
        assert!(Exchange::read(anywhere, None).is_ok());
        let there = Form::of(&with(&[("audience", Some(OWN))])).ok().unwrap();
        let fault = Exchange::read(there, None).err().unwrap();
        assert_eq!(fault.error, "invalid_target");
    }
}

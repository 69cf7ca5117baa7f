//! What the agent answers to `dayfly credential`.
//!
//! Invariant: only roles that the agent was started with are known, and only to this user's
//! processes.

use hyper::{Method, Request, StatusCode, body::Incoming};
use tokio::net::UnixStream;

use super::{
    Served,
    answer::{CREDENTIALS, FAILED, NOTHING_HELD, Refusal, UNKNOWN_REQUEST, UNKNOWN_ROLE, status},
    hold::Holder,
    http::{Answer, json, serve},
    peer::Admitted,
};
use crate::failure::Failure;

/// The query of a request that gets no new credential.
const HELD: &str = "held";

/// Serves one connection.
pub(super) async fn answer(stream: UnixStream, served: &Served<'_>) {
    if !Admitted::Own.admits(&stream) {
        served.turned_away("another user's process asked on the agent's socket");
        return;
    }
    serve(stream, |request| answered(request, served)).await;
}

async fn answered(request: Request<Incoming>, served: &Served<'_>) -> Answer {
    served.asked();
    let path = request.uri().path();
    let Some(rest) = path.strip_prefix(CREDENTIALS) else { return unknown_request() };
    let (role, lease) = match rest.split_once('/') {
        Some((role, lease)) => (role, Some(lease)),
        None => (rest, None),
    };
    let Some(holder) = served.role(role) else {
        let message = format!("it was not started with `--role {role}`");
        return json(StatusCode::NOT_FOUND, &Refusal::new(UNKNOWN_ROLE, message));
    };
    match (request.method(), lease, request.uri().query()) {
        (&Method::GET, None, None) => match holder.told().await {
            Ok(handed) => json(StatusCode::OK, &handed),
            Err(error) => failed(error),
        },
        (&Method::GET, None, Some(HELD)) => match holder.held() {
            Some(handed) => json(StatusCode::OK, &handed),
            None => nothing_held(holder),
        },
        (&Method::DELETE, Some(lease), None) if holder.erase(lease) => {
            json(StatusCode::OK, &serde_json::json!({}))
        }
        (&Method::DELETE, Some(_), None) => nothing_held(holder),
        _ => unknown_request(),
    }
}

fn failed(error: super::hold::Error) -> Answer {
    let failure = Failure::from(error);
    json(status(failure.exit_code()), &Refusal::new(FAILED, failure.to_line()))
}

fn nothing_held(holder: &Holder<'_>) -> Answer {
    let message = format!("it has no such credential of role `{}`", holder.role());
    json(StatusCode::NOT_FOUND, &Refusal::new(NOTHING_HELD, message))
}

fn unknown_request() -> Answer {
    let message = "it knows no such request";
    json(StatusCode::BAD_REQUEST, &Refusal::new(UNKNOWN_REQUEST, message))
}

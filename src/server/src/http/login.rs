//! `GET /api/v1/login`: how a person signs in.
//!
//! Invariant: the same for everybody, and nothing but what is configured: whoever could change it
//! would send people to another provider.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use dayfly_api as api;

use super::problem::Fault;
use crate::{broker::Broker, config::LoginConfig};

/// So long a client may go on with what it read.
const CACHED: &str = "public, max-age=300";

/// Where and how people sign in, for command lines.
#[utoipa::path(
    get, path = "/api/v1/login", tag = "services",
    responses(
        (status = 200, body = api::Login),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn handler(State(broker): State<Arc<Broker>>) -> Result<Response, Fault> {
    let login = broker.login.as_ref().ok_or_else(Fault::no_login)?;
    Ok(([(header::CACHE_CONTROL, CACHED)], Json(show(login))).into_response())
}

fn show(login: &LoginConfig) -> api::Login {
    api::Login {
        issuer: login.issuer.clone(),
        client_id: login.client_id.clone(),
        scopes: login.scopes.clone(),
        token: login.token.as_str().to_owned(),
    }
}

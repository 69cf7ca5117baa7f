//! The HTTP surface: one list of routes, one order of middleware.
//!
//! Invariant: a handler only extracts, asks `policy` or `grant`, and shapes the answer. Every
//! body is bounded before it is read, and every answer has a request id. Nobody works before it is
//! known who asks, or before all is there by which that can be known.

mod audit;
mod backends;
mod caller;
mod envelope;
mod gate;
mod handover;
mod health;
mod identities;
mod introspect;
mod json;
mod jwks;
mod leases;
mod login;
mod oauth;
pub mod openapi;
mod possession;
mod problem;
mod render;
mod roles;
mod ssf;
mod standing;
mod tasks;
mod webhooks;
mod whoami;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use tokio::sync::Semaphore;

pub(crate) use caller::{ShownCertificates, note_certificate_refused};

use self::gate::Gate;
use crate::broker::Broker;

/// All routes over `broker`.
pub fn router(broker: Arc<Broker>) -> Router {
    let body_bytes_max = broker.limits.body_bytes_max;
    let places = Arc::new(Semaphore::new(broker.limits.concurrency));
    // Workloads.
    let api = Router::new()
        .route("/api/v1/tasks", post(tasks::create::handler).get(tasks::list::handler))
        .route("/api/v1/tasks/{id}", get(tasks::show::handler))
        .route("/api/v1/tasks/{id}/complete", post(tasks::complete::handler))
        .route("/api/v1/tasks/{id}/heartbeat", post(tasks::heartbeat::handler))
        .route("/api/v1/leases", post(leases::create::handler).get(leases::list::handler))
        .route("/api/v1/leases/{id}", get(leases::show::handler))
        .route("/api/v1/leases/{id}/renew", post(leases::renew::handler))
        .route("/api/v1/leases/{id}/revoke", post(leases::revoke::handler))
        .route("/api/v1/roles", get(roles::handler))
        .route("/api/v1/roles/{name}/check", post(roles::check::handler))
        .route("/api/v1/whoami", get(whoami::handler))
        // Administrators.
        .route("/api/v1/audit", get(audit::handler))
        .route("/api/v1/backends/{name}/rotate", post(backends::rotate))
        .route("/api/v1/identities/disable", post(identities::disable))
        .route("/api/v1/identities/disabled", get(identities::list))
        .route("/api/v1/identities/enable", post(identities::enable))
        .route("/api/v1/leases/{id}/abandon", post(leases::abandon::handler))
        .route("/api/v1/standing", get(standing::show))
        .route("/api/v1/standing/release", post(standing::release))
        // Services that check API keys, and proxies that ask before they pass a request on.
        .route("/oauth2/introspect", post(introspect::introspect))
        .route("/verify", get(introspect::verify));
    // Those of whom nothing is known but by their bodies: CI platforms, identity providers, and
    // clients that speak OAuth.
    let strangers = Router::new()
        .route("/api/v1/webhooks/{name}", webhooks::post().layer(Gate::of_strangers(&places)))
        .route("/api/v1/ssf/{name}", ssf::post().layer(Gate::of_strangers(&places)))
        .route("/oauth2/revoke", post(oauth::revoke::handler).layer(Gate::of_strangers(&places)))
        .route("/oauth2/token", post(oauth::token::handler).layer(Gate::of_strangers(&places)));
    // Whoever runs it, and whoever verifies what was signed here.
    let operations = Router::new()
        .route("/.well-known/jwks.json", get(jwks::handler))
        .route("/.well-known/oauth-authorization-server", get(oauth::metadata::handler))
        .route("/api/v1/login", get(login::handler))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::handler));
    let callers = Gate::new(broker.limits.concurrency, &places);
    let state = envelope::Envelope { broker: Arc::clone(&broker), callers };
    api.route_layer(middleware::from_fn_with_state(state.clone(), envelope::bounded))
        .merge(
            strangers.route_layer(middleware::from_fn_with_state(state.clone(), envelope::timed)),
        )
        .merge(operations)
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::from_fn_with_state(state, envelope::enveloped))
        .with_state(broker)
}

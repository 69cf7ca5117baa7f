//! The OpenAPI document, from the types and the handlers' own annotations.
//!
//! Invariant: `docs/openapi.json` is this document; a test fails when they differ.

use axum::{Json, response::IntoResponse};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    audit, backends, health, identities, introspect, jwks, leases, login, oauth, roles, ssf,
    standing, tasks, webhooks, whoami,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dayfly",
        description = "A just-in-time ephemeral secret broker.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        tasks::create::handler, tasks::list::handler, tasks::show::handler,
        tasks::complete::handler, tasks::heartbeat::handler, webhooks::handler, ssf::handler, leases::create::handler,
        leases::list::handler, leases::show::handler, leases::renew::handler, leases::revoke::handler,
        leases::abandon::handler, roles::handler, roles::check::handler, whoami::handler, audit::handler,
        standing::show, standing::release, backends::rotate, identities::disable,
        identities::enable, identities::list, introspect::introspect, introspect::verify,
        oauth::token::handler, oauth::revoke::handler, oauth::metadata::handler,
        jwks::handler, login::handler, health::healthz, health::readyz, health::metrics,
    ),
    modifiers(&Bearers)
)]
struct Document;

struct Bearers;

impl Modify for Bearers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = |format: &str, text: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
            SecurityScheme::Http(scheme.description(Some(text)).build())
        };
        let components = document.components.get_or_insert_default();
        let federated =
            bearer("JWT", "A token of one of the configured issuers, or a signed request of AWS.");
        components.add_security_scheme("federated", federated);
        let task = "The token that opening a task answered with. One that is bound to a key is \
                    shown as `DPoP`, with a proof (RFC 9449).";
        let task = bearer("dft", task);
        components.add_security_scheme("task", task);
        components.add_security_scheme("api_key", bearer("dfk", "An API key minted here."));
    }
}

/// The document as JSON.
pub fn document() -> serde_json::Value {
    serde_json::to_value(Document::openapi()).unwrap_or_default()
}

pub(super) async fn handler() -> impl IntoResponse {
    Json(document())
}

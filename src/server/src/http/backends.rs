//! `POST /api/v1/backends/{name}/rotate`.
//!
//! Invariant: the answer says that the new password is the one in use; it never shows it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use dayfly_api as api;

use super::{
    caller::{Caller, Refused},
    problem::Fault,
};
use crate::{broker::Broker, policy::Ask, root::RotateError};

/// Gives Dayfly's own account at a backend a new password.
#[utoipa::path(
    post, path = "/api/v1/backends/{name}/rotate", tag = "administrator",
    security(("federated" = [])),
    params(("name" = String, Path, description = "the backend's name in the configuration")),
    responses(
        (status = 200, body = api::Rotated),
        (status = 401, body = api::Problem, content_type = "application/problem+json"),
        (status = 403, body = api::Problem, content_type = "application/problem+json"),
        (status = 404, body = api::Problem, content_type = "application/problem+json"),
        (status = 409, body = api::Problem, content_type = "application/problem+json"),
        (status = 502, body = api::Problem, content_type = "application/problem+json"),
        (status = 503, body = api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn rotate(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<api::Rotated>, Fault> {
    caller.may(&broker, &Ask::RotateRoot).await.map_err(Refused::forbidden)?;
    let roots = broker.roots.as_ref().ok_or_else(Fault::not_found)?;
    let (roots, actor, backend) = (Arc::clone(roots), caller.principal.id(), name.clone());
    // To its end, whoever goes away: half of it would be looked at a minute later only.
    let rotated = broker.engine.detach(async move { roots.rotate(&backend, &actor).await }).await;
    let root = rotated.map_err(|_| Fault::internal())??;
    let rotated_at = root.rotated_at.map(dayfly_backend_sdk::Timestamp::rfc3339);
    Ok(Json(api::Rotated { backend: name, rotated_at: rotated_at.unwrap_or_default() }))
}

impl From<RotateError> for Fault {
    fn from(error: RotateError) -> Self {
        tracing::warn!(error = ?error, "request.rotate.failed");
        match error {
            RotateError::Unknown => Self::not_found(),
            RotateError::Store(error) => error.into(),
            RotateError::Seal(_) => Self::internal(),
            RotateError::Backend(_) => Self::refused(
                "backend_refused",
                "the backend refused to change the password; the one before is still in use",
            ),
            RotateError::Open(_) => Self::unavailable(
                "rotation_open",
                "whether the backend took the new password is not known yet; both are kept, and \
                 it is looked at again within two minutes",
            ),
        }
    }
}

//! What the agent and `dayfly credential` say to each other: HTTP with JSON over a UNIX socket.
//!
//! Invariant: both ends take routes, codes and exit codes from here.
//!
//! `GET /v1/credential/ROLE` gives a credential, `GET /v1/credential/ROLE?held` what there is, and
//! `DELETE /v1/credential/ROLE/LEASE` revokes it.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::failure;

/// The agent was not started with this role.
pub(super) const UNKNOWN_ROLE: &str = "unknown_role";
/// It has no credential at the moment, or another one.
pub(super) const NOTHING_HELD: &str = "nothing_held";
/// The broker gave none.
pub(super) const FAILED: &str = "failed";
/// The request is none that it knows.
pub(super) const UNKNOWN_REQUEST: &str = "unknown_request";

/// Why there is no credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// What comes before a role's name.
pub(super) const CREDENTIALS: &str = "/v1/credential/";

/// The path of a role's credential, or of one lease of it. Names of roles and ids of leases hold
/// nothing that a path would have to escape.
pub(super) fn route(role: &str, lease: Option<&str>) -> String {
    match lease {
        Some(lease) => format!("{CREDENTIALS}{role}/{lease}"),
        None => format!("{CREDENTIALS}{role}"),
    }
}

const CODES: [(u8, StatusCode); 5] = [
    (failure::NOT_FOUND, StatusCode::NOT_FOUND),
    (failure::DENIED, StatusCode::FORBIDDEN),
    (failure::UNAUTHENTICATED, StatusCode::UNAUTHORIZED),
    (failure::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
    (failure::CONFLICT, StatusCode::CONFLICT),
];

/// The status that carries an exit code.
pub(super) fn status(exit_code: u8) -> StatusCode {
    let found = CODES.iter().find(|(code, _)| *code == exit_code);
    found.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status)
}

/// The exit code that a status carries.
pub(super) fn exit_code(status: StatusCode) -> u8 {
    let found = CODES.iter().find(|(_, other)| *other == status);
    found.map_or(failure::FAILED, |(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_survives_its_way() {
        for code in [failure::NOT_FOUND, failure::DENIED, failure::UNAVAILABLE, failure::FAILED] {
            assert_eq!(exit_code(status(code)), code);
        }
        assert_eq!(exit_code(status(failure::USAGE)), failure::FAILED);
    }
}

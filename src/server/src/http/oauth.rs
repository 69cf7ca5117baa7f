//! `/oauth2/…`: tokens in the words that OAuth clients know.
//!
//! Invariant: the tokens in a request say who asks, and nothing else does: who shows credentials
//! of a client is refused, since nobody would look at them. What was wrong with a token is for the
//! audit log alone.

mod form;
pub(super) mod metadata;
pub(super) mod revoke;
pub(super) mod token;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dayfly_api as api;

use self::form::Form;
use super::problem::Fault;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// Why no token was given or taken back, as RFC 6749, section 5.2 has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OauthFault {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after_seconds: Option<u32>,
}

impl OauthFault {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self { status: StatusCode::BAD_REQUEST, error, description, retry_after_seconds: None }
    }

    /// The form makes no sense, or a token in it is worth nothing (RFC 8693, section 2.2.2).
    fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// Something shows who the client is, and nobody is known here by that.
    fn invalid_client() -> Self {
        let fault = Self::new("invalid_client", "clients are not authenticated here, tokens are");
        Self { status: StatusCode::UNAUTHORIZED, ..fault }
    }

    /// It cannot be done now: how long to wait until it may be.
    fn unavailable(description: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new("temporarily_unavailable", description)
        }
    }
}

/// One text for every token that was not accepted, whosever it was.
const NOT_ACCEPTED: &str = "a token was not accepted";

impl From<Fault> for OauthFault {
    fn from(fault: Fault) -> Self {
        let detail = match (fault.code(), fault.denied_by()) {
            ("unauthenticated" | "person_not_accepted", _) => NOT_ACCEPTED.to_owned(),
            (_, Some(rule)) => format!("denied by `{rule}`: {}", fault.detail()),
            (_, None) => fault.detail().to_owned(),
        };
        let status = fault.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Self::unavailable(detail, fault.retry_after_seconds().unwrap_or(1));
        }
        if status.is_server_error() {
            return Self { status, ..Self::new("server_error", detail) };
        }
        let error =
            if fault.code() == "invalid_dpop_proof" { fault.code() } else { "invalid_request" };
        let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
        let status = if too_large { status } else { StatusCode::BAD_REQUEST };
        Self { status, ..Self::new(error, detail) }
    }
}

impl IntoResponse for OauthFault {
    fn into_response(self) -> Response {
        // The characters that section 5.2 allows.
        let allowed = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
        let description = self.description.chars().map(|c| if allowed(c) { c } else { '\'' });
        let body = api::OauthError {
            error: self.error.to_owned(),
            error_description: description.collect(),
        };
        let mut response = (self.status, Json(body)).into_response();
        uncached(&mut response);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        response
    }
}

/// RFC 6749, section 5.1.
fn uncached(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}

/// The form of a request that shows no credentials of a client: whoever sends some believes that
/// they count.
fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<Form, OauthFault> {
    let form = Form::parse(headers, body)?;
    let secrets = ["client_secret", "client_assertion", "client_assertion_type"];
    if headers.contains_key(header::AUTHORIZATION) || secrets.iter().any(|name| form.has(name)) {
        return Err(OauthFault::invalid_client());
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_with_a_token_is_not_told() {
        let one = OauthFault::from(Fault::unauthenticated());
        assert_eq!(one, OauthFault::from(Fault::person_not_accepted()));
        assert_eq!((one.status, one.error), (StatusCode::BAD_REQUEST, "invalid_request"));
        assert_eq!(one.description, NOT_ACCEPTED);
    }

    #[test]
    fn each_fault_has_its_status_and_error() {
        for (fault, status, error) in [
            (Fault::invalid_proof(), 400, "invalid_dpop_proof"),
            (Fault::token_bound(), 400, "invalid_request"),
            (Fault::too_large(), 413, "invalid_request"),
            (Fault::unavailable("store_unavailable", "x"), 503, "temporarily_unavailable"),
            (Fault::internal(), 500, "server_error"),
            (Fault::task_ended("completed"), 400, "invalid_request"),
        ] {
            let fault = OauthFault::from(fault);
            assert_eq!((fault.status.as_u16(), fault.error), (status, error));
            assert_eq!(fault.retry_after_seconds.is_some(), status == 503, "{fault:?}");
            let response = fault.into_response();
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
        }
    }

    #[test]
    fn who_shows_a_clients_credentials_is_told_that_nobody_looks_at_them() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        assert!(read_form(&headers, b"token=x&client_id=ci").is_ok(), "a name is no credential");
        for body in ["client_secret=s", "client_assertion=a", "client_assertion_type=t"] {
            let fault = read_form(&headers, body.as_bytes()).err().unwrap();
            assert_eq!(fault, OauthFault::invalid_client(), "{body}");
        }
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic Y2k6cw=="));
        let response = read_form(&headers, b"token=x").err().unwrap().into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Basic");
    }
}

//! Errors as RFC 9457 problem details.

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem. `code` is stable and made for programs; `detail` is for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable URI of the problem's kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem, for example `role_denied`.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
    /// The request's id, as it stands in the broker's log and audit.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The rule that denied, for callers whose identity was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<String>,
    /// Which fields are at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldFault>,
}

/// One field at fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldFault {
    /// RFC 6901 JSON Pointer to the field.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

//! Identities that may open no tasks.

use serde::{Deserialize, Serialize};

/// Body of `POST /api/v1/identities/disable`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisableIdentity {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Its subject, as the issuer calls it.
    pub subject: String,
    /// Tokens that were issued until then serve for nothing any more; those from after it do. May
    /// be in the future. Absent: no token does, until the identity is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<String>,
    /// Why; it goes into the audit log. At most 256 characters.
    pub reason: String,
}

/// Answer of `POST /api/v1/identities/disable`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IdentityDisabled {
    /// Issuer and subject.
    pub principal: String,
    /// The tasks that were open and have been ended.
    pub tasks: Vec<String>,
}

/// Body of `POST /api/v1/identities/enable`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnableIdentity {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Its subject, as the issuer calls it.
    pub subject: String,
    /// Why; it goes into the audit log. At most 256 characters.
    pub reason: String,
}

/// Answer of `POST /api/v1/identities/enable`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IdentityEnabled {
    /// Issuer and subject.
    pub principal: String,
    /// Whether it was disabled.
    pub was_disabled: bool,
}

/// An identity that is disabled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisabledIdentity {
    /// Issuer and subject.
    pub principal: String,
    /// Tokens that were issued until then serve for nothing; absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<String>,
    /// When it was disabled last.
    pub disabled_at: String,
    /// By whom.
    pub disabled_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A page of disabled identities, in the order of their names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisabledPage {
    /// The identities.
    pub data: Vec<DisabledIdentity>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Answer of `POST /api/v1/ssf/{name}` to a token that is refused, as RFC 8935 has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecurityEventError {
    /// `invalid_request`, `invalid_key`, `invalid_issuer` or `invalid_audience`.
    pub err: String,
    /// In words.
    pub description: String,
}

//! What a workload is given.
//!
//! Invariant: the names are those that AWS's own SDKs and command line read.

use dayfly_backend_sdk::{Credential, Secret};

/// What AWS answered a mint with.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    /// A session has one, a user's key has none.
    pub(crate) session_token: Option<Secret>,
    /// RFC 3339.
    pub(crate) expiration: Option<String>,
}

impl Keys {
    /// The whole credential, with the variables that clients read.
    pub(crate) fn credential(self, region: &str) -> Credential {
        let mut credential = Credential::new()
            .public("access_key_id", self.access_key_id)
            .secret("secret_access_key", self.secret_access_key)
            .public("region", region)
            .variable("AWS_ACCESS_KEY_ID", "access_key_id")
            .variable("AWS_SECRET_ACCESS_KEY", "secret_access_key")
            .variable("AWS_REGION", "region")
            .variable("AWS_DEFAULT_REGION", "region");
        if let Some(token) = self.session_token {
            credential = credential
                .secret("session_token", token)
                .variable("AWS_SESSION_TOKEN", "session_token");
        }
        if let Some(expiration) = self.expiration {
            credential = credential
                .public("expiration", expiration)
                .variable("AWS_CREDENTIAL_EXPIRATION", "expiration");
        }
        credential
    }
}

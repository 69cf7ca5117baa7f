//! Signing in as a GitHub App: a token of our own, signed anew for each request.
//!
//! Invariant: the private key signs nothing but that token, which lives ten minutes at most.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::{Secret, Timestamp};
use reqwest::header::HeaderValue;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;

use crate::{
    config::{AppConfig, ConfigError},
    error::Failure,
    request::header_value,
};

/// GitHub, "Generating a JSON Web Token": `iat` a minute back, since clocks differ, and `exp` not
/// more than ten minutes ahead.
const BACK_S: i64 = 60;
const LIFE_S: i64 = 600;

/// An App and its key.
pub(crate) struct App {
    id: String,
    pair: RsaKeyPair,
    random: SystemRandom,
}

impl App {
    pub(crate) fn new(config: &AppConfig, key: Option<&Secret>) -> Result<Self, ConfigError> {
        let pem = key.ok_or(ConfigError::Key)?.expose().as_bytes();
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| ConfigError::Key)?;
        // GitHub gives PKCS#1; a key that was converted is PKCS#8.
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(_) | _ => return Err(ConfigError::Key),
        };
        let pair = pair.map_err(|_| ConfigError::Key)?;
        Ok(Self { id: config.app_id.clone(), pair, random: SystemRandom::new() })
    }

    /// `Authorization`, for a request that is sent now by the API's own clock.
    pub(crate) fn authorization(&self, now: Timestamp) -> Result<HeaderValue, Failure> {
        let issued = now.seconds().saturating_sub(BACK_S);
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let claims = json!({ "iss": self.id, "iat": issued, "exp": issued.saturating_add(LIFE_S) });
        let part = |part: &serde_json::Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &self.random, message.as_bytes(), &mut signature)
            .map_err(|_| Failure::Refused("the App's token cannot be signed".to_owned()))?;
        header_value(&format!("Bearer {message}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).finish_non_exhaustive()
    }
}

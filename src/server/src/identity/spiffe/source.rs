//! Where bundles are read.
//!
//! Invariant: a bundle is read up to its bound of size and time and no further, from the
//! configured place alone; a redirect is a refusal.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use reqwest::Client;
use url::Url;

use super::{
    super::{
        SetupError,
        config::is_loopback,
        jwks::JWKS_LEN_MAX,
        keys::{KeySource, KeysError, TIMEOUT, client, get, read},
    },
    bundle::{Bundle, Refresh},
    config::{BundleFrom, TrustDomainConfig},
};

/// What gives the bundle of a trust domain. Reads the CA file, connects to nothing.
pub(super) fn source(config: &TrustDomainConfig) -> Result<Arc<dyn KeySource<Bundle>>, SetupError> {
    let refresh = Refresh { min: config.refresh_min, max: config.refresh_max };
    Ok(match &config.bundle {
        BundleFrom::File(path) => Arc::new(BundleFile { path: path.clone(), refresh }),
        BundleFrom::Url { url, ca_file } => {
            let bad = |source| SetupError::Url { name: config.name.clone(), source };
            let url = Url::parse(url).map_err(bad)?;
            let client = client(&config.name, ca_file.as_deref(), true, is_loopback(&url))?;
            Arc::new(BundleUrl { client, url, refresh })
        }
    })
}

#[derive(Debug)]
struct BundleFile {
    path: PathBuf,
    refresh: Refresh,
}

#[async_trait]
impl KeySource<Bundle> for BundleFile {
    async fn fetch(&self) -> Result<Bundle, KeysError> {
        let bytes = read(&self.path).await?;
        Bundle::parse(&bytes, self.refresh).map_err(KeysError::Jwks)
    }
}

/// A federation endpoint of the profile `https_web`: it shows a certificate of the web's own
/// authorities, or of those that the configuration names.
#[derive(Debug)]
struct BundleUrl {
    client: Client,
    url: Url,
    refresh: Refresh,
}

#[async_trait]
impl KeySource<Bundle> for BundleUrl {
    async fn fetch(&self) -> Result<Bundle, KeysError> {
        let answer = get(&self.client, self.url.clone(), JWKS_LEN_MAX);
        let bytes = tokio::time::timeout(TIMEOUT, answer).await;
        let bytes = bytes.unwrap_or(Err(KeysError::Timeout))?;
        Bundle::parse(&bytes, self.refresh).map_err(KeysError::Jwks)
    }
}

//! The two APIs, and who we are at them.
//!
//! Invariant: a request is sent once. A create that the SDK repeated by itself would meet its
//! own first try and say that the name is taken; the engine repeats what may be repeated.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider::credentials::DefaultCredentialsChain,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use aws_sdk_sts::config::{SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use dayfly_backend_sdk::{Credential, Secret};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::OnceCell;

use crate::{
    clock::Clock,
    config::{AwsConfig, ConfigError},
    error::Failure,
};

/// An account, as we see it with our key.
pub(crate) struct Account {
    pub(crate) sts: aws_sdk_sts::Client,
    pub(crate) iam: aws_sdk_iam::Client,
    pub(crate) clock: Clock,
    sdk: SdkConfig,
    expected: Option<String>,
    who: OnceCell<Identity>,
}

/// Whom a key belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) account: String,
    pub(crate) arn: String,
}

impl Identity {
    /// The name of a user; sessions have none.
    pub(crate) fn user(&self) -> Option<&str> {
        let path = self.arn.rsplit_once(":user/")?.1;
        path.rsplit('/').next()
    }
}

impl Account {
    pub(crate) fn new(config: &AwsConfig) -> Result<Self, ConfigError> {
        let timeout = Duration::from_millis(u64::from(config.timeout_ms));
        let timeouts =
            TimeoutConfig::builder().connect_timeout(timeout).operation_timeout(timeout).build();
        let http = http(config)?;
        let region = Region::new(config.region.clone());
        let mut builder = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .credentials_provider(match (&config.access_key_id, &config.password) {
                (Some(id), Some(secret)) => SharedCredentialsProvider::new(keys(id, secret, None)),
                _ => SharedCredentialsProvider::new(Surroundings {
                    region,
                    http,
                    chain: OnceCell::new(),
                }),
            });
        builder.set_endpoint_url(config.endpoint_url.clone());
        let sdk = builder.build();
        let clock = Clock::default();
        let (sts, iam) = clients(&sdk, &clock);
        let expected = config.account_id.clone();
        Ok(Self { sts, iam, clock, sdk, expected, who: OnceCell::new() })
    }

    /// The same with a minted credential.
    pub(crate) fn with(
        &self,
        credential: &Credential,
    ) -> (aws_sdk_sts::Client, aws_sdk_iam::Client) {
        let field = |name| credential.field(name).unwrap_or_default();
        let secret = Secret::new(field("secret_access_key"));
        let token = credential.field("session_token").map(str::to_owned);
        let keys = keys(field("access_key_id"), &secret, token);
        let provider = SharedCredentialsProvider::new(keys);
        let sdk = self.sdk.to_builder().credentials_provider(provider).build();
        clients(&sdk, &self.clock)
    }

    /// Who we are, asked once. In another account than the configuration's we are nobody.
    pub(crate) async fn identity(&self) -> Result<&Identity, Failure> {
        let identity = self.who.get_or_try_init(|| whoami(&self.sts)).await?;
        match &self.expected {
            Some(expected) if *expected != identity.account => {
                Err(Failure::Elsewhere(identity.account.clone()))
            }
            Some(_) | None => Ok(identity),
        }
    }
}

/// Needs no permission, and no policy can deny it.
pub(crate) async fn whoami(sts: &aws_sdk_sts::Client) -> Result<Identity, Failure> {
    let caller = sts.get_caller_identity().send().await?;
    Ok(Identity {
        account: caller.account.ok_or(Failure::Strange("account"))?,
        arn: caller.arn.ok_or(Failure::Strange("ARN"))?,
    })
}

fn clients(sdk: &SdkConfig, clock: &Clock) -> (aws_sdk_sts::Client, aws_sdk_iam::Client) {
    let sts = aws_sdk_sts::config::Builder::from(sdk).interceptor(clock.clone()).build();
    let iam = aws_sdk_iam::config::Builder::from(sdk).interceptor(clock.clone()).build();
    (aws_sdk_sts::Client::from_conf(sts), aws_sdk_iam::Client::from_conf(iam))
}

fn keys(id: &str, secret: &Secret, token: Option<String>) -> Credentials {
    Credentials::new(id, secret.expose(), token, None, "dayfly")
}

fn http(config: &AwsConfig) -> Result<SharedHttpClient, ConfigError> {
    let mut context = TlsContext::builder();
    if let Some(path) = &config.ca_file {
        let unread = |cause: Box<dyn std::error::Error + Send + Sync>| ConfigError::CaFile {
            path: path.clone(),
            cause,
        };
        let pem = std::fs::read(path).map_err(|error| unread(error.into()))?;
        // The SDK would panic at its first request where these are not certificates.
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unread(error.to_string().into()))?;
            roots.add(certificate).map_err(|error| unread(error.into()))?;
        }
        if roots.is_empty() {
            return Err(unread("there is no certificate in it".into()));
        }
        context = context.with_trust_store(TrustStore::empty().with_pem_certificate(pem));
    }
    let context = context.build().map_err(|error| ConfigError::CaFile {
        path: config.ca_file.clone().unwrap_or_default(),
        cause: error.into(),
    })?;
    let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    Ok(builder.tls_context(context).build_https())
}

/// What the machine has: environment, profile, web identity, container, instance. Looked for at
/// the first request, since some of it is asked over the network.
#[derive(Debug)]
struct Surroundings {
    region: Region,
    http: SharedHttpClient,
    chain: OnceCell<DefaultCredentialsChain>,
}

impl Surroundings {
    async fn chain(&self) -> &DefaultCredentialsChain {
        let build = || {
            let config = ProviderConfig::default()
                .with_region(Some(self.region.clone()))
                .with_http_client(self.http.clone());
            let builder = DefaultCredentialsChain::builder().region(self.region.clone());
            builder.configure(config).build()
        };
        self.chain.get_or_init(build).await
    }
}

impl ProvideCredentials for Surroundings {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(
            async move { self.chain().await.provide_credentials().await },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_has_a_users_name() {
        let of = |arn: &str| Identity { account: String::new(), arn: arn.to_owned() };
        let user = of("arn:aws:iam::123456789012:user/dir/broker");
        assert_eq!(user.user(), Some("broker"));
        for other in [
            "arn:aws:sts::123456789012:assumed-role/broker/i-1",
            "arn:aws:sts::123456789012:federated-user/x",
            "arn:aws:iam::123456789012:root",
        ] {
            assert_eq!(of(other).user(), None, "{other}");
        }
    }
}

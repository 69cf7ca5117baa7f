//! Where the AWS credentials are: in the environment, or at a container's own endpoint.
//!
//! The metadata service of an instance is left out: whatever runs on the machine can ask it, so
//! that what it gives is nobody's in particular.
//!
//! Invariant: a container's token goes to an address that AWS's own tools would send it to, and
//! no credential is ever shown, or kept in memory longer than it is needed.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{super::Error, secret::Secret};
use crate::{
    ambient::Ambient,
    client::{self, read_body, secure_http},
};

/// Where ECS, and EKS over either protocol, give credentials without TLS.
const ECS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);
const EKS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);
const EKS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23);

/// What a request is signed with.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    #[serde(default, rename = "Token")]
    pub(super) session_token: Option<Secret>,
}

/// Where they come from.
pub(super) enum Keys {
    Container { url: Url, authorization: Authorization },
    Environment(Arc<Credentials>),
}

/// What a container shows to get its credentials.
pub(super) enum Authorization {
    /// Read anew each time: it is changed while the container runs.
    File(PathBuf),
    None,
    Value(Secret),
}

impl Keys {
    /// Of what the environment says.
    pub(super) fn find(ambient: &Ambient) -> Result<Self, Error> {
        let text = |name| ambient.text(name).map(|text| text.trim().to_owned());
        match (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Ok(Self::Environment(Arc::new(Credentials {
                    access_key_id,
                    secret_access_key: secret_access_key.into(),
                    session_token: text("AWS_SESSION_TOKEN").map(Secret::from),
                })))
            }
            (None, None) => Self::container(ambient),
            (Some(_), None) | (None, Some(_)) => {
                Err(fault("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set"))
            }
        }
    }

    fn container(ambient: &Ambient) -> Result<Self, Error> {
        let relative = ambient.text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = match (relative, ambient.text("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            (Some(path), _) if path.starts_with('/') => Url::parse(&format!("http://{ECS}{path}")),
            (Some(_), _) => {
                return Err(fault("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path"));
            }
            (None, Some(url)) => Url::parse(url),
            (None, None) => {
                return Err(fault(
                    "neither AWS_ACCESS_KEY_ID nor AWS_CONTAINER_CREDENTIALS_FULL_URI or \
                     _RELATIVE_URI is set (the metadata of an instance is not asked)",
                ));
            }
        };
        let url = url.map_err(|_| fault("the address of the container's credentials is no URL"))?;
        if !may_be_asked(&url) {
            return Err(fault(
                "the address of the container's credentials is neither https nor one of a \
                 container's own",
            ));
        }
        let file = ambient.value("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let authorization = match (file, ambient.text("AWS_CONTAINER_AUTHORIZATION_TOKEN")) {
            (Some(path), _) => Authorization::File(path.into()),
            (None, Some(value)) => Authorization::Value(value.to_owned().into()),
            (None, None) => Authorization::None,
        };
        Ok(Self::Container { url, authorization })
    }

    /// The credentials as they are now.
    pub(super) async fn credentials(&self) -> Result<Arc<Credentials>, Error> {
        match self {
            Self::Container { url, authorization } => {
                from_container(url, authorization).await.map(Arc::new)
            }
            Self::Environment(credentials) => Ok(Arc::clone(credentials)),
        }
    }
}

pub(super) fn fault(reason: &str) -> Error {
    Error::Aws(reason.to_owned())
}

fn may_be_asked(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        // The transport never asks DNS for this name.
        ("http", Some(Host::Domain(name))) => name == "localhost",
        ("http", Some(Host::Ipv4(ip))) => ip.is_loopback() || ip == ECS || ip == EKS,
        ("http", Some(Host::Ipv6(ip))) => ip.is_loopback() || ip == EKS_V6,
        _ => false,
    }
}

async fn from_container(url: &Url, authorization: &Authorization) -> Result<Credentials, Error> {
    let http = secure_http(url.scheme() == "http", None).map_err(client::Error::Setup)?;
    let mut request = http.get(url.clone());
    if let Some(value) = authorization.header()? {
        request = request.header(AUTHORIZATION, value);
    }
    let failed = |error: reqwest::Error| Error::Aws(error.without_url().to_string());
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(fault(&format!("the container's endpoint answered {status}")));
    }
    let body = Zeroizing::new(read_body(response).await.map_err(failed)?.unwrap_or_default());
    serde_json::from_slice(&body)
        .map_err(|_| fault("the container's endpoint answered without credentials"))
}

impl Authorization {
    fn header(&self) -> Result<Option<HeaderValue>, Error> {
        match self {
            Self::File(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| Error::File { path: path.display().to_string(), source })?;
                header(&Secret::from(text)).map(Some)
            }
            Self::None => Ok(None),
            Self::Value(value) => header(value).map(Some),
        }
    }
}

fn header(token: &Secret) -> Result<HeaderValue, Error> {
    let value = HeaderValue::try_from(token.expose().trim());
    let mut value =
        value.map_err(|_| fault("the container's token holds what a header can't carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(name: &str, value: &str) -> Result<String, String> {
        match Keys::find(&Ambient::from([(name, value)])) {
            Ok(Keys::Container { url, .. }) => Ok(url.to_string()),
            Ok(Keys::Environment(_)) => panic!("there are none"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_environment_comes_before_the_container() {
        let ambient = Ambient::from([
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret\n"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
        ]);
        let Keys::Environment(found) = Keys::find(&ambient).unwrap() else { panic!("container") };
        assert_eq!(
            (found.access_key_id.as_str(), found.secret_access_key.expose()),
            ("id", "secret")
        );
        assert!(found.session_token.is_none());
    }

    #[tokio::test]
    async fn credentials_are_not_copied_and_what_is_secret_of_them_is_erased() {
        let ambient = Ambient::from([
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "hunter3"),
        ]);
        let keys = Keys::find(&ambient).unwrap();
        let (one, two) = (keys.credentials().await.unwrap(), keys.credentials().await.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        let secrets: [&Secret; 2] = [&one.secret_access_key, one.session_token.as_ref().unwrap()];
        assert_eq!(secrets.map(Secret::expose), ["hunter2", "hunter3"]);
    }

    #[test]
    fn a_containers_answer_is_read_with_and_without_a_session() {
        let read = |text: &str| serde_json::from_str::<Credentials>(text).unwrap();
        let with = read(r#"{"AccessKeyId":"id","SecretAccessKey":"hunter2","Token":"hunter3"}"#);
        assert_eq!(with.session_token.as_ref().map(Secret::expose), Some("hunter3"));
        let without = read(r#"{"AccessKeyId":"id","SecretAccessKey":"hunter2"}"#);
        assert_eq!(
            (without.access_key_id.as_str(), without.secret_access_key.expose()),
            ("id", "hunter2")
        );
        assert!(without.session_token.is_none());
    }

    #[test]
    fn half_a_key_is_none() {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(url_of(name, "x").unwrap_err().contains("not both set"), "{name}");
        }
        assert!(url_of("AWS_PROFILE", "x").unwrap_err().contains("AWS_ACCESS_KEY_ID"));
    }

    #[test]
    fn a_containers_token_stays_on_its_machine_or_under_tls() {
        let relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        assert_eq!(url_of(relative, "/v2/x"), Ok("http://169.254.170.2/v2/x".to_owned()));
        for bad in ["v2", "@evil.example/", ".evil.example/"] {
            assert!(url_of(relative, bad).is_err(), "{bad}");
        }
        let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        for good in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:51000/creds",
            "http://localhost:51000/creds",
            "https://credentials.example.com/",
        ] {
            assert_eq!(url_of(full, good), Ok(good.to_owned()));
        }
        for bad in [
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://localhost.example.com/",
            "http://169.254.170.2.example.com/",
            "file:///etc/passwd",
            "nonsense",
        ] {
            assert!(url_of(full, bad).is_err(), "{bad}");
        }
    }
}

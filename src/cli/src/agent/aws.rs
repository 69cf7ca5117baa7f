//! The container endpoint of AWS's SDKs, on a loopback port: they ask again by themselves when a
//! credential is about to end.
//!
//! Invariant: without the secret of this run nobody learns anything, whatever the path; a web page
//! that had its own name resolved to loopback is refused by the host that it asks for.

use std::{collections::BTreeMap, convert::Infallible, fmt, net::Ipv4Addr};

use data_encoding::BASE64URL_NOPAD;
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde_json::json;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::{
    answer::status,
    hold::Holder,
    http::{Answer, accept_all, json as answer_json, serve},
    place::Error,
};
use crate::{
    credential::{Handed, aws},
    failure::Failure,
};

const SECRET_BYTES: usize = 32;
/// By its presence the SDKs know that there is an endpoint; what they would use instead is withheld
/// from a command that gets it.
pub(crate) const ADDRESS: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const AUTHORIZATION_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
/// The SDKs would take a key that stands in this file before they ask an endpoint.
const KEY_FILE: (&str, &str) = ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");

/// A loopback port that serves one role.
pub(crate) struct Endpoint {
    listener: TcpListener,
    port: u16,
    path: String,
    secret: Zeroizing<String>,
    /// What the secret is compared by, in the same time for all.
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Endpoint {
    /// Listens, and makes a secret.
    pub(crate) async fn bind(role: &str) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(Error::Loopback)?;
        let port = listener.local_addr().map_err(Error::Loopback)?.port();
        let random = SystemRandom::new();
        let mut bytes = Zeroizing::new([0_u8; SECRET_BYTES]);
        random.fill(bytes.as_mut_slice()).map_err(|_| Error::NoRandom)?;
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()));
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| Error::NoRandom)?;
        let tag = hmac::sign(&key, secret.as_bytes());
        Ok(Self { listener, port, path: format!("/{role}"), secret, key, tag })
    }

    /// What an SDK finds it by.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let address = format!("http://127.0.0.1:{}{}", self.port, self.path);
        BTreeMap::from([
            (ADDRESS.to_owned(), address),
            (AUTHORIZATION_TOKEN.to_owned(), self.secret.to_string()),
            (KEY_FILE.0.to_owned(), KEY_FILE.1.to_owned()),
        ])
    }

    /// Serves `holder`'s credential for ever; `asked` is called at each request that is answered.
    pub(crate) async fn serve(&self, holder: &Holder<'_>, asked: impl Fn()) -> Infallible {
        let asked = &asked;
        accept_all(
            || self.listener.accept(),
            |(stream, _)| {
                serve(stream, move |request: Request<_>| async move {
                    let (head, _) = request.into_parts();
                    if let Err(refusal) = self.check(&head.method, &head.uri, &head.headers) {
                        return refusal.answer();
                    }
                    asked();
                    answered(holder).await
                })
            },
        )
        .await
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if uri.authority().is_some() || !self.is_own_host(headers) {
            return Err(Refusal::Host);
        }
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let secret = shown.next().map(HeaderValue::as_bytes).unwrap_or_default();
        let known = hmac::verify(&self.key, secret, self.tag.as_ref()).is_ok();
        if !known || shown.next().is_some() {
            return Err(Refusal::Secret);
        }
        if uri.path() != self.path {
            return Err(Refusal::Path);
        }
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        Ok(())
    }

    fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let own = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port));
        host.is_some_and(|host| own.iter().any(|own| own == host)) && hosts.next().is_none()
    }
}

/// The variables that name the region, which the endpoint can't. No others: a role's author must not
/// set what a command is steered by.
pub(crate) fn region(handed: &Handed) -> BTreeMap<String, String> {
    let region = handed.credential.fields.get("region");
    let names = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter();
    region
        .map(|region| names.map(|name| (name.to_owned(), region.clone())).collect())
        .unwrap_or_default()
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("port", &self.port).finish_non_exhaustive()
    }
}

async fn answered(holder: &Holder<'_>) -> Answer {
    let given = async {
        let handed = holder.told().await?;
        Ok::<_, Failure>(aws::endpoint(&handed)?)
    };
    match given.await {
        Ok(body) => answer_json(StatusCode::OK, &body),
        Err(failure) => refused(status(failure.exit_code()), "CredentialError", &failure.to_line()),
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Method,
    Path,
    Secret,
}

impl Refusal {
    fn answer(self) -> Answer {
        let (status, code, message) = match self {
            Self::Host => (StatusCode::FORBIDDEN, "WrongHost", "the host is not this endpoint's"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "WrongMethod", "only GET is answered"),
            Self::Path => (StatusCode::NOT_FOUND, "NotFound", "there is no such path"),
            Self::Secret => {
                (StatusCode::UNAUTHORIZED, "Unauthorized", "the authorization token is wrong")
            }
        };
        refused(status, code, message)
    }
}

/// The form in which the SDKs show an error.
fn refused(status: StatusCode, code: &str, message: &str) -> Answer {
    answer_json(status, &json!({ "code": code, "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn check(endpoint: &Endpoint, method: &Method, uri: &str, headers: &HeaderMap) -> String {
        let uri: Uri = uri.parse().unwrap();
        format!("{:?}", endpoint.check(method, &uri, headers))
    }

    #[tokio::test]
    async fn only_the_secret_opens_it_and_only_at_its_own_name() {
        let endpoint = Endpoint::bind("deploy").await.unwrap();
        let variables = endpoint.variables();
        let own = format!("127.0.0.1:{}", endpoint.port);
        assert_eq!(variables[ADDRESS], format!("http://{own}/deploy"));
        let secret = variables[AUTHORIZATION_TOKEN].as_str();
        assert_eq!(secret.len(), 43);
        let other = Endpoint::bind("deploy").await.unwrap();
        assert_ne!(secret, *other.secret, "each run has its own");
        assert!(!format!("{endpoint:?}").contains(secret));

        let get = |uri: &str, host: &str, shown: &str| {
            let headers = headers(&[(HOST, host), (AUTHORIZATION, shown)]);
            check(&endpoint, &Method::GET, uri, &headers)
        };
        assert_eq!(get("/deploy", &own, secret), "Ok(())");
        assert_eq!(get("/deploy", &format!("localhost:{}", endpoint.port), secret), "Ok(())");
        for host in ["127.0.0.1", "evil.example", "127.0.0.1:1", &format!("{own}.evil.example")] {
            assert_eq!(get("/deploy", host, secret), "Err(Host)", "{host}");
        }
        assert_eq!(get("http://evil.example/deploy", &own, secret), "Err(Host)");
        let turned: String = secret.chars().rev().collect();
        for shown in ["", "x", &turned, &format!("Bearer {secret}"), &format!("{secret}x")] {
            assert_eq!(get("/deploy", &own, shown), "Err(Secret)", "{shown}");
        }
        // Who does not know the secret does not learn which paths there are.
        assert_eq!(get("/other", &own, "x"), "Err(Secret)");
        assert_eq!(get("/other", &own, secret), "Err(Path)");
        let right = headers(&[(HOST, &own), (AUTHORIZATION, secret)]);
        assert_eq!(check(&endpoint, &Method::PUT, "/deploy", &right), "Err(Method)");
        let twice = headers(&[(HOST, &own), (HOST, &own), (AUTHORIZATION, secret)]);
        assert_eq!(check(&endpoint, &Method::GET, "/deploy", &twice), "Err(Host)");
        let twice = headers(&[(HOST, &own), (AUTHORIZATION, secret), (AUTHORIZATION, "x")]);
        assert_eq!(check(&endpoint, &Method::GET, "/deploy", &twice), "Err(Secret)");
        let none = headers(&[(AUTHORIZATION, secret)]);
        assert_eq!(check(&endpoint, &Method::GET, "/deploy", &none), "Err(Host)");
    }
}

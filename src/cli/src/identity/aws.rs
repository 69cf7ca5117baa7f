//! An identity of AWS: the request that asks who signed it, signed.
//!
//! Invariant: the secret key stays here. What leaves says who we are to one broker, whose id is
//! signed with it, and is good for nothing else at AWS.

mod credentials;
mod secret;
mod sigv4;

use std::{collections::BTreeMap, fmt};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use time::OffsetDateTime;

use super::{Error, Token};
use crate::ambient::Ambient;
use credentials::{Credentials, Keys, fault};
use sigv4::{Request, authorization};

/// What says that we sign, and with what.
pub(super) const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "DAYFLY_IDENTITY",
];
/// What a broker knows such a bearer by.
const PREFIX: &str = "aws.";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded";
const NONCE_BYTES: usize = 16;

/// Signs with the credentials of the environment or of the container.
pub(crate) struct Signer {
    keys: Keys,
    sts: Sts,
}

/// The STS that the broker is to ask.
#[derive(Debug, PartialEq, Eq)]
struct Sts {
    region: String,
    host: String,
}

impl Signer {
    pub(super) fn new(ambient: &Ambient) -> Result<Self, Error> {
        let region = ambient.text("AWS_REGION").or_else(|| ambient.text("AWS_DEFAULT_REGION"));
        let fips = ambient.text("AWS_USE_FIPS_ENDPOINT");
        let fips = fips.is_some_and(|fips| fips.eq_ignore_ascii_case("true"));
        Ok(Self { keys: Keys::find(ambient)?, sts: Sts::of(region, fips)? })
    }

    /// A fresh request for the broker that calls itself `server_id`.
    pub(super) async fn token(&self, server_id: &str) -> Result<Token, Error> {
        if server_id.is_empty() || !server_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fault("the audience is empty, or not printable ASCII without blanks"));
        }
        let credentials = self.keys.credentials().await?;
        // Two requests of one second would have one signature, and the broker takes each once.
        let mut nonce = [0; NONCE_BYTES];
        let random = SystemRandom::new().fill(&mut nonce);
        random.map_err(|_| fault("the system gives no random numbers"))?;
        let nonce = BASE64URL_NOPAD.encode(&nonce);
        let bearer = self.sts.bearer(&credentials, server_id, &now(), &nonce);
        Token::parse(&bearer, "the signed request")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("sts", &self.sts).finish_non_exhaustive()
    }
}

impl Sts {
    /// The region's own; without one, the address that belongs to none.
    fn of(region: Option<&str>, fips: bool) -> Result<Self, Error> {
        let Some(region) = region.filter(|region| *region != "aws-global") else {
            let host = "sts.amazonaws.com".to_owned();
            return Ok(Self { region: "us-east-1".to_owned(), host });
        };
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !region.bytes().all(legal) {
            return Err(fault("AWS_REGION is not a region"));
        }
        let gov = region.starts_with("us-gov-");
        let domain = match region {
            _ if region.starts_with("cn-") => "amazonaws.com.cn",
            _ if region.starts_with("eusc-") => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        let service = if fips && !gov { "sts-fips" } else { "sts" };
        let host = format!("{service}.{region}.{domain}");
        Ok(Self { region: region.to_owned(), host })
    }

    fn bearer(&self, with: &Credentials, server_id: &str, date: &str, nonce: &str) -> String {
        let mut headers = BTreeMap::from([
            ("content-type", FORM),
            ("host", self.host.as_str()),
            ("x-amz-date", date),
            ("x-dayfly-nonce", nonce),
            ("x-dayfly-server-id", server_id),
        ]);
        if let Some(token) = &with.session_token {
            headers.insert("x-amz-security-token", token.expose());
        }
        let request = Request {
            method: "POST",
            date,
            region: &self.region,
            service: "sts",
            headers: &headers,
            body: BODY,
        };
        let signed = authorization(&request, &with.access_key_id, &with.secret_access_key);
        // The broker sets it, to what the URL says.
        let mut sent = headers;
        sent.remove("host");
        sent.insert("authorization", &signed);
        let url = format!("https://{}/", self.host);
        let text = json!({ "url": url, "method": "POST", "headers": sent, "body": BODY });
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(text.to_string().as_bytes()))
    }
}

/// `20260921T141320Z`.
#[expect(clippy::disallowed_methods, reason = "AWS takes no signature without the time")]
fn now() -> String {
    let now = OffsetDateTime::from(std::time::SystemTime::now());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(bearer: &str) -> Value {
        let encoded = bearer.strip_prefix(PREFIX).unwrap();
        serde_json::from_slice(&BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn each_region_has_its_host() {
        for (region, fips, host) in [
            (None, false, "sts.amazonaws.com"),
            (Some("aws-global"), false, "sts.amazonaws.com"),
            (Some("eu-central-1"), false, "sts.eu-central-1.amazonaws.com"),
            (Some("us-east-1"), true, "sts-fips.us-east-1.amazonaws.com"),
            (Some("us-gov-west-1"), true, "sts.us-gov-west-1.amazonaws.com"),
            (Some("cn-north-1"), false, "sts.cn-north-1.amazonaws.com.cn"),
            (Some("eusc-de-east-1"), false, "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(Sts::of(region, fips).unwrap().host, host);
        }
        assert!(Sts::of(Some("eu.evil.example/"), false).is_err());
    }

    #[test]
    fn the_server_id_and_everything_else_is_signed() {
        let credentials = Credentials {
            access_key_id: "ASIAEXAMPLEKEY000001".to_owned(),
            secret_access_key: "secret".to_owned().into(),
            session_token: Some("session".to_owned().into()),
        };
        let sts = Sts::of(Some("eu-central-1"), false).unwrap();
        let bearer = sts.bearer(&credentials, "https://b.example", "20260921T141320Z", "n");
        let request = read(&bearer);
        assert_eq!(request["url"], "https://sts.eu-central-1.amazonaws.com/");
        assert_eq!(request["headers"]["x-dayfly-server-id"], "https://b.example");
        assert_eq!(request["headers"]["x-amz-security-token"], "session");
        assert_eq!(request["headers"].as_object().unwrap().len(), 6);
        let authorization = request["headers"]["authorization"].as_str().unwrap();
        let begin = "AWS4-HMAC-SHA256 \
                     Credential=ASIAEXAMPLEKEY000001/20260921/eu-central-1/sts/aws4_request, \
                     SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;\
                     x-dayfly-nonce;x-dayfly-server-id, Signature=";
        assert!(authorization.starts_with(begin), "{authorization}");
        let other = sts.bearer(&credentials, "https://c.example", "20260921T141320Z", "n");
        assert_ne!(request["headers"]["authorization"], read(&other)["headers"]["authorization"]);
        assert!(!request.to_string().contains("\"secret\""), "{request}");
    }

    #[tokio::test]
    async fn two_requests_are_two() {
        let ambient =
            Ambient::from([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        let signer = Signer::new(&ambient).unwrap();
        let one = signer.token("https://b.example").await.unwrap().header();
        let two = signer.token("https://b.example").await.unwrap().header();
        assert_ne!(one, two);
        assert!(!format!("{signer:?}").contains("hunter2"));
        for bad in ["", "a b", "a\nb"] {
            assert!(signer.token(bad).await.is_err(), "{bad}");
        }
    }

    #[test]
    fn the_time_is_written_as_aws_reads_it() {
        let now = now();
        assert_eq!((now.len(), now.as_bytes()[8], now.as_bytes()[15]), (16, b'T', b'Z'), "{now}");
    }
}

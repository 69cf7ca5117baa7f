//! AWS Signature Version 4, for requests to `/` without a query.
//!
//! Invariant: every header that is given is signed. Names are in lower case and values have no
//! blanks to collapse; both are the caller's to see to.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What the secret key has before it as a key of HMAC.
const KEY_PREFIX: &str = "AWS4";
const END: &str = "aws4_request";

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// `20260921T141320Z`, as in the header `x-amz-date`.
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) headers: &'a BTreeMap<&'a str, &'a str>,
    pub(super) body: &'a str,
}

/// The value of the header `authorization`. Our copy of the secret is erased; the keys that are
/// derived from it, good for a day, a region and a service, ring leaves on the stack.
pub(super) fn authorization(request: &Request<'_>, key_id: &str, secret: &Secret) -> String {
    let Request { method, date, region, service, headers, body } = request;
    let day = date.split('T').next().unwrap_or_default();
    let lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = headers.keys().copied().collect();
    let (lines, names, body) = (lines.concat(), names.join(";"), hash(body));
    let canonical = format!("{method}\n/\n\n{lines}\n{names}\n{body}");
    let scope = format!("{day}/{region}/{service}/{END}");
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hash(&canonical));
    // Of its whole length from the start: a text that grows leaves copies of itself behind.
    let secret = secret.expose();
    let mut first = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + secret.len()));
    first.push_str(KEY_PREFIX);
    first.push_str(secret);
    let mut key = keyed(first.as_bytes(), day);
    for part in [*region, *service, END] {
        key = keyed(key.as_ref(), part);
    }
    let signature = HEXLOWER.encode(keyed(key.as_ref(), &text).as_ref());
    format!("{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}")
}

fn hash(text: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn keyed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "20150830T123600Z";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn signed(method: &str, more: &[(&str, &str)], body: &str) -> String {
        let mut headers = BTreeMap::from([("host", "example.amazonaws.com"), ("x-amz-date", DATE)]);
        headers.extend(more.iter().copied());
        let request = Request {
            method,
            date: DATE,
            region: "us-east-1",
            service: "service",
            headers: &headers,
            body,
        };
        authorization(&request, "AKIDEXAMPLE", &SECRET.to_owned().into())
    }

    /// From AWS's published test suite of Signature Version 4.
    #[test]
    fn the_published_vectors_hold() {
        let begin = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/\
                     aws4_request, SignedHeaders=";
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        assert_eq!(
            signed("GET", &[("x-amz-security-token", token)], ""),
            format!(
                "{begin}host;x-amz-date;x-amz-security-token, \
                 Signature=07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"
            ),
            "get-vanilla-with-session-token"
        );
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBu\
                     FqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmU\
                     pp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY\
                     9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvK\
                     Tr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        assert_eq!(
            signed("POST", &[("x-amz-security-token", token)], ""),
            format!(
                "{begin}host;x-amz-date;x-amz-security-token, \
                 Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
            ),
            "post-sts-header-before"
        );
        let form = [
            ("content-length", "13"),
            ("content-type", "application/x-www-form-urlencoded"),
            (
                "x-amz-content-sha256",
                "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
            ),
        ];
        assert_eq!(
            signed("POST", &form, "Param1=value1"),
            format!(
                "{begin}content-length;content-type;host;x-amz-content-sha256;x-amz-date, \
                 Signature=d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"
            ),
            "post-x-www-form-urlencoded"
        );
    }
}

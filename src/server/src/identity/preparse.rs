//! The strict reader that stands before the JWT library.
//!
//! Invariant: what passes has one reading. The size is checked before anything else, there
//! are exactly three parts in canonical base64url, and the header holds only members that we
//! know and none that could change which key or which bytes are verified.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;

use super::{
    Algorithm, Rejection,
    json::{self, Json, JsonFault, Limits},
};

/// The longest token that is looked at, in bytes.
pub const TOKEN_LEN_MAX: usize = 16 * 1024;

const TOKEN_LIMITS: Limits = Limits { depth: 16, members: 200, elements: 1_000, text_len: 4_096 };
const KID_LEN_MAX: usize = 256;
const TYP_LEN_MAX: usize = 64;

/// A token cut into its parts: nothing in it is verified.
pub(crate) struct Compact<'t> {
    /// What is signed: header and payload, as they came.
    pub(crate) message: &'t str,
    /// base64url, as it came.
    pub(crate) signature: &'t str,
    payload: &'t str,
    pub(crate) header: Header,
}

/// The members of a header that we accept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    /// Whether `x5t` is there. It names a certificate, which we never use.
    pub(crate) thumbprint: bool,
}

/// A text of three parts with dots between them, each in canonical base64url. What is in them
/// is not looked at.
pub(super) struct Parts<'t> {
    pub(super) message: &'t str,
    pub(super) signature: &'t str,
    pub(super) payload: &'t str,
    /// Decoded.
    pub(super) header: Vec<u8>,
}

impl<'t> Parts<'t> {
    pub(super) fn cut(token: &'t str, len_max: usize) -> Result<Self, Rejection> {
        if token.len() > len_max {
            return Err(Rejection::TooLarge);
        }
        let parts = Rejection::malformed("not three parts");
        let (message, signature) = token.rsplit_once('.').ok_or(parts)?;
        let (header, payload) = message.split_once('.').ok_or(parts)?;
        if payload.contains('.') {
            return Err(parts);
        }
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Rejection::malformed("an empty part"));
        }
        // The library decodes the signature again, but would answer a plain «bad signature».
        decoded(signature)?;
        Ok(Self { message, signature, payload, header: decoded(header)? })
    }
}

impl<'t> Compact<'t> {
    /// Cuts the token and reads its header.
    pub(crate) fn parse(token: &'t str) -> Result<Self, Rejection> {
        let Parts { message, signature, payload, header } = Parts::cut(token, TOKEN_LEN_MAX)?;
        let header = Header::parse(&header)?;
        Ok(Self { message, signature, payload, header })
    }

    /// Reads the members of the payload, which nobody has verified yet.
    pub(crate) fn members(&self) -> Result<BTreeMap<String, Json>, Rejection> {
        json::object(&decoded(self.payload)?, TOKEN_LIMITS).map_err(why)
    }
}

pub(super) fn decoded(part: &str) -> Result<Vec<u8>, Rejection> {
    BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| Rejection::malformed("a part is not canonical base64url"))
}

pub(super) fn why(fault: JsonFault) -> Rejection {
    Rejection::malformed(match fault {
        JsonFault::Depth => "JSON nested too deeply",
        JsonFault::Duplicate => "a member appears twice",
        JsonFault::Members => "too many members",
        JsonFault::Syntax => "a part is not a JSON object",
        JsonFault::TextLen => "a string is too long",
    })
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut algorithm = None;
        let mut kid = None;
        let mut typ = None;
        let mut thumbprint = false;
        for (name, value) in json::object(bytes, TOKEN_LIMITS).map_err(why)? {
            match name.as_str() {
                "alg" => algorithm = Some(text(value, "`alg` is not a string", 16)?),
                "kid" => kid = Some(text(value, "`kid` is not a printable string", KID_LEN_MAX)?),
                "typ" => typ = Some(text(value, "`typ` is not a printable string", TYP_LEN_MAX)?),
                "x5t" | "x5t#S256" => {
                    text(value, "`x5t` is not a printable string", KID_LEN_MAX)?;
                    thumbprint = true;
                }
                // Each of these lets the token choose its own key.
                "jwk" | "jku" | "x5u" | "x5c" => {
                    return Err(Rejection::malformed("the header brings its own key"));
                }
                // Each of these changes what the bytes mean.
                "crit" | "b64" | "zip" | "enc" | "cty" => {
                    return Err(Rejection::malformed("the header asks for an extension"));
                }
                _ => return Err(Rejection::malformed("the header has an unknown member")),
            }
        }
        let algorithm = algorithm.ok_or(Rejection::malformed("`alg` is missing"))?;
        let algorithm = Algorithm::parse(&algorithm).ok_or(Rejection::AlgorithmRefused)?;
        Ok(Self { algorithm, kid, typ, thumbprint })
    }
}

fn text(value: Json, why: &'static str, len_max: usize) -> Result<String, Rejection> {
    match value {
        Json::Text(text)
            if text.len() <= len_max && text.bytes().all(|c| matches!(c, b' '..=b'~')) =>
        {
            Ok(text)
        }
        Json::Null
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Inexact
        | Json::Text(_)
        | Json::List(_)
        | Json::Object(_) => Err(Rejection::malformed(why)),
    }
}

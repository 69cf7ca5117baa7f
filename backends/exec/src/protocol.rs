//! What goes to the program and what comes back: one JSON object each way.
//!
//! Invariant: an answer counts only when it repeats the call's number and names the handles
//! that it was asked about, each once.

use std::collections::BTreeMap;

use dayfly_backend_sdk::{ErrorKind, Retry, Secret};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::{Failure, tidy};

/// The version of all this.
const VERSION: u32 = 1;

/// What is asked.
#[derive(Serialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(crate) enum Call<'a> {
    Mint {
        handle: &'a str,
        template: &'a Value,
        expires_at: String,
        mint_deadline: String,
        principal: &'a str,
        lease: &'a str,
    },
    Renew {
        handle: &'a str,
        template: &'a Value,
        until: String,
    },
    Revoke {
        credentials: Vec<Named<'a>>,
    },
    Verify {
        credentials: Vec<Named<'a>>,
    },
    List {
        after: Option<&'a str>,
        limit: u32,
        prefix: &'a str,
    },
    Marker {
        name: String,
    },
    Mark {
        name: String,
        text: String,
        installation: String,
    },
    Use {
        fields: BTreeMap<&'a str, &'a str>,
    },
    Clock {},
}

/// A credential and the template that it was minted from.
#[derive(Serialize)]
pub(crate) struct Named<'a> {
    pub(crate) handle: &'a str,
    pub(crate) template: &'a Value,
}

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    /// A number of this call alone.
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(flatten)]
    call: &'a Call<'a>,
}

/// The text of a call.
pub(crate) fn request(id: &str, password: Option<&Secret>, call: &Call<'_>) -> Vec<u8> {
    let password = password.map(Secret::expose);
    // Texts, numbers and lists of them can always be written.
    serde_json::to_vec(&Request { version: VERSION, id, password, call }).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    id: String,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Complaint>,
}

/// What the program says of a failure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Complaint {
    kind: Kind,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Conflict,
    Denied,
    Dependent,
    Invalid,
    NotFound,
    Unavailable,
    UnknownOutcome,
}

impl Complaint {
    /// `quotes`: whether its message may be shown.
    pub(crate) fn into_failure(self, secret: Option<&Secret>, quotes: bool) -> Failure {
        let kind = match self.kind {
            Kind::Conflict => ErrorKind::Conflict,
            Kind::Denied => ErrorKind::Denied,
            Kind::Dependent => ErrorKind::Dependent,
            Kind::Invalid => ErrorKind::Invalid,
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Unavailable => ErrorKind::Unavailable,
            Kind::UnknownOutcome => ErrorKind::UnknownOutcome,
        };
        let retry = match self.temporary {
            Some(true) => Retry::Temporary,
            Some(false) => Retry::Permanent,
            None => dayfly_backend_sdk::Error::new(kind, "").retry(),
        };
        let message = if quotes { tidy(&self.message, secret) } else { kind.to_string() };
        Failure::Said { kind, retry, message }
    }
}

/// The answer to the call `id`.
pub(crate) fn response<T: DeserializeOwned>(
    id: &str,
    output: &[u8],
    secret: Option<&Secret>,
    quotes: bool,
) -> Result<T, Failure> {
    // What is wrong is said without its text, which may hold a secret.
    let unclear = |what: &str| Failure::Unclear(format!("the program's answer {what}"));
    let response: Response = serde_json::from_slice(output).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        unclear(&format!("is not one JSON object of the protocol ({place})"))
    })?;
    if response.id != id {
        return Err(unclear("is to another call"));
    }
    match (response.result, response.error) {
        (Some(result), None) => serde_json::from_value(result)
            .map_err(|_| unclear("has a `result` of another shape than its call asks for")),
        (None, Some(complaint)) => Err(complaint.into_failure(secret, quotes)),
        (Some(_), Some(_)) => Err(unclear("has both `result` and `error`")),
        (None, None) => Err(unclear("has neither `result` nor `error`")),
    }
}

/// The result of `mint`. A secret here is not shown by `Debug`, for it has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Minted {
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
}

/// The result of `revoke`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoked {
    #[serde(default)]
    pub(crate) gone: Vec<String>,
    #[serde(default)]
    pub(crate) failed: Vec<FailedOne>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailedOne {
    pub(crate) handle: String,
    pub(crate) error: Complaint,
}

/// The result of `verify`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verified {
    #[serde(default)]
    pub(crate) live: Vec<String>,
    #[serde(default)]
    pub(crate) gone: Vec<String>,
}

/// The result of `list`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) credentials: Vec<Item>,
    pub(crate) more: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) handle: String,
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
}

/// The result of `marker`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    pub(crate) text: Option<String>,
}

/// The result of `use`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Used {
    pub(crate) accepted: bool,
}

/// The result of `clock`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Now {
    pub(crate) now: String,
}

/// The result of a call that has nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match response::<Used>("7", text.as_bytes(), None, true) {
            Ok(used) => format!("{}", used.accepted),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn only_the_answer_to_this_call_is_one() {
        for (text, says) in [
            (r#"{"id":"7","result":{"accepted":true}}"#, "true"),
            (r#"{"id":"7","error":{"kind":"denied","message":"no"}}"#, "the program says: no"),
            (r#"{"id":"8","result":{"accepted":true}}"#, "to another call"),
            (r#"{"id":"7","result":{"accepted":true}}{"id":"7"}"#, "not one JSON object"),
            (r#"{"id":"7","result":{"accepted":"#, "not one JSON object"),
            (r#"{"id":"7","result":{"accepted":true},"error":{"kind":"denied"}}"#, "both"),
            (r#"{"id":"7"}"#, "neither"),
            (r#"{"id":"7","result":{"accepted":true,"secret":"x"}}"#, "another shape"),
            (r#"{"id":"7","error":{"kind":"hunter2"}}"#, "not one JSON object"),
            ("hunter2", "not one JSON object"),
            ("", "not one JSON object"),
        ] {
            let said = read(text);
            assert!(said.contains(says), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

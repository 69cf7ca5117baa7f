//! What AWS and the way to it answer, in the engine's words.
//!
//! Invariant: of an answer only its code and a bounded part of its text get into an error, and
//! not the text of one about a signature: that quotes the signed request.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use dayfly_backend_sdk::{Error, ErrorKind, Retry};

const TEXT_MAX: usize = 600;
/// How AWS says that a policy of the caller's own forbids it, as opposed to allowing nothing.
const EXPLICIT_DENY: &str = "explicit deny in an identity-based policy";

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// AWS answered with an error.
    #[error("AWS answered {status} {code}{text}")]
    Answered { status: u16, code: String, text: String },
    /// There is no room for another name.
    #[error("the deny belt is full: attach another policy and add it to `deny_policies`")]
    BeltFull,
    /// What is written in a policy would deny nothing.
    #[error("no policy of the deny belt is attached to {0}")]
    BeltLoose(String),
    /// We would overwrite somebody's policy.
    #[error("the policy {0} has a document that is no deny belt of Dayfly")]
    BeltStrange(String),
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// Our key is another account's.
    #[error("our key is of the account {0}, which is not `account_id`")]
    Elsewhere(String),
    /// The lease is longer than a session may be.
    #[error("a session of {asked} s was asked for, and {most} are allowed: see `duration_max_s`")]
    Long { asked: i64, most: i64 },
    /// It answered with something that it never says.
    #[error("AWS's answer has no {0}")]
    Strange(&'static str),
    /// It was done, and what should be gone is still there.
    #[error("{0}")]
    Survived(&'static str),
    /// The web identity's token cannot be read.
    #[error("the token file cannot be read: {0}")]
    Token(String),
    /// Sent, and nobody knows what became of it.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl Failure {
    /// In the engine's words; `doing` says what failed.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        let (kind, retry) = self.class();
        Error::new(kind, doing).with_retry(retry).with_source(self)
    }

    fn class(&self) -> (ErrorKind, Retry) {
        match self {
            Self::Answered { status, code, .. } => class(*status, code),
            Self::BeltFull | Self::BeltLoose(_) => (ErrorKind::Dependent, Retry::Permanent),
            Self::BeltStrange(_) => (ErrorKind::Conflict, Retry::Permanent),
            Self::Elsewhere(_) => (ErrorKind::Denied, Retry::Permanent),
            Self::Long { .. } => (ErrorKind::Invalid, Retry::Permanent),
            Self::Connect(_) | Self::Token(_) => (ErrorKind::Unavailable, Retry::Temporary),
            Self::Strange(_) | Self::Unknown(_) => (ErrorKind::UnknownOutcome, Retry::Temporary),
            Self::Survived(_) => (ErrorKind::Dependent, Retry::Temporary),
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.class().0 == ErrorKind::NotFound
    }

    /// It cannot be deleted while other things hang on it.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::Answered { code, .. } if code.starts_with("DeleteConflict"))
    }

    /// AWS knows no such key (any more), or it has expired.
    pub(crate) fn is_unknown_key(&self) -> bool {
        const CODES: [&str; 4] = [
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "ExpiredToken",
            "ExpiredTokenException",
        ];
        matches!(self, Self::Answered { code, .. } if CODES.contains(&code.as_str()))
    }

    /// The caller may not: because nothing allows it, or because something forbids it.
    pub(crate) fn is_denied(&self) -> bool {
        self.class().0 == ErrorKind::Denied
    }

    /// Something of the caller's own forbids it.
    pub(crate) fn is_explicitly_denied(&self) -> bool {
        self.is_denied()
            && matches!(self, Self::Answered { text, .. } if text.contains(EXPLICIT_DENY))
    }
}

fn class(status: u16, code: &str) -> (ErrorKind, Retry) {
    // IAM's codes as they stand in answers, with and without the ending.
    match code.strip_suffix("Exception").unwrap_or(code) {
        "EntityAlreadyExists" => (ErrorKind::Conflict, Retry::Permanent),
        "NoSuchEntity" => (ErrorKind::NotFound, Retry::Permanent),
        "DeleteConflict" => (ErrorKind::Dependent, Retry::Temporary),
        // Refused before anything happened.
        "ConcurrentModification"
        | "EntityTemporarilyUnmodifiable"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottledRequest"
        | "TooManyRequests" => (ErrorKind::Unavailable, Retry::Temporary),
        // A quota of the account.
        "LimitExceeded" => (ErrorKind::Unavailable, Retry::Permanent),
        "AccessDenied"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "RegionDisabled"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClient" => (ErrorKind::Denied, Retry::Permanent),
        _ if status >= 500 => (ErrorKind::UnknownOutcome, Retry::Temporary),
        _ if status == 401 || status == 403 => (ErrorKind::Denied, Retry::Permanent),
        _ => (ErrorKind::Invalid, Retry::Permanent),
    }
}

impl<E> From<SdkError<E>> for Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        match &error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = tidy(answer.err().code().unwrap_or("without a code"));
                let text = answer.err().message().filter(|_| !code.contains("Signature"));
                let text = text.map(|text| format!(": {}", tidy(text))).unwrap_or_default();
                Self::Answered { status, code, text }
            }
            SdkError::ConstructionFailure(_) => Self::Connect(chain(&error)),
            SdkError::DispatchFailure(_) if is_unsent(&error) => Self::Connect(chain(&error)),
            SdkError::DispatchFailure(_)
            | SdkError::TimeoutError(_)
            | SdkError::ResponseError(_)
            | _ => Self::Unknown(chain(&error)),
        }
    }
}

/// Whether it failed before there was a connection, or anything to sign with. The SDK itself
/// has one word for this and for an answer that was lost.
fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    type Hyper = hyper_util::client::legacy::Error;
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        error.is::<CredentialsError>()
            || error.downcast_ref::<Hyper>().is_some_and(Hyper::is_connect)
    })
}

fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let texts = std::iter::successors(error.source(), |&error| error.source());
    tidy(&texts.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_classes() {
        for (status, code, kind) in [
            (409, "EntityAlreadyExists", ErrorKind::Conflict),
            (409, "EntityAlreadyExistsException", ErrorKind::Conflict),
            (404, "NoSuchEntity", ErrorKind::NotFound),
            (400, "Throttling", ErrorKind::Unavailable),
            (400, "ThrottlingException", ErrorKind::Unavailable),
            (403, "AccessDenied", ErrorKind::Denied),
            (403, "without a code", ErrorKind::Denied),
            (500, "ServiceFailure", ErrorKind::UnknownOutcome),
            (400, "PackedPolicyTooLarge", ErrorKind::Invalid),
            (400, "MalformedPolicyDocument", ErrorKind::Invalid),
        ] {
            assert_eq!(class(status, code).0, kind, "{code}");
        }
    }

    #[test]
    fn an_explicit_deny_is_no_missing_right() {
        let says = |text: &str| Failure::Answered {
            status: 403,
            code: "AccessDenied".to_owned(),
            text: text.to_owned(),
        };
        let may_not = "because no identity-based policy allows the iam:ListUsers action";
        assert!(!says(may_not).is_explicitly_denied());
        assert!(!says("with an explicit deny in a session policy").is_explicitly_denied());
        let forbidden = says("with an explicit deny in an identity-based policy");
        assert!(forbidden.is_explicitly_denied() && forbidden.is_denied());
    }
}

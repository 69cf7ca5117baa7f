//! Why a token was refused.
//!
//! Invariant: a rejection never holds text from the token, so that it may be logged; the
//! client is told nothing of it.

/// Why a token did not become a principal. For the audit log: the client sees one constant
/// text whatever the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// The account is none of those that are trusted.
    #[error("the account is not trusted")]
    AccountRefused,
    /// The header's algorithm is not the one of the key.
    #[error("the algorithm is not the one of the key")]
    AlgorithmMismatch,
    /// `none`, a symmetric or unknown algorithm, or one that the issuer does not use.
    #[error("the algorithm is not accepted")]
    AlgorithmRefused,
    /// No `kid`, and the issuer has several keys.
    #[error("the token names no key and the issuer has several")]
    AmbiguousKey,
    /// The answer of STS or of a cluster is not one that an identity is taken from.
    #[error("the answer of whoever knows the caller is refused: {why}")]
    AnswerRefused {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The signature does not hold.
    #[error("the signature does not hold")]
    BadSignature,
    /// An identity of a kind that is not accepted: the root of an account of AWS, say, or what is
    /// no service account of a cluster.
    #[error("this kind of caller is not accepted")]
    CallerRefused,
    /// A client certificate is not an X.509-SVID, or its chain does not hold.
    #[error("the certificate is refused: {why}")]
    Certificate {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A claim is not of the form that the issuer's platform gives it.
    #[error("the claim `{claim}` is not of the form that its platform gives it")]
    ClaimMalformed {
        /// Which; from the preset, not from the token.
        claim: &'static str,
    },
    /// A claim is missing that every token of the issuer's platform has.
    #[error("the claim `{claim}` is missing")]
    ClaimMissing {
        /// Which; from the preset, not from the token.
        claim: &'static str,
    },
    /// The cluster cannot be asked; not the caller's fault.
    #[error("the cluster is unavailable")]
    ClusterUnavailable,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// A signed request goes elsewhere than to an address of STS that may be asked.
    #[error("the request is for another host")]
    HostRefused,
    /// `iat` is in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// The issuer's keys cannot be had; not the caller's fault.
    #[error("the issuer's keys are unavailable")]
    KeysUnavailable,
    /// Not a token as we read them.
    #[error("the token is malformed: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Several audiences, ours among them, from an issuer that is not allowed to.
    #[error("the token has several audiences")]
    ManyAudiences,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A proof of possession does not hold.
    #[error("the proof is refused: {why}")]
    Proof {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The cluster says that the token is not good.
    #[error("the cluster does not accept the token")]
    ReviewRefused,
    /// STS cannot be asked; not the caller's fault.
    #[error("STS is unavailable")]
    StsUnavailable,
    /// The subject is longer than 2048 bytes, or has a control character: nobody could disable it.
    #[error("the subject is longer than 2048 bytes or has a control character")]
    SubjectRefused,
    /// `exp` is before `iat`.
    #[error("the token expires before it was issued")]
    TimesOutOfOrder,
    /// It lives longer, or is older, than the issuer's tokens may.
    #[error("the token lives too long")]
    TooLongLived,
    /// More than 16 KiB, or more than 8 as a signed request.
    #[error("the token is too large")]
    TooLarge,
    /// It falls into a trap of its platform that the configuration does not allow.
    #[error("the token falls into the trap `{trap}`")]
    Trapped {
        /// Which; from the preset.
        trap: &'static str,
    },
    /// `iss` is none of the configured issuers.
    #[error("the issuer is unknown")]
    UnknownIssuer,
    /// The issuer has no such key.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// It is an SVID of a trust domain that is not configured.
    #[error("the trust domain is unknown")]
    UnknownTrustDomain,
    /// Our audience is not in it.
    #[error("the audience is another")]
    WrongAudience,
    /// `typ` is not one that the issuer's tokens have.
    #[error("the token is of another type")]
    WrongType,
}

impl Rejection {
    /// A stable name, for the audit log and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::AccountRefused => "account_refused",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::AlgorithmRefused => "algorithm_refused",
            Self::AmbiguousKey => "ambiguous_key",
            Self::AnswerRefused { .. } => "answer_refused",
            Self::BadSignature => "bad_signature",
            Self::CallerRefused => "caller_refused",
            Self::Certificate { .. } => "certificate",
            Self::ClaimMalformed { .. } => "claim_malformed",
            Self::ClaimMissing { .. } => "claim_missing",
            Self::ClusterUnavailable => "cluster_unavailable",
            Self::Expired => "expired",
            Self::HostRefused => "host_refused",
            Self::IssuedInFuture => "issued_in_future",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Malformed { .. } => "malformed",
            Self::ManyAudiences => "many_audiences",
            Self::NotYetValid => "not_yet_valid",
            Self::Proof { .. } => "invalid_proof",
            Self::ReviewRefused => "review_refused",
            Self::StsUnavailable => "sts_unavailable",
            Self::SubjectRefused => "subject_refused",
            Self::TimesOutOfOrder => "times_out_of_order",
            Self::TooLongLived => "too_long_lived",
            Self::TooLarge => "too_large",
            Self::Trapped { .. } => "trapped",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::WrongAudience => "wrong_audience",
            Self::WrongType => "wrong_type",
        }
    }

    /// What it is about, for the audit log: a claim or a trap of the issuer's preset, or what is
    /// wrong with a certificate, with a proof or with an answer about the caller.
    pub fn about(self) -> Option<&'static str> {
        match self {
            Self::ClaimMalformed { claim } | Self::ClaimMissing { claim } => Some(claim),
            Self::AnswerRefused { why } | Self::Certificate { why } | Self::Proof { why } => {
                Some(why)
            }
            Self::Trapped { trap } => Some(trap),
            Self::AccountRefused
            | Self::AlgorithmMismatch
            | Self::AlgorithmRefused
            | Self::AmbiguousKey
            | Self::BadSignature
            | Self::CallerRefused
            | Self::ClusterUnavailable
            | Self::Expired
            | Self::HostRefused
            | Self::IssuedInFuture
            | Self::KeysUnavailable
            | Self::Malformed { .. }
            | Self::ManyAudiences
            | Self::NotYetValid
            | Self::ReviewRefused
            | Self::StsUnavailable
            | Self::SubjectRefused
            | Self::TimesOutOfOrder
            | Self::TooLongLived
            | Self::TooLarge
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::UnknownTrustDomain
            | Self::WrongAudience
            | Self::WrongType => None,
        }
    }

    /// Whether the caller may be right and we could not tell: 503, not 401.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::ClusterUnavailable | Self::KeysUnavailable | Self::StsUnavailable)
    }

    pub(crate) fn certificate(why: &'static str) -> Self {
        Self::Certificate { why }
    }

    pub(crate) fn malformed(why: &'static str) -> Self {
        Self::Malformed { why }
    }

    pub(crate) fn proof(why: &'static str) -> Self {
        Self::Proof { why }
    }
}

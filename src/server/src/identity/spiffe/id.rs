//! A SPIFFE ID: `spiffe://`, a trust domain, a path.
//!
//! Invariant: an ID has one spelling. What parses is kept as it came and nothing is ever
//! normalised, so two IDs are the same workload if and only if they are the same bytes.

use std::fmt;

/// The longest ID, in bytes (SPIFFE-ID, section 2.3).
pub const SPIFFE_ID_LEN_MAX: usize = 2_048;
const TRUST_DOMAIN_LEN_MAX: usize = 255;
/// The specification calls the scheme case-insensitive, and two spellings of one workload are
/// one too many: as its reference library does, we take the lower case alone.
const SCHEME: &str = "spiffe://";

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// `.` or `..`: a reader that resolves them would see another workload.
    #[error("a segment of the path is `.` or `..`")]
    DotSegment,
    /// Two slashes, or one at the end.
    #[error("a segment of the path is empty")]
    EmptySegment,
    /// Not of a-z, A-Z, 0-9, `.`, `_` and `-`; so no query, fragment or percent-encoding.
    #[error("the path has a character that no path has")]
    PathCharacter,
    /// Not `spiffe://`.
    #[error("it does not begin with `spiffe://`")]
    Scheme,
    /// Longer than 2048 bytes.
    #[error("it is longer than {SPIFFE_ID_LEN_MAX} bytes")]
    TooLong,
    /// Not of a-z, 0-9, `.`, `_` and `-`; so no port, user or upper case.
    #[error("the trust domain has a character that no trust domain has")]
    TrustDomainCharacter,
    /// Empty, or longer than 255 bytes.
    #[error("the trust domain is not 1 to {TRUST_DOMAIN_LEN_MAX} bytes long")]
    TrustDomainLen,
}

/// The name of a workload, or of a whole trust domain when it has no path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    trust_domain: String,
    segments: Vec<String>,
}

impl SpiffeId {
    /// Reads an ID to the letter of the specification.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_LEN_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (trust_domain, path) = match rest.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (rest, None),
        };
        check_trust_domain(trust_domain)?;
        let segments = path.map(segments).transpose()?.unwrap_or_default();
        Ok(Self { text: text.to_owned(), trust_domain: trust_domain.to_owned(), segments })
    }

    /// The ID as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The path, cut at its slashes; empty for the ID of a trust domain itself.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `name` can be a trust domain.
pub(crate) fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if !name.bytes().all(legal) {
        return Err(SpiffeIdError::TrustDomainCharacter);
    }
    if name.is_empty() || name.len() > TRUST_DOMAIN_LEN_MAX {
        return Err(SpiffeIdError::TrustDomainLen);
    }
    Ok(())
}

fn segments(path: &str) -> Result<Vec<String>, SpiffeIdError> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let read = path.split('/').map(|segment| match segment {
        "" => Err(SpiffeIdError::EmptySegment),
        "." | ".." => Err(SpiffeIdError::DotSegment),
        _ if !segment.bytes().all(legal) => Err(SpiffeIdError::PathCharacter),
        _ => Ok(segment.to_owned()),
    });
    read.collect()
}

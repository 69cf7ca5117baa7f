//! The name by which a backend finds a credential again.
//!
//! Invariant: a handle is `[a-z0-9_]`, within its backend's length, and checked before any
//! statement holds it. PostgreSQL cuts names at 63 bytes without an error, so that `DROP
//! ROLE IF EXISTS` with a longer name drops another role.

use std::fmt;

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use uuid::Uuid;

/// RFC 4648 base32 in lower case without padding: every character is legal in a handle.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

const HANDLE_LEN_MAX: usize = 63;
const PREFIX_LEN_MAX: usize = 16;

/// A name or prefix that is not a handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Something other than `[a-z0-9_]`, or a digit first.
    #[error("`{0}` has characters other than a-z, 0-9 and _, or does not begin with a letter")]
    Characters(String),
    /// Empty, or longer than the backend can keep.
    #[error("`{name}` is {length} bytes long, and 1 to {length_max} fit")]
    Length {
        /// What was given.
        name: String,
        /// Its length in bytes.
        length: usize,
        /// The most that fits.
        length_max: usize,
    },
}

/// What a backend needs to find and revoke a credential again: a user name, a key id. Chosen
/// by us, before the backend is called. Not a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

impl Handle {
    /// Checks characters and length (at most 63 bytes).
    pub fn parse(name: impl Into<String>) -> Result<Self, HandleError> {
        let name = name.into();
        checked(&name, HANDLE_LEN_MAX)?;
        Ok(Self(name))
    }

    /// The handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all handles of one installation at one backend begin with. Whatever bears it at the
/// backend is taken to be ours, so two installations never share one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HandlePrefix(String);

impl HandlePrefix {
    /// Checks characters and length (at most 16 bytes).
    pub fn parse(prefix: impl Into<String>) -> Result<Self, HandleError> {
        let prefix = prefix.into();
        checked(&prefix, PREFIX_LEN_MAX)?;
        Ok(Self(prefix))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The handle of a lease: prefix, then base32 of the lease's id (26 characters). A
    /// function of the id alone, so that it is known before the backend is called and found
    /// again after a crash.
    pub fn handle(&self, lease: Uuid, length_max: usize) -> Result<Handle, HandleError> {
        let name = format!("{}{}", self.0, BASE32.encode(lease.as_bytes()));
        checked(&name, length_max.min(HANDLE_LEN_MAX))?;
        Ok(Handle(name))
    }

    /// The lease whose handle this is, if it is one of ours.
    pub fn lease_of(&self, handle: &str) -> Option<Uuid> {
        let bytes = BASE32.decode(handle.strip_prefix(&self.0)?.as_bytes()).ok()?;
        Uuid::from_slice(&bytes).ok()
    }
}

impl fmt::Debug for HandlePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn checked(name: &str, length_max: usize) -> Result<(), HandleError> {
    if name.is_empty() || name.len() > length_max {
        let length = name.len();
        return Err(HandleError::Length { name: name.to_owned(), length, length_max });
    }
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if !name.bytes().all(legal) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(HandleError::Characters(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_found_again_from_its_handle() {
        let prefix = HandlePrefix::parse("dayfly_").unwrap();
        let lease = Uuid::from_u128(0x0192_f0c1_7e2a_7000_8000_0000_0000_0042);
        let handle = prefix.handle(lease, 63).unwrap();
        assert_eq!(handle.as_str().len(), 7 + 26);
        assert_eq!(prefix.lease_of(handle.as_str()), Some(lease));
        assert_eq!(prefix.lease_of("other_aaaa"), None);
    }

    #[test]
    fn a_handle_that_would_be_cut_is_an_error() {
        let prefix = HandlePrefix::parse("dayfly_").unwrap();
        assert!(matches!(prefix.handle(Uuid::nil(), 32), Err(HandleError::Length { .. })));
        assert!(Handle::parse("a".repeat(64)).is_err());
    }

    #[test]
    fn characters_outside_the_set_are_refused() {
        for bad in ["", "A", "a b", "a\"b", "a-b", "é", "a\0", "1a", "_a", "a;--"] {
            assert!(Handle::parse(bad).is_err(), "{bad:?}");
        }
    }
}

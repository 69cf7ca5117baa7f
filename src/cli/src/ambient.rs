//! The environment that we were started with, read once.
//!
//! Invariant: its `Debug` shows names alone, since values may be secrets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
};

/// A snapshot of the process's environment variables.
#[derive(Clone, Default)]
pub(crate) struct Ambient(BTreeMap<OsString, OsString>);

impl Ambient {
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// The value of `name`. Empty is as good as unset: CI systems write `X=""` for what is
    /// not configured.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The value of `name` if it is set and UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(OsStr::to_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Ambient {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self::new(pairs.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_unset() {
        let ambient = Ambient::from([("A", ""), ("B", "b")]);
        assert_eq!(ambient.text("A"), None);
        assert_eq!(ambient.text("B"), Some("b"));
        assert_eq!(ambient.text("C"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Ambient::from([("DAYFLY_ID_TOKEN", "hunter2")]));
        assert!(shown.contains("DAYFLY_ID_TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}

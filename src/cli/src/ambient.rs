//! The environment that we were started with, read once, and what configuration files say where
//! it is silent.
//!
//! Invariant: its `Debug` shows names alone, since values may be secrets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
};

/// A snapshot of the process's environment variables.
#[derive(Clone, Default)]
pub(crate) struct Ambient {
    variables: BTreeMap<OsString, OsString>,
    /// What stands for variables that are not set. The command does not inherit it.
    settings: BTreeMap<&'static str, OsString>,
}

impl Ambient {
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect(), settings: BTreeMap::new() }
    }

    /// The same with `settings` for what the environment does not say.
    pub(crate) fn with_settings(
        self,
        settings: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Self {
        Self { settings: settings.into_iter().collect(), ..self }
    }

    /// The value of `name`. Empty is as good as unset: CI systems write `X=""` for what is
    /// not configured.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        let set = self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty());
        set.or_else(|| self.settings.get(name)).map(OsString::as_os_str)
    }

    /// The value of `name` if it is set and UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(OsStr::to_str)
    }

    /// What the process itself was given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
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
    fn a_setting_stands_for_what_is_not_set_and_is_no_variable() {
        let ambient = Ambient::from([("A", "a"), ("B", "")]);
        let ambient = ambient.with_settings([("A", "file".into()), ("B", "file".into())]);
        assert_eq!((ambient.text("A"), ambient.text("B")), (Some("a"), Some("file")));
        assert!(ambient.iter().all(|(_, value)| value != "file"));
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Ambient::from([("DAYFLY_ID_TOKEN", "hunter2")]));
        assert!(shown.contains("DAYFLY_ID_TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}

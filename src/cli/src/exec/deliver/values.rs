//! The credentials as they are now.
//!
//! Invariant: they have neither `Debug` nor `Display`, and are wiped when they are replaced.

use std::collections::BTreeMap;

use dayfly_api::Credential;
use zeroize::Zeroizing;

/// What is the same for each credential of a role: the place that it is for.
const STABLE: &[&str] = &["database", "host", "port", "region", "vhost"];

/// The current credential of each role.
#[derive(Default)]
pub(super) struct Values(BTreeMap<String, Current>);

/// One credential.
pub(super) struct Current {
    fields: BTreeMap<String, Zeroizing<String>>,
    /// Which variable usually carries which field.
    environment: BTreeMap<String, String>,
}

impl From<Credential> for Current {
    fn from(credential: Credential) -> Self {
        let fields = credential.fields.into_iter();
        let fields = fields.map(|(name, value)| (name, Zeroizing::new(value))).collect();
        Self { fields, environment: credential.environment }
    }
}

impl Current {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.as_str())
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The fields that another credential of the role has other values of.
    pub(super) fn changing(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str).filter(|name| !is_stable(name))
    }

    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The names of its fields, for people.
    pub(super) fn names(&self) -> String {
        self.fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether `other` is the same credential.
    fn is_same(&self, other: &Self) -> bool {
        self.fields.iter().eq(other.fields.iter())
    }
}

/// Whether a field says where the credential is for, and not what it is.
pub(super) fn is_stable(field: &str) -> bool {
    STABLE.contains(&field)
}

impl Values {
    pub(super) fn of(&self, role: &str) -> Option<&Current> {
        self.0.get(role)
    }

    /// The same with the role's name.
    pub(super) fn entry(&self, role: &str) -> Option<(&str, &Current)> {
        self.0.get_key_value(role).map(|(role, current)| (role.as_str(), current))
    }

    /// Gives `role` another credential, and the one that it had back.
    pub(super) fn put(&mut self, role: &str, credential: Current) -> Option<Current> {
        self.0.insert(role.to_owned(), credential)
    }

    /// Whether `role` has another credential than `before`.
    pub(super) fn differs(&self, role: &str, before: Option<&Current>) -> bool {
        match (self.of(role), before) {
            (Some(now), Some(before)) => !now.is_same(before),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(password: &str) -> Current {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = BTreeMap::from([pair("host", "db"), pair("password", password)]);
        Credential { fields, environment: BTreeMap::new() }.into()
    }

    #[test]
    fn another_password_is_another_credential() {
        let mut values = Values::default();
        assert!(values.put("r", credential("one")).is_none());
        let before = values.put("r", credential("two"));
        assert!(values.differs("r", before.as_ref()));
        let before = values.put("r", credential("two"));
        assert!(!values.differs("r", before.as_ref()));
        assert_eq!(values.of("r").unwrap().changing().collect::<Vec<_>>(), ["password"]);
        assert_eq!(values.of("r").unwrap().names(), "host, password");
    }
}

//! A text that signs, or that speaks for us.
//!
//! Invariant: it is erased when it is dropped, and the only way to it is [`Secret::expose`].
//! What the process was started with stays in its environment; that nobody here can erase.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

/// A secret text: not cloned, not shown.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself. Every call is a place where it could leak.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// That it is erased, the compiler says.
    #[test]
    fn a_secret_is_erased_and_not_shown() {
        fn erased(_: &impl ZeroizeOnDrop) {}
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        erased(&secret.0);
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}

//! Which program it is, and what it can.
//!
//! Invariant: what passes [`ExecConfig::check`] can be used as it is.

use std::{path::PathBuf, time::Duration};

use dayfly_backend_sdk::{
    Capabilities, Error, ErrorKind, Expiry, HandleError, HandlePrefix, Secret,
};
use serde::Deserialize;

const ARGUMENTS_MAX: usize = 64;
const OUTPUT_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// A SHA-256 in hexadecimal digits.
const DIGEST_LEN: usize = 64;
/// A lease's part of a name.
const LEASE_LEN: usize = 26;

/// A program and what it declares of itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// The program, by its absolute path.
    pub command: PathBuf,
    /// Its SHA-256 in hexadecimal digits. A program that has changed is not run.
    pub sha256: String,
    /// Its arguments, the same at every call.
    #[serde(default)]
    pub args: Vec<String>,
    /// What it is given to sign in with at its system. Set from its own key in the
    /// configuration, never from here.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// What all handles begin with. Set from its own key as well.
    #[serde(skip)]
    pub prefix: String,
    /// The longest that one call may take, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// The most that it may say in one call, in bytes.
    #[serde(default = "default_output")]
    pub output_bytes_max: u32,
    /// How many of it run at a time.
    #[serde(default = "default_concurrency")]
    pub concurrency_max: u32,
    /// Whether its system ends credentials by itself; absent where it does not.
    #[serde(default)]
    pub native_expiry: Option<NativeExpiry>,
    /// What else it and its system can.
    #[serde(default = "default_can")]
    pub can: Vec<Can>,
    /// The shortest lifetime, in seconds.
    #[serde(default = "default_ttl_min")]
    pub ttl_min_s: u32,
    /// The longest name that its system keeps whole, in bytes.
    #[serde(default = "default_handle_len")]
    pub handle_len_max: usize,
}

/// What a program or its system can, besides minting and revoking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Can {
    /// The system itself refuses a create after the mint's deadline.
    DeadlineGuard,
    /// The program lists what exists under a prefix.
    List,
    /// The program moves the expiry of a credential.
    Renew,
    /// Its revocations end sessions that are open.
    SessionKill,
    /// The program says whether a credential is alive.
    Verify,
}

/// The system ends credentials by itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeExpiry {
    /// How much later than the lease's end, in seconds.
    pub slack_s: u32,
}

const fn default_timeout() -> u32 {
    10_000
}

const fn default_output() -> u32 {
    65_536
}

const fn default_concurrency() -> u32 {
    8
}

const fn default_ttl_min() -> u32 {
    1
}

const fn default_handle_len() -> usize {
    63
}

fn default_can() -> Vec<Can> {
    vec![Can::List, Can::Verify]
}

impl ExecConfig {
    /// Checks what the types leave open, and gives the prefix.
    pub fn check(&self) -> Result<HandlePrefix, ConfigError> {
        let bounds = [
            ("timeout_ms", self.timeout_ms, 10, 600_000),
            ("output_bytes_max", self.output_bytes_max, 256, OUTPUT_BYTES_MAX),
            ("concurrency_max", self.concurrency_max, 1, 256),
            ("ttl_min_s", self.ttl_min_s, 1, 86_400),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        if !self.command.is_absolute() {
            return Err(ConfigError::Relative(self.command.clone()));
        }
        let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if self.sha256.len() != DIGEST_LEN || !self.sha256.bytes().all(hexadecimal) {
            return Err(ConfigError::Digest(self.sha256.clone()));
        }
        if self.args.len() > ARGUMENTS_MAX || self.args.iter().any(|one| one.contains('\0')) {
            return Err(ConfigError::Arguments);
        }
        if self.handle_len_max < self.prefix.len() + LEASE_LEN {
            return Err(ConfigError::LongPrefix {
                prefix: self.prefix.clone(),
                most: self.handle_len_max,
            });
        }
        HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Capabilities {
            kind: "exec",
            expiry: self.native_expiry.map_or(Expiry::None, |native| Expiry::Native {
                slack: seconds(native.slack_s),
                life_min: Duration::ZERO,
            }),
            revoke: true,
            session_kill: self.can.contains(&Can::SessionKill),
            verify: self.can.contains(&Can::Verify),
            list: self.can.contains(&Can::List),
            renew: self.can.contains(&Can::Renew),
            deadline_guard: self.can.contains(&Can::DeadlineGuard),
            ttl_min: seconds(self.ttl_min_s),
            ttl_max: None,
            handle_len_max: self.handle_len_max,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too many arguments, or one with a zero byte.
    #[error("more than 64 arguments, or one with a zero byte")]
    Arguments,
    /// Not the digest of anything.
    #[error("`sha256` must be 64 digits, 0-9 and a-f, as `sha256sum` prints them, not `{0}`")]
    Digest(String),
    /// With the lease's 26 characters the name would be too long.
    #[error("the prefix `{prefix}` with a lease's 26 characters is longer than {most}")]
    LongPrefix {
        /// What was given.
        prefix: String,
        /// `handle_len_max`.
        most: usize,
    },
    /// Not a prefix.
    #[error("the prefix cannot be used")]
    Prefix(#[source] HandleError),
    /// A number outside its bounds.
    #[error("`{name}` is {value}, and {min} to {max} are allowed")]
    Range {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// It would be looked for in a search path that somebody else may set.
    #[error("`{}` is no absolute path", .0.display())]
    Relative(PathBuf),
    /// A template that is too long for a call.
    #[error("the template is {0} bytes long as JSON, and 16384 are the most")]
    Template(usize),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Invalid, "the configuration cannot be used").with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(more: &Value) -> Result<HandlePrefix, String> {
        let mut raw = json!({ "command": "/bin/plugin", "sha256": "ab".repeat(32) });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut config: ExecConfig =
            serde_json::from_value(raw).map_err(|error| error.to_string())?;
        "df_".clone_into(&mut config.prefix);
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn each_rule_has_its_fault() {
        assert!(checked(&json!({})).is_ok());
        for (more, text) in [
            (json!({ "command": "plugin" }), "`plugin` is no absolute path"),
            (json!({ "sha256": "AB".repeat(32) }), "must be 64 digits"),
            (json!({ "sha256": "ab" }), "must be 64 digits"),
            (json!({ "args": ["a\0b"] }), "zero byte"),
            (json!({ "args": vec!["a"; 65] }), "more than 64"),
            (json!({ "timeout_ms": 1 }), "`timeout_ms` is 1, and 10 to"),
            (json!({ "concurrency_max": 0 }), "`concurrency_max` is 0"),
            (json!({ "handle_len_max": 28 }), "longer than 28"),
            (json!({ "native_expiry": { "slack": 1 } }), "unknown field `slack`"),
            (json!({ "password": "x" }), "unknown field `password`"),
        ] {
            let error = checked(&more).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}

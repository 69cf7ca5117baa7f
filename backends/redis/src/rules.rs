//! What a credential may do: the template of a role, as ACL rules.
//!
//! Invariant: a rule of a template grants commands, keys or channels and nothing else, and no
//! template can grant what would let its holder make or change users.

use std::collections::BTreeSet;

use dayfly_backend_sdk::{Plan, Template};
use serde::Deserialize;
use serde_json::Value;

use crate::config::ConfigError;

const RULES_MAX: usize = 256;
const PATTERN_LEN_MAX: usize = 1_024;

/// What one of a role's credentials may do. Nothing that is not named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTemplate {
    /// Commands, in order: `+get`, `+@read`, `-@write`, `+client|setname`. Without any, none.
    pub commands: Vec<String>,
    /// Patterns of keys that may be read and written.
    pub keys: Vec<String>,
    /// Patterns of keys that may be read only (Redis 7, Valkey).
    pub read_keys: Vec<String>,
    /// Patterns of channels that may be published to and subscribed to.
    pub channels: Vec<String>,
    /// The database that the credential names.
    pub database: u16,
}

/// A rule that cannot be granted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a rule for commands.
    #[error("`{0}` is not `+command`, `-command`, `+@category` or `-@category`")]
    Command(String),
    /// It lets its holder make users or change the server.
    #[error("`{0}` is never granted: it lets its holder change users or the server itself")]
    Escalates(String),
    /// Not a pattern.
    #[error("the pattern `{0}` is empty, too long, or has a space or a control character")]
    Pattern(String),
    /// More than a user should have.
    #[error("{0} rules, and 256 are the most")]
    TooMany(usize),
}

/// Categories and commands that make users, load code, or change or stop the server. What
/// `+@all` brings of them is taken away again.
const NEVER: [&str; 21] = [
    "@admin",
    "@dangerous",
    "acl",
    "bgrewriteaof",
    "bgsave",
    "cluster",
    "config",
    "debug",
    "failover",
    "function",
    "migrate",
    "module",
    "monitor",
    "psync",
    "replicaof",
    "restore",
    "save",
    "shutdown",
    "slaveof",
    "swapdb",
    "sync",
];

/// A template, checked.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) rules: Vec<String>,
    pub(crate) database: u16,
}

impl RedisTemplate {
    /// Reads the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, ConfigError> {
        serde_json::from_value(raw.clone()).map_err(ConfigError::Template)
    }

    /// The template as the engine carries it. A user's name is all that its end needs.
    pub(crate) fn sealed(self) -> Result<Template, RuleError> {
        let recipe = Recipe { rules: self.rules()?, database: self.database };
        Ok(Template::new(Plan::default(), recipe))
    }

    fn rules(&self) -> Result<Vec<String>, RuleError> {
        let count =
            self.commands.len() + self.keys.len() + self.read_keys.len() + self.channels.len();
        if count > RULES_MAX {
            return Err(RuleError::TooMany(count));
        }
        let mut rules = Vec::new();
        let patterns = [("~", &self.keys), ("%R~", &self.read_keys), ("&", &self.channels)];
        for (sign, list) in patterns {
            for pattern in list {
                check_pattern(pattern)?;
                rules.push(format!("{sign}{pattern}"));
            }
        }
        for command in &self.commands {
            check_command(command)?;
            rules.push(command.clone());
        }
        // Last, since later rules win. Where a category says it, its commands need no mention.
        rules.extend(["-@admin", "-@dangerous", "-function"].map(str::to_owned));
        rules.extend(self.regranted());
        Ok(rules)
    }

    /// Single commands that were named after everything that the template itself takes away,
    /// and that a category has taken away with worse ones (`keys` and `sort` are in
    /// `@dangerous`).
    fn regranted(&self) -> BTreeSet<String> {
        let last = self.commands.iter().rev().take_while(|rule| rule.starts_with('+'));
        last.filter(|rule| !rule.starts_with("+@")).cloned().collect()
    }
}

fn check_command(rule: &str) -> Result<(), RuleError> {
    let bad = || RuleError::Command(rule.to_owned());
    let grants = rule.starts_with('+');
    let name = rule.strip_prefix(['+', '-']).ok_or_else(bad)?;
    let plain = name.strip_prefix('@').unwrap_or(name);
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_|.".contains(&c);
    if plain.is_empty() || !plain.bytes().all(legal) || plain.starts_with('|') {
        return Err(bad());
    }
    let whole = name.split('|').next().unwrap_or(name);
    if grants && NEVER.contains(&whole) {
        return Err(RuleError::Escalates(rule.to_owned()));
    }
    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), RuleError> {
    let legal = |c: char| !c.is_whitespace() && !c.is_control();
    if pattern.is_empty() || pattern.len() > PATTERN_LEN_MAX || !pattern.chars().all(legal) {
        return Err(RuleError::Pattern(pattern.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(raw: &Value) -> Result<Vec<String>, RuleError> {
        RedisTemplate::parse(raw).unwrap().rules()
    }

    #[test]
    fn a_template_is_rules_in_an_order_that_takes_away_last() {
        let raw = json!({
            "commands": ["+@read", "+keys"], "keys": ["app:*"], "read_keys": ["ref:*"],
            "channels": ["news"],
        });
        let expected = [
            "~app:*",
            "%R~ref:*",
            "&news",
            "+@read",
            "+keys",
            "-@admin",
            "-@dangerous",
            "-function",
            "+keys",
        ];
        assert_eq!(rules(&raw).unwrap(), expected);
    }

    /// What the template takes away stays away.
    #[test]
    fn only_what_nothing_takes_away_later_is_granted_again() {
        let raw = json!({ "commands": ["+keys", "+get", "-keys", "+sort"] });
        let given = rules(&raw).unwrap();
        assert_eq!(given.iter().filter(|rule| *rule == "+keys").count(), 1);
        assert_eq!(given.last().unwrap(), "+sort");
    }

    #[test]
    fn nothing_grants_users_or_the_server() {
        for rule in [
            "+acl",
            "+acl|setuser",
            "+@admin",
            "+@dangerous",
            "+config|set",
            "+module",
            "+debug",
            "+function|load",
            "+shutdown",
            "+replicaof",
            "+migrate",
        ] {
            let refused = rules(&json!({ "commands": [rule] }));
            assert_eq!(refused, Err(RuleError::Escalates(rule.into())), "{rule}");
        }
        assert!(rules(&json!({ "commands": ["+@all", "-acl", "-@admin"] })).is_ok());
    }

    /// A rule that is none of these would be one of the server's other words.
    #[test]
    fn no_other_word_of_the_server_gets_in() {
        for rule in [
            "allcommands",
            "allkeys",
            "nopass",
            "reset",
            "on",
            ">pw",
            "#00",
            "<pw",
            "!00",
            "~*",
            "&*",
            "(~a +get)",
            "+",
            "-",
            "+@",
            "+get set",
            "+get\nset",
            "+GET",
            "+|get",
            "",
        ] {
            let refused = rules(&json!({ "commands": [rule] }));
            assert_eq!(refused, Err(RuleError::Command(rule.into())), "{rule:?}");
        }
        for pattern in ["", "a b", "a\tb", "a\nb", "a\0b", "a\u{a0}b"] {
            for list in ["keys", "read_keys", "channels"] {
                let refused = rules(&json!({ list: [pattern] }));
                assert_eq!(refused, Err(RuleError::Pattern(pattern.into())), "{pattern:?}");
            }
        }
        let long = "a".repeat(PATTERN_LEN_MAX + 1);
        assert!(rules(&json!({ "keys": [long] })).is_err());
        let many = vec!["a"; RULES_MAX + 1];
        assert_eq!(rules(&json!({ "keys": many })), Err(RuleError::TooMany(RULES_MAX + 1)));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(RedisTemplate::parse(&json!({ "command": ["+get"] })).is_err());
    }
}

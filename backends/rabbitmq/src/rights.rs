//! What a credential may do: the template of a role.
//!
//! Invariant: a pattern matches whole names and is no regular expression: RabbitMQ's own match
//! any part of a name, so that `orders` there would reach `all-orders-of-others`.

use dayfly_backend_sdk::{Plan, Template};
use serde::Deserialize;
use serde_json::Value;

const PATTERNS_MAX: usize = 64;
const PATTERN_LEN_MAX: usize = 255;
const TOPICS_MAX: usize = 16;
/// Tags that let their bearer see and not change. The others make administrators.
const TAGS: [&str; 2] = ["management", "monitoring"];

/// What one of a role's credentials may do. Nothing that is not named here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqTemplate {
    /// The virtual host.
    #[serde(default = "default_vhost")]
    pub vhost: String,
    /// Queues and exchanges that may be made and deleted. `*` stands for any characters.
    #[serde(default)]
    pub configure: Vec<String>,
    /// Exchanges that may be published to, and queues that may be bound.
    #[serde(default)]
    pub write: Vec<String>,
    /// Queues that may be read, and exchanges that may be bound to.
    #[serde(default)]
    pub read: Vec<String>,
    /// What of a topic exchange; all that `write` and `read` give where it is not named.
    #[serde(default)]
    pub topics: Vec<Topic>,
    /// Connections at once; the server's own bound when absent.
    #[serde(default)]
    pub connection_limit: Option<u32>,
    /// `management`, `monitoring`: what of the management interface may be seen.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Routing keys of a topic exchange.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The exchange.
    pub exchange: String,
    /// Routing keys that may be published with.
    #[serde(default)]
    pub write: Vec<String>,
    /// Routing keys that may be bound with.
    #[serde(default)]
    pub read: Vec<String>,
}

fn default_vhost() -> String {
    "/".to_owned()
}

/// A template that cannot be granted.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// Not the name of a virtual host or an exchange.
    #[error("the name `{0}` is empty, too long, or has a control character")]
    Name(String),
    /// Not a pattern.
    #[error("the pattern `{0}` is empty, longer than 255 bytes, or has a control character")]
    Pattern(String),
    /// It does not have the form of a template.
    #[error("it cannot be read")]
    Shape(#[source] serde_json::Error),
    /// It would make an administrator.
    #[error("the tag `{0}` is never given: only `management` and `monitoring` are")]
    Tag(String),
    /// More than a user should have.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
    },
}

/// A template, checked: what the management API is told.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) vhost: String,
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
    /// Exchange, write, read.
    pub(crate) topics: Vec<(String, String, String)>,
    pub(crate) connection_limit: Option<u32>,
    pub(crate) tags: String,
}

impl RabbitmqTemplate {
    /// Reads the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, RightsError> {
        serde_json::from_value(raw.clone()).map_err(RightsError::Shape)
    }

    /// The template as the engine carries it. A name is all that a user's end needs.
    pub(crate) fn sealed(self) -> Result<Template, RightsError> {
        Ok(Template::new(Plan::default(), self.recipe()?))
    }

    fn recipe(self) -> Result<Recipe, RightsError> {
        if let Some(tag) = self.tags.iter().find(|tag| !TAGS.contains(&tag.as_str())) {
            return Err(RightsError::Tag(tag.clone()));
        }
        if self.topics.len() > TOPICS_MAX {
            return Err(RightsError::TooMany { what: "topics", most: TOPICS_MAX });
        }
        let topic = |topic: &Topic| {
            Ok((name(&topic.exchange)?, expression(&topic.write)?, expression(&topic.read)?))
        };
        Ok(Recipe {
            vhost: name(&self.vhost)?,
            configure: expression(&self.configure)?,
            write: expression(&self.write)?,
            read: expression(&self.read)?,
            topics: self.topics.iter().map(topic).collect::<Result<_, _>>()?,
            connection_limit: self.connection_limit,
            tags: self.tags.join(","),
        })
    }
}

fn name(text: &str) -> Result<String, RightsError> {
    if text.is_empty() || text.len() > PATTERN_LEN_MAX || text.contains(char::is_control) {
        return Err(RightsError::Name(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// A regular expression that matches the whole of one of `patterns`, and with none nothing.
fn expression(patterns: &[String]) -> Result<String, RightsError> {
    if patterns.len() > PATTERNS_MAX {
        return Err(RightsError::TooMany { what: "patterns", most: PATTERNS_MAX });
    }
    let each = patterns.iter().map(|one| escaped(one)).collect::<Result<Vec<_>, _>>()?;
    if each.is_empty() {
        return Ok("^$".to_owned());
    }
    // `\z`: a `$` would let a line's end through after the name.
    Ok(format!("\\A(?:{})\\z", each.join("|")))
}

fn escaped(pattern: &str) -> Result<String, RightsError> {
    let bad =
        pattern.is_empty() || pattern.len() > PATTERN_LEN_MAX || pattern.contains(char::is_control);
    if bad {
        return Err(RightsError::Pattern(pattern.to_owned()));
    }
    let mut out = String::new();
    for c in pattern.chars() {
        match c {
            '*' => out.push_str(".*"),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recipe(raw: &Value) -> Result<Recipe, String> {
        let template = RabbitmqTemplate::parse(raw).map_err(|error| error.to_string())?;
        template.recipe().map_err(|error| error.to_string())
    }

    #[test]
    fn a_pattern_is_the_whole_name_and_no_expression() {
        let raw = json!({ "write": ["orders.*", "a)|(.*"], "read": ["q"] });
        let recipe = recipe(&raw).unwrap();
        assert_eq!(recipe.write, r"\A(?:orders\..*|a\)\|\(\..*)\z");
        assert_eq!(recipe.read, r"\A(?:q)\z");
        assert_eq!(recipe.configure, "^$");
    }

    #[test]
    fn each_rule_has_its_fault() {
        for (raw, text) in [
            (json!({ "tags": ["administrator"] }), "is never given"),
            (json!({ "tags": ["policymaker"] }), "is never given"),
            (json!({ "read": [""] }), "is empty"),
            (json!({ "read": ["a\nb"] }), "control character"),
            (json!({ "read": vec!["a"; 65] }), "more than 64 patterns"),
            (json!({ "vhost": "" }), "is empty"),
            (json!({ "topics": [{ "exchange": "" }] }), "is empty"),
            (json!({ "vhosts": "/" }), "cannot be read"),
        ] {
            let error = recipe(&raw).unwrap_err();
            assert!(error.contains(text), "{raw}: {error}");
        }
    }
}

//! `[[role]]`: what can be asked for.
//!
//! Invariant: `ttl ≤ ttl_max ≤ 30 days`, and the backend is one of the configuration.

use std::{collections::BTreeMap, time::Duration};

use dayfly_lease::quota::Quota;
use serde_json::Value as Json;

use super::{
    fault::{Fault, Wrong},
    quotas,
    section::{Origin, Reading, Section, duration, expected, flag, name, text},
    tree::{Item, Value},
};

/// No lease is longer, whatever a role says: what is needed for longer is not ephemeral.
pub(super) const TTL_LONGEST: Duration = Duration::from_hours(30 * 24);

const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 256;

/// `[[role]]`.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// What is asked for by.
    pub name: String,
    /// The name of its backend.
    pub backend: String,
    /// Who answers for it.
    pub owner: String,
    /// The lifetime when none is asked for.
    pub ttl: Duration,
    /// The longest lifetime, renewals included.
    pub ttl_max: Duration,
    /// Whether a lease of it may be renewed.
    pub renewable: bool,
    /// What policy can speak of: `environment`, `risk`, …
    pub labels: BTreeMap<String, String>,
    /// `quotas`: how many leases of it, and how fast.
    pub quotas: Vec<Quota>,
    /// What to mint, in the backend's own terms; an object.
    pub template: Json,
    origin: Origin,
}

impl RoleConfig {
    /// A fault of this role at `key`, a dotted path within its section (`template.grants`).
    pub fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        self.origin.fault(key, message)
    }
}

/// Reads a role of a configuration with these backends.
pub(super) fn read(section: &Section<'_>, backends: &[&str]) -> Option<RoleConfig> {
    let range = Duration::from_secs(1)..=TTL_LONGEST;
    let name = section.required("name", name);
    let backend = section.required("backend", text);
    let owner = section.required("owner", line);
    let ttl = section.required("ttl", duration(range.clone()));
    let ttl_max = section.required("ttl_max", duration(range));
    let renewable = section.optional("renewable", flag).unwrap_or(true);
    let labels = section.table("labels", labels).unwrap_or_default();
    let quotas = section.table("quotas", quotas::of_role).unwrap_or_default();
    let template = section.optional("template", template);
    if let (Some(ttl), Some(ttl_max)) = (ttl, ttl_max)
        && ttl > ttl_max
    {
        section.fault("ttl", "must not be longer than `ttl_max`");
    }
    if let Some(backend) = &backend
        && !backends.contains(&backend.as_str())
    {
        let unknown = Wrong::unknown("backend", backend, backends);
        let message = format!("no backend has the name `{backend}`");
        section.fault_absent("backend", Wrong { message, ..unknown });
    }
    Some(RoleConfig {
        name: name?,
        backend: backend?,
        owner: owner?,
        ttl: ttl?,
        ttl_max: ttl_max?,
        renewable,
        labels,
        quotas,
        template: template.unwrap_or_else(|| Json::Object(serde_json::Map::new())),
        origin: section.origin(),
    })
}

/// Text on one line: it goes to logs and tables.
fn line(item: &Item) -> Reading<String> {
    let line = text(item)?;
    if line.len() > LABEL_BYTES_MAX || line.chars().any(char::is_control) {
        return Err(format!("must be one line of at most {LABEL_BYTES_MAX} bytes").into());
    }
    Ok(line)
}

fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let table = section.rest();
    if table.0.len() > LABELS_MAX {
        section.fault("", format!("at most {LABELS_MAX} labels"));
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut labels = BTreeMap::new();
    for (key, entry) in table.0 {
        let begins = key.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || key.len() > 63 || !key.chars().all(legal) {
            let rule = "a label is 1 to 63 of a-z, 0-9 and _, and begins with a letter";
            let plain = key.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
            let plausible = plain != key && plain.chars().all(legal);
            let wrong = Wrong::from(rule);
            section.fault(&key, if plausible { wrong.meant(plain) } else { wrong });
        }
        match line(&entry.item) {
            Ok(value) => drop(labels.insert(key, value)),
            Err(wrong) => section.fault(&key, wrong),
        }
    }
    labels
}

fn template(item: &Item) -> Reading<Json> {
    Some(json(&item.value)).filter(Json::is_object).ok_or_else(|| expected("a table", item))
}

fn json(value: &Value) -> Json {
    match value {
        Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Flag(flag) => Json::Bool(*flag),
        // JSON has no infinity; a backend refuses `null` where it wants a number.
        Value::Float(float) => Json::from(*float),
        Value::Integer(integer) => match i64::try_from(*integer) {
            Ok(integer) => Json::from(integer),
            Err(_) => Json::Null,
        },
        Value::Table(table) => {
            table.0.iter().map(|(key, entry)| (key.clone(), json(&entry.item.value))).collect()
        }
        Value::Text(text) | Value::Time(text) => Json::String(text.clone()),
    }
}

//! A role's template: values for the requests, and what else a workload is given.
//!
//! Invariant: it gives every value that the requests ask for and no other, and each fits where it
//! stands, so that a mint does not fail for it.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_backend_sdk::{Plan, Secret, Template, Timestamp, is_variable};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::{check::Requests, text::Hole, values::Values};

const BYTES_MAX: usize = 16_384;
/// Fields that every credential has.
pub(crate) const TOKEN: &str = "token";
pub(crate) const NAME: &str = "name";
pub(crate) const ID: &str = "id";

/// What one of a role's credentials is made with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTemplate {
    /// What fills `{role.NAME}`. No secret: it is copied into every lease.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// Fields of every credential, for all to see.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Which environment variable carries which field.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

/// A template that cannot be minted.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// A field that credentials have anyhow.
    #[error("`fields` must not have `{0}`, which every credential has of its own")]
    Field(String),
    /// Values that requests ask for.
    #[error("`set` lacks {0}, which the backend's requests ask for")]
    Missing(String),
    /// It does not have the form of a template.
    #[error("it cannot be read")]
    Shape(#[source] serde_json::Error),
    /// Too long to be copied into leases.
    #[error("it is {0} bytes long as JSON, and 16384 are the most")]
    TooLong(usize),
    /// A value that does not fit where a request has it.
    #[error("`{request}` cannot be made of it: {fault}")]
    Unfit {
        /// Which request.
        request: &'static str,
        /// Why.
        fault: String,
    },
    /// Values that no request asks for.
    #[error("`set` has {0}, which no request of the backend asks for")]
    Unknown(String),
    /// Not a variable, or of no field.
    #[error("the variable `{0}` is none (A-Z, 0-9 and _), steers programs, or names no field")]
    Variable(String),
}

/// What a mint needs of it.
pub(crate) struct Recipe {
    pub(crate) role: Map<String, Value>,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) variables: BTreeMap<String, String>,
}

impl HttpTemplate {
    pub(crate) fn parse(raw: &Value) -> Result<Self, RoleError> {
        let length = raw.to_string().len();
        if length > BYTES_MAX {
            return Err(RoleError::TooLong(length));
        }
        Self::deserialize(raw).map_err(RoleError::Shape)
    }

    pub(crate) fn sealed(self, requests: &Requests, base: &Url) -> Result<Template, RoleError> {
        self.names(requests)?;
        self.fits(requests, base)?;
        let own: &[&str] = match requests.answer.id {
            Some(_) => &[TOKEN, NAME, ID],
            None => &[TOKEN, NAME],
        };
        if let Some(field) =
            self.fields.keys().find(|field| [TOKEN, NAME, ID].contains(&field.as_str()))
        {
            return Err(RoleError::Field(field.clone()));
        }
        for (variable, field) in &self.variables {
            let known = own.contains(&field.as_str()) || self.fields.contains_key(field);
            if !known || !is_variable(variable) {
                return Err(RoleError::Variable(variable.clone()));
            }
        }
        let plan = Plan(json!({ "role": self.set }));
        let recipe = Recipe { role: self.set, fields: self.fields, variables: self.variables };
        Ok(Template::new(plan, recipe))
    }

    fn names(&self, requests: &Requests) -> Result<(), RoleError> {
        let asked: BTreeSet<&str> = requests
            .all()
            .flat_map(|(_, request)| request.holes())
            .filter_map(|hole| if let Hole::Role(name) = hole { Some(name.as_str()) } else { None })
            .collect();
        let given: BTreeSet<&str> = self.set.keys().map(String::as_str).collect();
        let missing = quoted(asked.difference(&given));
        if !missing.is_empty() {
            return Err(RoleError::Missing(missing));
        }
        let unknown = quoted(given.difference(&asked));
        if unknown.is_empty() { Ok(()) } else { Err(RoleError::Unknown(unknown)) }
    }

    /// Each request is made once, with stand-ins for what is not the role's.
    fn fits(&self, requests: &Requests, base: &Url) -> Result<(), RoleError> {
        let (id, secret) = (json!("1"), Secret::new("x"));
        let values = Values {
            expires_at: Some(Timestamp::EPOCH),
            handle: Some("x"),
            id: Some(&id),
            lease: Some("x"),
            marker: Some("x"),
            now: Some(Timestamp::EPOCH),
            password: None,
            principal: Some("x"),
            role: Some(&self.set),
            secret: Some(&secret),
        };
        for (request, template) in requests.all() {
            let made = template.ready(base, &values);
            made.map_err(|fault| RoleError::Unfit { request, fault: fault.to_string() })?;
        }
        Ok(())
    }
}

/// A role's values, as its template's plan has them.
pub(crate) fn of_plan(plan: &Plan) -> Option<&Map<String, Value>> {
    plan.0.get("role").and_then(Value::as_object)
}

fn quoted<'a>(names: impl Iterator<Item = &'a &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

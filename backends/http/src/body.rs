//! A request's body.
//!
//! Invariant: a value is put into JSON that was read already, never into its text.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    error::Failure,
    text::{Hole, Text, TextError},
    values::Values,
};

/// JSON with placeholders in its texts.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Fixed(Value),
    List(Vec<Body>),
    Table(BTreeMap<String, Body>),
    Text(Text),
}

impl Body {
    pub(crate) fn new(value: &Value) -> Result<Self, TextError> {
        Ok(match value {
            Value::String(text) => Self::Text(Text::parse(text)?),
            Value::Array(items) => {
                Self::List(items.iter().map(Self::new).collect::<Result<_, TextError>>()?)
            }
            Value::Object(table) => {
                let entry = |(key, value): (&String, &Value)| Ok((key.clone(), Self::new(value)?));
                Self::Table(table.iter().map(entry).collect::<Result<_, TextError>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Fixed(value.clone()),
        })
    }

    pub(crate) fn holes(&self) -> Vec<&Hole> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::holes).collect(),
            Self::Table(table) => table.values().flat_map(Self::holes).collect(),
            Self::Text(text) => text.holes().collect(),
        }
    }

    pub(crate) fn fill(&self, values: &Values<'_>) -> Result<Value, Failure> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::List(items) => items.iter().map(|item| item.fill(values)).collect(),
            Self::Table(table) => {
                let entry = |(key, body): (&String, &Self)| Ok((key.clone(), body.fill(values)?));
                table.iter().map(entry).collect()
            }
            Self::Text(text) => text.json(values),
        }
    }
}

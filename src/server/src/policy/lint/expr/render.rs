//! Cedar's JSON form of an expression as Cedar's text, for people.
//!
//! Invariant: it is shown and compared with other texts of its kind; nobody parses it.

use serde_json::Value;

use super::{super::pattern::Pattern, only};

/// The text of an expression.
pub(super) fn render(value: &Value) -> String {
    let Some((op, body)) = only(value) else { return value.to_string() };
    let inner = |key: &str| body.get(key).map(render).unwrap_or_default();
    let word = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    match op {
        "Var" => body.as_str().unwrap_or_default().to_owned(),
        "Value" => literal(body),
        "Set" => format!("[{}]", list(body)),
        "!" => format!("!({})", inner("arg")),
        "neg" => format!("-{}", inner("arg")),
        "." => format!("{}.{}", inner("left"), word("attr")),
        "has" => format!("{} has {}", inner("left"), path(body.get("attr"))),
        "like" => {
            let pattern = body.get("pattern").and_then(Pattern::parse);
            let pattern = pattern.map(|pattern| pattern.to_string()).unwrap_or_default();
            format!("{} like \"{pattern}\"", inner("left"))
        }
        "is" => format!("{} is {}", inner("left"), word("entity_type")),
        "contains" | "containsAll" | "containsAny" | "getTag" | "hasTag" => {
            format!("{}.{op}({})", inner("left"), inner("right"))
        }
        "isEmpty" => format!("{}.isEmpty()", inner("arg")),
        "if-then-else" => {
            format!("if {} then {} else {}", inner("if"), inner("then"), inner("else"))
        }
        _ if body.is_array() => format!("{op}({})", list(body)),
        _ => format!("{} {op} {}", inner("left"), inner("right")),
    }
}

fn list(value: &Value) -> String {
    let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(render).collect::<Vec<_>>().join(", ")
}

/// `a has b` names one attribute, `a has b.c` a path of them.
fn path(attribute: Option<&Value>) -> String {
    match attribute {
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(".")
        }
        Some(name) => name.as_str().unwrap_or_default().to_owned(),
        None => String::new(),
    }
}

fn literal(value: &Value) -> String {
    if let Some(named) = value.get("__entity") {
        let part = |key: &str| named.get(key).and_then(Value::as_str).unwrap_or_default();
        return format!("{}::\"{}\"", part("type"), part("id").escape_debug());
    }
    let text = value.as_str().map(|text| format!("\"{}\"", text.escape_debug()));
    text.unwrap_or_else(|| value.to_string())
}

//! One JSON object with every field.
//!
//! Invariant: any text is carried.

use std::collections::BTreeMap;

use serde_json::json;

use super::Section;

pub(super) fn write(section: &Section<'_>, text: &mut String) {
    let fields: BTreeMap<&str, &str> = section.credential.fields().collect();
    text.push_str(&json!(fields).to_string());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::testing::{database, rendered};
    use crate::args::FileFormat;

    #[test]
    fn any_text_is_read_back() {
        let hostile = "it's \"x\"\\n\n\t\r:#=\u{1}ä\u{1f511}";
        let text = rendered(FileFormat::Json, &database(hostile)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["password"], hostile);
        assert_eq!(value["username"], "df_x");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

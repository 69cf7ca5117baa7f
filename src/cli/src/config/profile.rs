//! Profiles: what the flags of `dayfly exec` would say, under a name.
//!
//! Invariant: a profile is nothing but flags, as they would stand on the command line, so what a
//! flag refuses, a profile can't do either. In a project file it runs no code of its own.

use std::{collections::BTreeMap, ffi::OsString};

use dayfly_api::{is_reserved, is_variable_name};
use toml::de::DeTable;

use super::{
    fault::{At, Fault},
    file::Origin,
    text::{Key, Reader, Value, below},
};

/// A profile's keys.
const KEYS: &[&str] = &[
    "clean_env",
    "env",
    "fifo",
    "file",
    "heartbeat",
    "on_expiry",
    "purpose",
    "revoke_failure",
    "revoke_timeout",
    "roles",
    "rotate",
    "stop_timeout",
    "ttl",
];
/// Those whose value is the value of the flag of the same name.
const PLAIN: &[&str] = &[
    "heartbeat",
    "on_expiry",
    "purpose",
    "revoke_failure",
    "revoke_timeout",
    "stop_timeout",
    "ttl",
];
const FILE_KEYS: &[&str] = &["env", "format", "from", "template"];
const ROTATE_KEYS: &[&str] = &["action", "overlap"];
/// Bytes of a delivered file's name.
const FILE_NAME_BYTES_MAX: usize = 64;

/// One profile.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) at: At,
    pub(crate) flags: Vec<Flag>,
}

/// One flag of a profile.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    pub(crate) at: At,
    /// The key that says it, for messages.
    pub(crate) key: String,
    /// As it would stand on the command line, in one word: `--ttl=15m`.
    pub(crate) word: OsString,
}

/// Reads `[profile]`.
pub(super) fn read_all(reader: &Reader<'_>, value: &Value<'_>) -> BTreeMap<String, Profile> {
    let mut profiles = BTreeMap::new();
    let Some(table) = reader.table("profile", value) else { return profiles };
    for (name, value) in table {
        let path = below("profile", name.get_ref());
        let Some(table) = reader.table(&path, value) else { continue };
        let mut draft = Draft { reader, path, flags: Vec::new() };
        draft.read(table);
        let at = reader.at(name.span());
        let name: &str = name.get_ref();
        profiles.insert(name.to_owned(), Profile { at, flags: draft.flags });
    }
    profiles
}

/// A profile while it is read.
struct Draft<'r> {
    reader: &'r Reader<'r>,
    path: String,
    flags: Vec<Flag>,
}

impl Draft<'_> {
    fn read(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let word: &str = key.get_ref();
            let path = below(&self.path, word);
            match word {
                "clean_env" => {
                    let names = self.reader.texts(&path, value);
                    let names: Vec<&str> = names.into_iter().map(|(_, name)| name).collect();
                    self.push(self.reader.at(value.span()), path, word, names.join(","));
                }
                "env" => self.variables(&path, value),
                "fifo" | "file" => self.files(&path, word, value),
                "roles" => {
                    for (at, role) in self.reader.texts(&path, value) {
                        self.push(at, path.clone(), "role", role);
                    }
                }
                "rotate" => self.rotate(&path, value),
                _ if PLAIN.contains(&word) => {
                    if let Some(text) = self.reader.text(&path, value) {
                        self.push(self.reader.at(value.span()), path, word, text);
                    }
                }
                _ => self.reader.unknown(&self.path, key, KEYS),
            }
        }
    }

    fn push(&mut self, at: At, key: String, flag: &str, value: impl Into<OsString>) {
        // In one word, so that no value is taken for a flag.
        let mut word = OsString::from(format!("--{}=", flag.replace('_', "-")));
        word.push(value.into());
        self.flags.push(Flag { at, key, word });
    }

    /// `NAME = "role/field"`.
    fn variables(&mut self, path: &str, value: &Value<'_>) {
        let Some(table) = self.reader.table(path, value) else { return };
        for (name, value) in table {
            let path = below(path, name.get_ref());
            if !self.is_settable(&path, name) {
                continue;
            }
            let Some(text) = self.reader.text(&path, value) else { continue };
            if is_field(text) {
                let name: &str = name.get_ref();
                self.push(self.reader.at(value.span()), path, "env", format!("{name}={text}"));
            } else {
                self.reader.wrong(&path, value, "expected \"ROLE/FIELD\"");
            }
        }
    }

    /// `NAME = "role"`, `NAME = "role/field"`, or a table of what the flag says with `:` and `@`.
    fn files(&mut self, path: &str, flag: &str, value: &Value<'_>) {
        let Some(table) = self.reader.table(path, value) else { return };
        for (name, value) in table {
            let (path, at) = (below(path, name.get_ref()), self.reader.at(value.span()));
            let name: &str = name.get_ref();
            if !is_file_name(name) {
                let message = "a file's name has letters, digits, `.`, `-` and `_`, and begins \
                               with a letter or a digit";
                self.reader.wrong(&path, value, message);
                continue;
            }
            let word = match value.get_ref().as_table() {
                Some(table) => self.file(name, &path, table, value),
                None => self.reader.text(&path, value).map(|text| format!("{name}={text}").into()),
            };
            if let Some(word) = word {
                self.push(at, path, flag, word);
            }
        }
    }

    fn file(
        &self,
        name: &str,
        path: &str,
        table: &DeTable<'_>,
        whole: &Value<'_>,
    ) -> Option<OsString> {
        let reader = self.reader;
        let (mut variable, mut format, mut source) = (String::new(), String::new(), None);
        let (mut from, mut template) = (false, false);
        for (key, value) in table {
            let word: &str = key.get_ref();
            let place = below(path, word);
            match word {
                "env" => {
                    let text = reader.text(&place, value)?;
                    if let Some(message) = refused_variable(text) {
                        reader.wrong(&place, value, message);
                        return None;
                    }
                    variable = format!("@{text}");
                }
                "format" => format = format!(":{}", reader.text(&place, value)?),
                "from" => {
                    from = true;
                    source = match value.get_ref().as_array() {
                        Some(_) => {
                            let roles = reader.texts(&place, value);
                            let roles: Vec<&str> =
                                roles.into_iter().map(|(_, role)| role).collect();
                            Some(roles.join(",").into())
                        }
                        None => reader.text(&place, value).map(OsString::from),
                    };
                }
                "template" => {
                    template = true;
                    let file = reader.base.join(reader.text(&place, value)?);
                    let mut word = OsString::from("@");
                    word.push(file);
                    source = Some(word);
                }
                _ => reader.unknown(path, key, FILE_KEYS),
            }
        }
        if from == template {
            reader.wrong(path, whole, "expected either `from`, a role, or `template`, a file");
            return None;
        }
        let mut word = OsString::from(format!("{name}{variable}="));
        word.push(source?);
        word.push(format);
        Some(word)
    }

    fn rotate(&mut self, path: &str, value: &Value<'_>) {
        let Some(table) = self.reader.table(path, value) else { return };
        for (key, value) in table {
            let word: &str = key.get_ref();
            let place = below(path, word);
            let flag = match word {
                "action" => "on_rotate",
                "overlap" => "overlap",
                _ => {
                    self.reader.unknown(path, key, ROTATE_KEYS);
                    continue;
                }
            };
            let Some(text) = self.reader.text(&place, value) else { continue };
            // A list of what is harmless: what runs code may get other names.
            let harmless = ["none", "restart"].contains(&text) || text.starts_with("signal:");
            if word == "action" && self.reader.origin == Origin::Project && !harmless {
                let message = "a project file may say none, restart or signal:NAME; a command to \
                               run belongs into --on-rotate or ~/.config/dayfly/config.toml, since \
                               a checkout must not choose what runs";
                self.reader.wrong(&place, value, message);
                continue;
            }
            self.push(self.reader.at(value.span()), place, flag, text);
        }
    }

    /// Whether a credential may be in the variable `name`.
    fn is_settable(&self, path: &str, name: &Key<'_>) -> bool {
        let refused = refused_variable(name.get_ref());
        if let Some(message) = refused {
            self.reader.note(Fault::new(self.reader.at(name.span()), path, message));
        }
        refused.is_none()
    }
}

fn refused_variable(name: &str) -> Option<&'static str> {
    if !is_variable_name(name) {
        Some("a variable's name has letters, digits and `_`, and does not begin with a digit")
    } else if is_reserved(name) {
        Some("this variable is reserved: it could run code")
    } else {
        None
    }
}

/// Whether it is `role/field`. What roles and fields are called, the flag's own reader knows.
fn is_field(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(role, field)| !role.is_empty() && !field.is_empty() && !field.contains('/'))
        && !text.contains(char::is_whitespace)
}

fn is_file_name(name: &str) -> bool {
    name.len() <= FILE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

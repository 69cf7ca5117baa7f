//! One configuration file.
//!
//! Invariant: a project file holds nothing by which whoever wrote the checkout would choose who
//! gets an identity token, whose it is, or whom we trust.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum as _;

use super::{
    fault::{Fault, Placed},
    profile::{self, Profile},
    text::{Reader, Value},
};
use crate::{args::IdentityKind, client::BrokerUrl};

const PROJECT_KEYS: &[&str] = &["profile", "url"];
const OWN_KEYS: &[&str] = &["allowed_urls", "audience", "ca_file", "identity", "profile", "url"];
/// What steers a token. The last two are flags and variables alone.
const NOT_IN_PROJECT: &[&str] =
    &["allowed_urls", "audience", "ca_file", "identity", "proof_key_file", "token_file"];

/// Whose file it is, the one that counts first before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Project,
    User,
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project",
            Self::User => "user",
            Self::System => "system",
        })
    }
}

/// What a file says.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "`ca_file` is what the key is called")]
pub(crate) struct File {
    pub(crate) origin: Origin,
    pub(crate) path: PathBuf,
    pub(crate) url: Option<Placed<BrokerUrl>>,
    pub(crate) allowed_urls: Vec<Placed<BrokerUrl>>,
    pub(crate) ca_file: Option<Placed<PathBuf>>,
    pub(crate) audience: Option<Placed<String>>,
    pub(crate) identity: Option<Placed<String>>,
    pub(crate) profiles: BTreeMap<String, Profile>,
}

impl File {
    /// Reads `text`, which stands at `path`.
    pub(super) fn read(origin: Origin, path: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        let mut file = Self {
            origin,
            path: path.to_owned(),
            url: None,
            allowed_urls: Vec::new(),
            ca_file: None,
            audience: None,
            identity: None,
            profiles: BTreeMap::new(),
        };
        let reader = Reader::new(origin, path, text);
        let table = reader.parse().unwrap_or_default();
        for (key, value) in &table {
            let word: &str = key.get_ref();
            if origin == Origin::Project && NOT_IN_PROJECT.contains(&word) {
                reader.note(Fault::new(
                    reader.at(key.span()),
                    word,
                    "is not for a project file, since a checkout must not choose where a token \
                     goes; it belongs into ~/.config/dayfly/config.toml",
                ));
                continue;
            }
            let keys = if origin == Origin::Project { PROJECT_KEYS } else { OWN_KEYS };
            match word {
                "allowed_urls" => file.allowed_urls = urls(&reader, value),
                "audience" => {
                    let text = reader.text(word, value);
                    file.audience = text.map(|text| reader.placed(value, text.to_owned()));
                }
                "ca_file" => {
                    let text = reader.text(word, value);
                    file.ca_file = text.map(|text| reader.placed(value, reader.base.join(text)));
                }
                "identity" => file.identity = identity(&reader, value),
                "profile" => file.profiles = profile::read_all(&reader, value),
                "url" => {
                    let text = reader.text(word, value);
                    file.url = text.and_then(|text| url(&reader, word, value, text));
                }
                _ => reader.unknown("", key, keys),
            }
        }
        let faults = reader.into_faults();
        if faults.is_empty() { Ok(file) } else { Err(faults) }
    }
}

fn urls(reader: &Reader<'_>, value: &Value<'_>) -> Vec<Placed<BrokerUrl>> {
    let mut urls = Vec::new();
    for (at, text) in reader.texts("allowed_urls", value) {
        match BrokerUrl::parse(Some(text)) {
            Ok(url) => urls.push(Placed { at, value: url }),
            Err(error) => reader.note(Fault::new(at, "allowed_urls", error.to_string())),
        }
    }
    urls
}

fn url(
    reader: &Reader<'_>,
    path: &str,
    value: &Value<'_>,
    text: &str,
) -> Option<Placed<BrokerUrl>> {
    match BrokerUrl::parse(Some(text)) {
        Ok(url) => Some(reader.placed(value, url)),
        Err(error) => {
            reader.wrong(path, value, error.to_string());
            None
        }
    }
}

fn identity(reader: &Reader<'_>, value: &Value<'_>) -> Option<Placed<String>> {
    let text = reader.text("identity", value)?;
    if IdentityKind::from_str(text, false).is_err() {
        let kinds =
            IdentityKind::value_variants().iter().filter_map(IdentityKind::to_possible_value);
        let names: Vec<String> = kinds.map(|kind| kind.get_name().to_owned()).collect();
        reader.wrong("identity", value, format!("expected {}", names.join(" or ")));
        return None;
    }
    Some(reader.placed(value, text.to_owned()))
}

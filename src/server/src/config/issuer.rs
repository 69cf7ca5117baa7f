//! `[[issuer]]`: whose identities are trusted. What an issuer is, the identity module says;
//! here it gets its place in the file.
//!
//! Invariant: a preset fills in the keys that are not written and changes none that is.

use crate::identity::{IssuerConfig, Platform};

use super::{
    fault::At,
    foreign, secret,
    section::Section,
    tree::{Entry, Item, Table, Value},
};

pub(super) fn read(section: &Section<'_>) -> Option<IssuerConfig> {
    let mut table = section.rest();
    table.resolve_files(section.context.base);
    let filled_in = with_issuer(&table);
    let mut config: IssuerConfig = match foreign::deserialize(section.at, &section.path, &filled_in)
    {
        Ok(config) => config,
        Err(refused) => {
            let report = section.context.report;
            for fault in refused.absent {
                report.note_absent(fault);
            }
            for fault in refused.wrong {
                report.note(fault);
            }
            return None;
        }
    };
    if let Some(platform) = config.preset {
        platform.preset().fill(&mut config, |key| table.item(key).is_some());
    }
    for fault in config.faults() {
        // The message begins with the key that it is about.
        let key = fault.split_whitespace().next().filter(|word| table.item(word).is_some());
        let key = key.unwrap_or_default().to_owned();
        section.fault(&key, fault);
    }
    if config.audience.contains('*') {
        section.fault("audience", "an audience is compared exactly; it has no wildcards");
    }
    for (key, file) in [("jwks_file", &config.jwks_file), ("ca_file", &config.ca_file)] {
        if let Some(Err(wrong)) = file.as_deref().map(secret::check_readable) {
            section.fault(key, wrong);
        }
    }
    Some(config)
}

/// The URL of a section's issuer and its place: as it is written, or as its preset has it.
pub(super) fn url(table: &Table) -> Option<(&str, &At)> {
    if let Some(item) = table.item("issuer") {
        return Some((table.text("issuer")?, &item.at));
    }
    let platform = Platform::named(table.text("preset")?)?;
    Some((platform.preset().issuer()?, &table.item("preset")?.at))
}

/// The section with the URL that its preset has, where it needs one and none is written.
fn with_issuer(table: &Table) -> Table {
    let mut filled_in = table.clone();
    if let (None, Some((text, at))) = (table.item("issuer"), url(table)) {
        let item = Item { at: at.clone(), value: Value::Text(text.to_owned()) };
        filled_in.0.insert("issuer".to_owned(), Entry { key: at.clone(), item });
    }
    filled_in
}

//! `[[issuer]]`: whose identities are trusted. What an issuer is, the identity module says;
//! here it gets its place in the file.

use crate::identity::IssuerConfig;

use super::{foreign, secret, section::Section};

pub(super) fn read(section: &Section<'_>) -> Option<IssuerConfig> {
    let mut table = section.rest();
    table.resolve_files(section.context.base);
    let config: IssuerConfig = match foreign::deserialize(section.at, &section.path, &table) {
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

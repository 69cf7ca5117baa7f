//! `[[aws_identity]]`: accounts of AWS whose roles and users are trusted. What such a source is,
//! the identity module says; here it gets its place in the file.

use std::collections::BTreeMap;

use url::Url;

use crate::identity::AwsIdentityConfig;

use super::{foreign, section::Section};

pub(super) fn read(section: &Section<'_>, public_url: Option<&Url>) -> Option<AwsIdentityConfig> {
    let table = section.rest();
    let mut config: AwsIdentityConfig =
        match foreign::deserialize(section.at, &section.path, &table) {
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
    // As the command line has it, which asks for the address without the slash.
    let ours = || public_url.map(|url| url.as_str().trim_end_matches('/').to_owned());
    config.server_id = config.server_id.or_else(ours);
    for fault in config.faults() {
        // The message begins with the key that it is about.
        let key = fault.split_whitespace().next().filter(|word| table.item(word).is_some());
        let key = key.unwrap_or_default().to_owned();
        section.fault(&key, fault);
    }
    Some(config)
}

/// A request names its section by the server id, also where that is the default.
pub(super) fn check(root: &Section<'_>, identities: &[AwsIdentityConfig]) {
    let mut names = BTreeMap::new();
    for identity in identities {
        let (Some(id), name) = (&identity.server_id, &identity.name) else { continue };
        if let Some(other) = names.insert(id, name) {
            let message = format!(
                "`{other}` and `{name}` have the server id `{id}`; each needs one of its own"
            );
            root.fault("aws_identity", message);
        }
    }
}

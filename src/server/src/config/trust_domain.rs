//! `[[trust_domain]]`: whose SPIFFE identities are trusted. What a trust domain may be, the
//! identity module says; here it gets its place in the file.

use std::time::Duration;

use super::{
    ClientCertificates, ServerConfig, secret,
    section::{Section, duration, flag, list, one_of, text},
};
use crate::identity::{BundleFrom, TrustDomainConfig};

pub(super) fn read(section: &Section<'_>) -> Option<TrustDomainConfig> {
    let name = section.required("name", text);
    let bundle = bundle(section);
    let any = || duration(Duration::ZERO..=Duration::from_hours(24 * 366));
    let audiences = section.optional("audiences", list);
    let refresh_min = section.optional("refresh_min", any());
    let refresh_max = section.optional("refresh_max", any());
    let token_age_max = section.optional("token_age_max", any());
    let certificate_age_max = section.optional("certificate_age_max", any());
    let leeway = section.optional("leeway", any());
    let multiple_audiences = section.optional("multiple_audiences", flag);
    let single_use = section.optional("single_use", flag);
    let default = TrustDomainConfig::new(name?, bundle?);
    let config = TrustDomainConfig {
        audiences: audiences.unwrap_or_default(),
        refresh_min: refresh_min.unwrap_or(default.refresh_min),
        refresh_max: refresh_max.unwrap_or(default.refresh_max),
        token_age_max: token_age_max.unwrap_or(default.token_age_max),
        certificate_age_max: certificate_age_max.unwrap_or(default.certificate_age_max),
        leeway: leeway.unwrap_or(default.leeway),
        multiple_audiences: multiple_audiences.unwrap_or(default.multiple_audiences),
        single_use: single_use.unwrap_or(default.single_use),
        ..default
    };
    for fault in config.faults() {
        // The message begins with the key that it is about.
        let key = fault.split_whitespace().next().unwrap_or_default().to_owned();
        section.fault(&key, fault);
    }
    Some(config)
}

/// What a federation endpoint proves itself by.
#[derive(Clone, Copy)]
enum Profile {
    Spiffe,
    Web,
}

fn bundle(section: &Section<'_>) -> Option<BundleFrom> {
    let file = section.path("bundle_file");
    let url = section.optional("bundle_url", text);
    let ca_file = section.path("ca_file");
    let profiles = [("https_spiffe", Profile::Spiffe), ("https_web", Profile::Web)];
    let profile = section.optional("profile", one_of(&profiles));
    if matches!(profile, Some(Profile::Spiffe)) {
        section.fault(
            "profile",
            "`https_spiffe` is not supported: use `https_web`, with `ca_file` for an authority \
             of your own, or have the bundle written to `bundle_file`",
        );
    }
    for (key, path) in [("bundle_file", &file), ("ca_file", &ca_file)] {
        if let Some(Err(wrong)) = path.as_deref().map(secret::check_readable) {
            section.fault(key, wrong);
        }
    }
    match (file, url) {
        (Some(_), Some(_)) => {
            section.fault("bundle_url", "bundle_file and bundle_url are both given");
            None
        }
        (Some(path), None) => {
            for key in ["ca_file", "profile"] {
                if section.item(key).is_some() {
                    section.fault(key, "has no use with bundle_file");
                }
            }
            Some(BundleFrom::File(path))
        }
        (None, Some(url)) => Some(BundleFrom::Url { url, ca_file }),
        (None, None) => {
            if section.item("bundle_file").is_none() && section.item("bundle_url").is_none() {
                section.fault_absent("", "either bundle_file or bundle_url is needed");
            }
            None
        }
    }
}

/// What trust domains have to do with other sections.
pub(super) fn check(root: &Section<'_>, server: &ServerConfig) {
    let asked = server.tls.as_ref().map(|tls| tls.client_certificates).unwrap_or_default();
    if asked == ClientCertificates::Spiffe && root.item("trust_domain").is_none() {
        root.fault_absent(
            "server.tls.client_certificates",
            "no [[trust_domain]] says whose certificates are good",
        );
    }
}

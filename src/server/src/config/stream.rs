//! `[[ssf]]`: whose shared signals are taken.
//!
//! Invariant: a stream says whose subjects it is about; none is about all of them by default. Its
//! keys come from one place that is written here, since a transmitter's own metadata are not those
//! of an issuer.

use std::time::Duration;

use dayfly_backend_sdk::Secret;

use super::{
    fault::Wrong,
    secret,
    section::{Section, duration, flag, list, name, text},
};
use crate::identity::IssuerConfig;

/// A bearer that can be guessed is worse than none, since it looks like one.
const BEARER_LEN_MIN: usize = 16;
/// Transmitters try again for days.
const AGE_MAX: Duration = Duration::from_hours(7 * 24);

/// `[[ssf]]`.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Who signs, for whom, and with which keys; its name is the stream's.
    pub transmitter: IssuerConfig,
    /// The names of the issuers whose subjects it speaks of.
    pub subjects: Vec<String>,
    /// What it shows in `Authorization`, if it must.
    pub bearer: Option<Secret>,
}

/// Reads a stream of a configuration with these issuers.
pub(super) fn read(section: &Section<'_>, issuers: &[&str]) -> Option<StreamConfig> {
    let name = section.required("name", name);
    let issuer = section.required("issuer", text);
    let audience = section.required("audience", text);
    let jwks_url = section.optional("jwks_url", text);
    let jwks_file = section.path("jwks_file");
    let ca_file = section.path("ca_file");
    let insecure_http = section.optional("insecure_http", flag).unwrap_or_default();
    let age = duration(Duration::from_mins(1)..=Duration::from_hours(31 * 24));
    let age_max = section.optional("age_max", age).unwrap_or(AGE_MAX);
    let bearer = section.secret("bearer");
    let subjects = section.required("subjects", list);
    if bearer.as_ref().is_some_and(|bearer| bearer.expose().len() < BEARER_LEN_MIN) {
        section.fault("bearer", format!("must have at least {BEARER_LEN_MIN} bytes"));
    }
    if section.item("jwks_url").is_none() && section.item("jwks_file").is_none() {
        section.fault_absent("", "either jwks_url or jwks_file is needed");
    }
    for (key, file) in [("jwks_file", &jwks_file), ("ca_file", &ca_file)] {
        if let Some(Err(wrong)) = file.as_deref().map(secret::check_readable) {
            section.fault(key, wrong);
        }
    }
    check_subjects(section, subjects.as_deref(), issuers);
    let transmitter = IssuerConfig {
        jwks_url,
        jwks_file,
        ca_file,
        insecure_http,
        token_age_max_seconds: age_max.as_secs(),
        ..IssuerConfig::new(name?, issuer?, audience?)
    };
    for fault in transmitter.faults() {
        // The message begins with the key that it is about.
        let key = fault.split_whitespace().next().unwrap_or_default().to_owned();
        section.fault(&key, fault);
    }
    Some(StreamConfig { transmitter, subjects: subjects?, bearer })
}

fn check_subjects(section: &Section<'_>, subjects: Option<&[String]>, issuers: &[&str]) {
    if subjects.is_some_and(<[String]>::is_empty) {
        section.fault("subjects", "must name at least one issuer");
    }
    for subject in subjects.unwrap_or_default() {
        if !issuers.contains(&subject.as_str()) {
            let unknown = Wrong::unknown("issuer", subject, issuers);
            let message = format!("no issuer has the name `{subject}`");
            section.fault_absent("subjects", Wrong { message, ..unknown });
        }
    }
    if issuers.contains(&"ssf") {
        // `ssf|NAME` is who ended a task.
        section.fault("subjects", "an issuer is called `ssf`; the audit log would mix them up");
    }
}

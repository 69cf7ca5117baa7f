//! `[[poller]]`: where a CI platform is asked whether jobs are over.
//!
//! Invariant: a poller belongs to one issuer of the configuration and asks the platform that runs
//! this issuer's jobs. Where that platform's API is follows from the issuer or is written here;
//! ids of one installation are never asked for at another, where they are another's jobs.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{
    fault::Wrong,
    secret::{self, SecretSource},
    section::{Origin, Section, duration, name, one_of, text},
    webhook::HookKind,
};
use crate::identity::{IssuerConfig, url_complaint};

const INTERVAL: Duration = Duration::from_mins(1);
/// Platforms count requests by the hour or by the minute.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// Issuers whose platform has its API elsewhere.
const BUILDKITE: &str = "https://agent.buildkite.com";
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// `[[poller]]`.
#[derive(Clone, Debug)]
pub struct PollerConfig {
    /// Its name, in the log and in the audit log.
    pub name: String,
    /// Which platform is asked.
    pub kind: HookKind,
    /// The name of the issuer whose tasks it may end.
    pub issuer: String,
    /// What the paths of the platform's API begin with.
    pub api_url: Url,
    /// Certificates trusted for it besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What it asks with.
    pub token: SecretSource,
    /// How often it asks.
    pub interval: Duration,
    pub(super) origin: Origin,
}

/// Who ended a task stands in the audit log as `poller|NAME`.
pub(super) const ACTOR: &str = "poller";

/// Reads a poller of a configuration with these issuers of tokens; `names` are those of all that
/// are written, also where they are at fault; `taken` where an issuer of any kind has the name
/// [`ACTOR`].
pub(super) fn read(
    section: &Section<'_>,
    names: &[&str],
    issuers: &[IssuerConfig],
    taken: bool,
) -> Option<PollerConfig> {
    let name = section.required("name", name);
    let kind = section.required("kind", one_of(&HookKind::WORDS));
    let issuer = section.required("issuer", text);
    let interval = section.optional("interval", duration(INTERVAL_MIN..=INTERVAL_MAX));
    let ca_file = section.path("ca_file");
    if let Some(Err(wrong)) = ca_file.as_deref().map(secret::check_readable) {
        section.fault("ca_file", wrong);
    }
    if let Some(issuer) = &issuer
        && !names.contains(&issuer.as_str())
    {
        let unknown = Wrong::unknown("issuer", issuer, names);
        let message = format!("no issuer has the name `{issuer}`");
        section.fault_absent("issuer", Wrong { message, ..unknown });
    }
    if taken {
        section.fault("issuer", "an issuer is called `poller`; the audit log would mix them up");
    }
    let found = issuers.iter().find(|config| Some(&config.name) == issuer.as_ref());
    let (api_url, token) = (api_url(section, kind, found), token(section));
    Some(PollerConfig {
        name: name?,
        kind: kind?,
        issuer: issuer?,
        api_url: api_url?,
        ca_file,
        token: token?,
        interval: interval.unwrap_or(INTERVAL),
        origin: section.origin(),
    })
}

/// As it is written, or as the issuer tells. An issuer that is at fault itself is no second fault.
fn api_url(
    section: &Section<'_>,
    kind: Option<HookKind>,
    issuer: Option<&IssuerConfig>,
) -> Option<Url> {
    let written = section.optional("api_url", text);
    if written.is_none() && section.item("api_url").is_some() {
        return None;
    }
    let told = || api_of(kind?, &issuer?.issuer);
    let Some(url) = written.or_else(told) else {
        if kind.is_some() && issuer.is_some() {
            let message = "is needed: the issuer's URL does not tell where its platform's API is";
            section.fault_absent("api_url", message);
        }
        return None;
    };
    let parsed = match Url::parse(&url) {
        // Plain http is for tests, on loopback alone.
        Ok(parsed) => url_complaint(&parsed, &url, true).map_or(Ok(parsed), |why| Err(why.into())),
        Err(error) => Err(error.to_string()),
    };
    parsed.map_err(|why: String| section.fault("api_url", format!("`{url}`: {why}"))).ok()
}

/// Where the API of an issuer's platform is, if its URL tells.
fn api_of(kind: HookKind, issuer: &str) -> Option<String> {
    match kind {
        HookKind::Buildkite => {
            (issuer == BUILDKITE).then(|| "https://api.buildkite.com/v2".to_owned())
        }
        HookKind::Github => {
            // An enterprise's own issuer has a path of its own behind it.
            let own = issuer.strip_prefix(GITHUB)?;
            (own.is_empty() || own.starts_with('/')).then(|| "https://api.github.com".to_owned())
        }
        HookKind::Gitlab => Some(format!("{}/api/v4", issuer.trim_end_matches('/'))),
    }
}

fn token(section: &Section<'_>) -> Option<SecretSource> {
    if section.item("token").is_none() {
        section.missing("token");
    }
    let (source, token) = section.secret_source("token")?;
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        section.fault("token", "has characters that a token has not");
        return None;
    }
    Some(source)
}

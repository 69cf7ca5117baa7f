//! How a trust domain is configured: `[[trust_domain]]`.
//!
//! Invariant: a trust domain without faults has exactly one bundle, from a file or over
//! verified TLS, and every bound is set.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{super::config::url_complaint, id::check_trust_domain};

const AUDIENCES_MAX: usize = 16;
const AUDIENCE_LEN_MAX: usize = 1_024;
const LEEWAY_MAX: Duration = Duration::from_mins(1);
const TOKEN_AGE_MAX: Duration = Duration::from_hours(24);
const CERTIFICATE_AGE_MAX: Duration = Duration::from_hours(24 * 366);
/// Authorities date certificates back, lest a clock that is behind finds them not yet valid: SPIRE
/// by seconds, Istio by two minutes. A certificate "of a day" is that much longer.
const DATED_BACK_MAX: Duration = Duration::from_mins(10);
const REFRESH_MIN: Duration = Duration::from_secs(30);
const REFRESH_MAX: Duration = Duration::from_hours(24);

/// Where a trust domain's bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleFrom {
    /// A file.
    File(PathBuf),
    /// A federation endpoint of the profile `https_web`.
    Url {
        /// Its URL, `https`.
        url: String,
        /// PEM certificates that are trusted for it besides the system's.
        ca_file: Option<PathBuf>,
    },
}

/// One trust domain whose workloads we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomainConfig {
    /// What its IDs have after `spiffe://`; also the issuer's name in policies and in the
    /// audit log.
    pub name: String,
    /// Where its bundle is.
    pub bundle: BundleFrom,
    /// Whom its JWT-SVIDs may be for, of which one must be named; without any, it has none
    /// for us.
    pub audiences: Vec<String>,
    /// The bundle is asked for no more often than this, whatever it says itself.
    pub refresh_min: Duration,
    /// And no more rarely.
    pub refresh_max: Duration,
    /// How far ahead the end of a JWT-SVID may be.
    pub token_age_max: Duration,
    /// How long an X.509-SVID may be valid, from `notBefore` to `notAfter`.
    pub certificate_age_max: Duration,
    /// How far the domain's clock may be off, for JWT-SVIDs.
    pub leeway: Duration,
    /// Accepts JWT-SVIDs for several audiences if ours is among them.
    pub multiple_audiences: bool,
    /// Whether a JWT-SVID opens one task only. Workloads get them from a cache, so this is
    /// for domains that are known to give fresh ones.
    pub single_use: bool,
}

impl TrustDomainConfig {
    /// A trust domain with every default.
    pub fn new(name: impl Into<String>, bundle: BundleFrom) -> Self {
        Self {
            name: name.into(),
            bundle,
            audiences: Vec::new(),
            refresh_min: Duration::from_mins(1),
            refresh_max: Duration::from_hours(1),
            token_age_max: Duration::from_hours(1),
            certificate_age_max: Duration::from_hours(24),
            leeway: Duration::from_secs(30),
            multiple_audiences: false,
            single_use: false,
        }
    }

    /// How long an X.509-SVID may be valid, with what it may be dated back by.
    pub(super) fn certificate_life_max(&self) -> Duration {
        self.certificate_age_max.saturating_add(DATED_BACK_MAX)
    }

    /// Everything that is wrong with it, in words for the configuration check. Each begins
    /// with the key that it is about.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(error) = check_trust_domain(&self.name) {
            faults.push(format!("name is no trust domain: {error}"));
        }
        if let BundleFrom::Url { url, .. } = &self.bundle {
            let why = match Url::parse(url) {
                Err(error) => Some(error.to_string()),
                Ok(parsed) if parsed.scheme() != "https" => Some("it is not https".to_owned()),
                Ok(parsed) => url_complaint(&parsed, url, false).map(str::to_owned),
            };
            faults.extend(why.map(|why| format!("bundle_url `{url}`: {why}")));
        }
        let legal = |audience: &String| (1..=AUDIENCE_LEN_MAX).contains(&audience.len());
        if self.audiences.len() > AUDIENCES_MAX || !self.audiences.iter().all(legal) {
            faults.push(format!(
                "audiences has more than {AUDIENCES_MAX} entries, or one that is not 1 to \
                 {AUDIENCE_LEN_MAX} bytes long"
            ));
        }
        if self.audiences.iter().any(|audience| audience.contains('*')) {
            faults.push("audiences has a `*`; an audience is compared exactly".to_owned());
        }
        let bounds = REFRESH_MIN..=REFRESH_MAX;
        if !bounds.contains(&self.refresh_min) || !bounds.contains(&self.refresh_max) {
            faults.push("refresh_min and refresh_max are not 30s to 24h".to_owned());
        }
        if self.refresh_min > self.refresh_max {
            faults.push("refresh_min is longer than refresh_max".to_owned());
        }
        if self.leeway > LEEWAY_MAX {
            faults.push("leeway is longer than 1m".to_owned());
        }
        if self.token_age_max.is_zero() || self.token_age_max > TOKEN_AGE_MAX {
            faults.push("token_age_max is not 1s to 24h".to_owned());
        }
        if self.certificate_age_max.is_zero() || self.certificate_age_max > CERTIFICATE_AGE_MAX {
            faults.push("certificate_age_max is not 1s to 366d".to_owned());
        }
        faults
    }
}

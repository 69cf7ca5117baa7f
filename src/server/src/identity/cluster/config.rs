//! How a Kubernetes cluster is configured: `[[cluster]]`.
//!
//! Invariant: a cluster without faults has one API server, over TLS or on this machine, and one
//! way to know its tokens: its own word, or the keys of an `[[issuer]]`.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::super::config::url_complaint;

const NAME_LEN_MAX: usize = 64;
const TEXT_LEN_MAX: usize = 1_024;
const AUDIENCES_MAX: usize = 16;
const NAMESPACES_MAX: usize = 64;
const TOKEN_AGE_MAX: Duration = Duration::from_hours(24);
/// What secrets of the old kind have as their `iss`. They never expire and are for anybody.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// One Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name in the log and in the audit log: `[a-z0-9-]+`. Where the cluster is asked about
    /// its tokens, also the issuer's name in policies.
    pub name: String,
    /// Where its API server is.
    pub api_url: String,
    /// PEM certificates that are trusted for it besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What we are at it: a file with a token, read again for each request.
    pub token_file: PathBuf,
    /// How its tokens are known.
    pub tokens: ClusterTokens,
    /// How the ends of its pods are noticed.
    pub watch: PodWatch,
    /// The namespaces whose pods are looked at; all of them, if there are none.
    pub namespaces: Vec<String>,
}

/// How a cluster's tokens are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterTokens {
    /// The cluster is asked about each of them.
    Reviewed {
        /// Their `iss`, byte for byte.
        issuer: String,
        /// Whom they may be for, of which one must be named.
        audiences: Vec<String>,
        /// How far ahead the end of a token may be.
        age_max: Duration,
    },
    /// By the keys of an issuer.
    Verified {
        /// The name of its `[[issuer]]`.
        issuer: String,
    },
}

/// How the ends of pods are noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodWatch {
    /// They are not.
    #[default]
    Off,
    /// The pods of open tasks are asked for, one by one, again and again.
    Poll,
    /// The API server tells of all pods as they change.
    Stream,
}

impl ClusterConfig {
    /// The issuer's name in the principals of its tokens.
    pub fn issuer_name(&self) -> &str {
        match &self.tokens {
            ClusterTokens::Reviewed { .. } => &self.name,
            ClusterTokens::Verified { issuer } => issuer,
        }
    }

    /// Everything that is wrong with it, in words for the configuration check. Each begins with
    /// the key that it is about.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(legal) {
            faults.push(format!("name `{name}` is not 1 to {NAME_LEN_MAX} of a-z, 0-9 and -"));
        }
        let url = &self.api_url;
        let why = match Url::parse(url) {
            Err(error) => Some(error.to_string()),
            Ok(parsed) => url_complaint(&parsed, url, true).map(str::to_owned),
        };
        faults.extend(why.map(|why| format!("api_url `{url}`: {why}")));
        match &self.tokens {
            ClusterTokens::Reviewed { issuer, audiences, age_max } => {
                faults.extend(review_faults(issuer, audiences, *age_max));
            }
            ClusterTokens::Verified { .. } if self.watch == PodWatch::Off => {
                faults.push("watch is off, and the section has no other use".to_owned());
            }
            ClusterTokens::Verified { .. } => {}
        }
        if self.namespaces.len() > NAMESPACES_MAX {
            faults.push(format!("namespaces has more than {NAMESPACES_MAX} entries"));
        }
        for namespace in self.namespaces.iter().filter(|namespace| !is_namespace(namespace)) {
            faults.push(format!("namespaces has `{namespace}`, which no namespace is called"));
        }
        faults
    }
}

fn review_faults(issuer: &str, audiences: &[String], age_max: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    if issuer == LEGACY_ISSUER {
        faults.push(format!("token_issuer is `{LEGACY_ISSUER}`, whose tokens never expire"));
    }
    let printable = issuer.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=TEXT_LEN_MAX).contains(&issuer.len()) || !printable {
        faults.push(format!(
            "token_issuer is not 1 to {TEXT_LEN_MAX} printable characters without blanks"
        ));
    }
    let legal = |audience: &String| (1..=TEXT_LEN_MAX).contains(&audience.len());
    if !(1..=AUDIENCES_MAX).contains(&audiences.len()) || !audiences.iter().all(legal) {
        faults.push(format!(
            "audiences is not 1 to {AUDIENCES_MAX} entries of 1 to {TEXT_LEN_MAX} bytes"
        ));
    }
    if audiences.iter().any(|audience| audience.contains('*')) {
        faults.push("audiences has a `*`; an audience is compared exactly".to_owned());
    }
    if age_max.is_zero() || age_max > TOKEN_AGE_MAX {
        faults.push("token_age_max is not 1s to 24h".to_owned());
    }
    faults
}

/// A label of DNS.
fn is_namespace(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

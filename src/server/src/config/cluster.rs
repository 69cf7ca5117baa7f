//! `[[cluster]]`: Kubernetes clusters that are asked about their tokens, or whose pods are
//! followed. What a cluster may be, the identity module says; here it gets its place in the file.

use std::time::Duration;

use super::{
    fault::Wrong,
    secret,
    section::{Section, duration, flag, list, one_of, text},
    texts,
};
use crate::identity::{ClusterConfig, ClusterTokens, IssuerConfig, Platform, PodWatch};

const WATCHES: [(&str, PodWatch); 3] =
    [("off", PodWatch::Off), ("poll", PodWatch::Poll), ("stream", PodWatch::Stream)];
/// What only a cluster needs that is asked about its tokens.
const OF_REVIEW: [&str; 3] = ["audiences", "token_age_max", "token_issuer"];
const TOKEN_AGE_MAX: Duration = Duration::from_hours(24);

/// Reads them, and holds them against the issuers of the configuration.
pub(super) fn read_all(root: &Section<'_>, issuers: &[IssuerConfig]) -> Vec<ClusterConfig> {
    let names = texts(root, "issuer", "name");
    let names: Vec<_> = names.into_iter().map(|(name, ..)| name).collect();
    let clusters = root.each("cluster", |section| read(section, &names, issuers));
    if names.contains(&"cluster") && !clusters.is_empty() {
        // `cluster|NAME` is who ended a task.
        let message = "an issuer is called `cluster`; the audit log would mix them up";
        root.fault("cluster", message);
    }
    for (index, cluster) in clusters.iter().enumerate() {
        let name = &cluster.name;
        if let ClusterTokens::Reviewed { issuer, .. } = &cluster.tokens
            && let Some(other) = issuers.iter().find(|other| other.issuer == *issuer)
        {
            let message = format!(
                "the `token_issuer` of `{name}` is the URL of the issuer `{}`; tokens are for one \
                 of them to judge",
                other.name
            );
            root.fault("cluster", message);
        }
        let mut before = clusters.iter().take(index);
        if let Some(other) = before.find(|other| are_one(cluster, other)) {
            let other = &other.name;
            let message = format!("`{other}` and `{name}` are for the same tokens");
            root.fault("cluster", message);
        }
    }
    clusters
}

/// Whether a token could be for both of them.
fn are_one(one: &ClusterConfig, other: &ClusterConfig) -> bool {
    match (&one.tokens, &other.tokens) {
        (
            ClusterTokens::Reviewed { issuer, audiences, .. },
            ClusterTokens::Reviewed { issuer: other, audiences: others, .. },
        ) => issuer == other && audiences.iter().any(|audience| others.contains(audience)),
        (ClusterTokens::Verified { issuer }, ClusterTokens::Verified { issuer: other }) => {
            issuer == other
        }
        (ClusterTokens::Reviewed { .. }, ClusterTokens::Verified { .. })
        | (ClusterTokens::Verified { .. }, ClusterTokens::Reviewed { .. }) => false,
    }
}

fn read(section: &Section<'_>, names: &[&str], issuers: &[IssuerConfig]) -> Option<ClusterConfig> {
    let name = section.required("name", text);
    let api_url = section.required("api_url", text);
    if section.item("token_file").is_none() {
        section.missing("token_file");
    }
    let (token_file, ca_file) = (section.path("token_file"), section.path("ca_file"));
    for (key, path) in [("token_file", &token_file), ("ca_file", &ca_file)] {
        if let Some(Err(wrong)) = path.as_deref().map(secret::check_readable) {
            section.fault(key, wrong);
        }
    }
    let watch = section.optional("watch", one_of(&WATCHES)).unwrap_or_default();
    let namespaces = section.optional("namespaces", list).unwrap_or_default();
    let tokens = tokens(section, names, issuers);
    let config = ClusterConfig {
        name: name?,
        api_url: api_url?,
        ca_file,
        token_file: token_file?,
        tokens: tokens?,
        watch,
        namespaces,
    };
    for fault in config.faults() {
        // The message begins with the key that it is about.
        let key = fault.split_whitespace().next().unwrap_or_default().to_owned();
        section.fault(&key, fault);
    }
    Some(config)
}

fn tokens(
    section: &Section<'_>,
    names: &[&str],
    issuers: &[IssuerConfig],
) -> Option<ClusterTokens> {
    let review = section.optional("review", flag).unwrap_or(false);
    let named = section.optional("issuer", text);
    let token_issuer = section.optional("token_issuer", text);
    let audiences = section.optional("audiences", list);
    let any = duration(Duration::from_secs(1)..=TOKEN_AGE_MAX);
    let age_max = section.optional("token_age_max", any).unwrap_or(TOKEN_AGE_MAX);
    if review {
        if section.item("issuer").is_some() {
            let message = "has no use with `review`: the cluster itself says what its tokens are";
            section.fault("issuer", message);
            return None;
        }
        for key in ["audiences", "token_issuer"] {
            if section.item(key).is_none() {
                section.missing(key);
            }
        }
        return Some(ClusterTokens::Reviewed {
            issuer: token_issuer?,
            audiences: audiences?,
            age_max,
        });
    }
    for key in OF_REVIEW {
        if section.item(key).is_some() {
            section.fault(key, "has no use without `review = true`");
        }
    }
    if section.item("issuer").is_none() {
        section.fault_absent("", "either `issuer` or `review = true` is needed");
    }
    let named = named?;
    if !names.contains(&named.as_str()) {
        let unknown = Wrong::unknown("issuer", &named, names);
        let message = format!("no issuer has the name `{named}`");
        section.fault_absent("issuer", Wrong { message, ..unknown });
    }
    let found = issuers.iter().find(|issuer| issuer.name == named);
    if found.is_some_and(|issuer| issuer.preset != Some(Platform::Kubernetes)) {
        section.fault("issuer", "this issuer has not the preset `kubernetes`");
    }
    Some(ClusterTokens::Verified { issuer: named })
}

//! What the configuration says that rules can be wrong about.

use std::path::Path;

use crate::{
    config::Config,
    identity::{ClusterTokens, Kind, Platform},
    policy::lint::{Facts, IssuerFacts, Source},
};

/// What `policy lint` holds rules against. `path` is the configuration's own.
pub fn known(config: &Config, path: &Path) -> Facts {
    let issuers = config.issuers.iter().map(|issuer| IssuerFacts {
        name: issuer.name.clone(),
        source: issuer.preset.map_or(Source::Other, Source::Preset),
        kind: issuer.kind,
        url: issuer.issuer.clone(),
        audiences: vec![issuer.audience.clone()],
        allow_traps: issuer.allow_traps.clone(),
    });
    let workloads = |name: &str, source, audiences| IssuerFacts {
        name: name.to_owned(),
        source,
        kind: Kind::Workload,
        url: String::new(),
        audiences,
        allow_traps: Vec::new(),
    };
    let domains = config
        .trust_domains
        .iter()
        .map(|domain| workloads(&domain.name, Source::Spiffe, domain.audiences.clone()));
    let accounts = config.aws_identities.iter().map(|accounts| {
        workloads(&accounts.name, Source::Aws, accounts.server_id.iter().cloned().collect())
    });
    let clusters = config.clusters.iter().filter_map(|cluster| match &cluster.tokens {
        ClusterTokens::Reviewed { issuer, audiences, .. } => {
            let source = Source::Preset(Platform::Kubernetes);
            let facts = workloads(&cluster.name, source, audiences.clone());
            Some(IssuerFacts { url: issuer.clone(), ..facts })
        }
        // Its tokens are those of an `[[issuer]]`.
        ClusterTokens::Verified { .. } => None,
    });
    Facts {
        file: path.display().to_string(),
        issuers: issuers.chain(domains).chain(accounts).chain(clusters).collect(),
        roles: config.roles.iter().map(super::facts).collect(),
    }
}

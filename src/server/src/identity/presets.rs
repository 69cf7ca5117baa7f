//! The platforms whose tokens are known, one file of data each.
//!
//! Invariant: what is said here of a platform stands nowhere else; the checks are in
//! `preset.rs` and know no platform.

mod aws;
mod azure;
mod azure_devops;
mod bitbucket;
mod buildkite;
mod circleci;
mod github;
mod gitlab;
mod google;
mod hcp_terraform;
mod jenkins;
mod kubernetes;

use std::time::Duration;

use serde::Deserialize;

use super::preset::Preset;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A platform whose tokens are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// AWS accounts, by `GetWebIdentityToken`.
    Aws,
    /// Microsoft Entra ID: managed identities and applications.
    Azure,
    /// Azure Pipelines.
    AzureDevops,
    /// Bitbucket Pipelines.
    Bitbucket,
    /// Buildkite.
    Buildkite,
    /// `CircleCI`.
    Circleci,
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// Google Cloud: service accounts.
    Google,
    /// HCP Terraform and Terraform Enterprise.
    HcpTerraform,
    /// Jenkins with its OpenID Connect Provider plugin.
    Jenkins,
    /// Service accounts of a Kubernetes cluster.
    Kubernetes,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Aws,
        Self::Azure,
        Self::AzureDevops,
        Self::Bitbucket,
        Self::Buildkite,
        Self::Circleci,
        Self::Github,
        Self::Gitlab,
        Self::Google,
        Self::HcpTerraform,
        Self::Jenkins,
        Self::Kubernetes,
    ];

    /// The one that the configuration calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.preset().name == name)
    }

    /// What is known of its tokens.
    pub fn preset(self) -> &'static Preset {
        match self {
            Self::Aws => &aws::PRESET,
            Self::Azure => &azure::PRESET,
            Self::AzureDevops => &azure_devops::PRESET,
            Self::Bitbucket => &bitbucket::PRESET,
            Self::Buildkite => &buildkite::PRESET,
            Self::Circleci => &circleci::PRESET,
            Self::Github => &github::PRESET,
            Self::Gitlab => &gitlab::PRESET,
            Self::Google => &google::PRESET,
            Self::HcpTerraform => &hcp_terraform::PRESET,
            Self::Jenkins => &jenkins::PRESET,
            Self::Kubernetes => &kubernetes::PRESET,
        }
    }
}

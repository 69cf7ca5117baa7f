//! Steps of Bitbucket Pipelines. Each workspace has an issuer of its own.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "bitbucket",
    title: "Bitbucket",
    issuers: &[Shape::of(
        "https://api.bitbucket.org/2.0/workspaces/{slug}/pipelines-config/identity/oidc",
    )],
    freshness: Freshness::PerJob,
    life_max: HOUR,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("workspaceUuid", Form::Text),
        required("repositoryUuid", Form::Text),
        required("pipelineUuid", Form::Text),
        required("stepUuid", Form::Text),
        optional("branchName", Form::Text),
        optional("deploymentEnvironmentUuid", Form::Text),
    ],
    ids: &["workspaceUuid", "repositoryUuid", "deploymentEnvironmentUuid"],
    names: &[],
    places: &["branchName", "deploymentEnvironmentUuid"],
    other_audiences: &[Shape::of("ari:cloud:bitbucket::workspace/{uuid}")],
    jobs: &[Job { unit: "step", claims: &["pipelineUuid", "stepUuid"] }],
    traps: &[
        Trap {
            name: "recycled-names",
            rule: None,
            text: "the issuer has the workspace's slug in it, which another workspace can have \
                   later: pin `workspaceUuid` and `repositoryUuid`, braces included",
        },
        Trap {
            name: "standing-token",
            rule: None,
            text: "the step has one token for all of its time: who reads it can open tasks until \
                   it expires, unless a key was proven with it before (`first_key_binds`)",
        },
    ],
};

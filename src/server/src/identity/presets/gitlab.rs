//! Jobs of GitLab CI: gitlab.com, and instances of one's own, whose issuer is their URL.

use super::DAY;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Rule, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "gitlab",
    title: "GitLab",
    issuers: &[Shape::of("https://gitlab.com"), Shape::of("https://{host}{path}")],
    freshness: Freshness::PerJob,
    // As long as the job may take, which each project sets.
    life_max: DAY,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("jti", Form::Text),
        required("namespace_id", Form::Number),
        required("project_id", Form::Number),
        required("job_id", Form::Number),
        optional("pipeline_id", Form::Number),
        optional("pipeline_source", Form::Text),
        optional("user_id", Form::Number),
        optional("runner_id", Form::Number),
        optional("job_project_id", Form::Number),
        optional("job_namespace_id", Form::Number),
        optional("namespace_path", Form::Text),
        optional("project_path", Form::Text),
        optional("ref", Form::Text),
        optional("ref_type", Form::Text),
        optional("ref_protected", Form::Flag),
        optional("environment", Form::Text),
        optional("environment_protected", Form::Flag),
        optional("sha", Form::Text),
    ],
    ids: &["project_id", "namespace_id", "job_project_id", "job_namespace_id", "user_id"],
    names: &[
        named("ci_config_ref_uri", &[&["ci_config_sha"], &["project_id"]]),
        named("job_namespace_path", &[&["job_namespace_id"], &["job_project_id"]]),
        named("job_project_path", &[&["job_project_id"]]),
        named("namespace_path", &[&["namespace_id"], &["project_id"]]),
        named("project_path", &[&["project_id"]]),
        named("sub", &[&["project_id"]]),
        named("user_email", &[&["user_id"]]),
        named("user_login", &[&["user_id"]]),
    ],
    places: &[
        "sub",
        "ci_config_ref_uri",
        "ci_config_sha",
        "deployment_tier",
        "environment",
        "environment_protected",
        "ref",
        "ref_path",
        "ref_protected",
        "sha",
    ],
    other_audiences: &[Shape::of("https://gitlab.com")],
    jobs: &[
        // The project that the job runs in, which is the one that a job hook names.
        Job { unit: "job", claims: &["job_project_id", "job_id"] },
        Job { unit: "job", claims: &["project_id", "job_id"] },
    ],
    traps: &[
        Trap {
            name: "fork-merge-request",
            rule: Some(Rule::Unequal { one: "project_id", other: "job_project_id" }),
            text: "in a merge request from a fork `project_id` is the fork and `job_project_id` \
                   where the job runs; a token without the latter, of an old GitLab, cannot be \
                   told from one",
        },
        Trap {
            name: "standing-token",
            rule: None,
            text: "the job has one token for all of its time: who reads it can open tasks until \
                   it expires, unless a key was proven with it before (`first_key_binds`), or \
                   `single_use = true` leaves the job one task",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "a path is free again after a group or a project is renamed: pin `project_id` \
                   and `namespace_id`",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every project of the instance gets tokens of this issuer for any audience: a \
                   rule without an id lets all of them in",
        },
    ],
};

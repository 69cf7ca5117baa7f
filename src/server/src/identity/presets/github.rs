//! Jobs of GitHub Actions: github.com, enterprises with an issuer of their own or with data
//! residence, and GitHub Enterprise Server.
//!
//! The subject has had two forms since 2026-07-15: with ids (`repo:acme@1/app@2:…`) in
//! repositories made, renamed or transferred since, without in older ones and on Enterprise
//! Server. Repositories may also choose its form. So nothing here leans on it.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Naming, Preset, Rule, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "github",
    title: "GitHub",
    issuers: &[
        Shape::of("https://token.actions.githubusercontent.com"),
        Shape::of("https://token.actions.githubusercontent.com/{slug}"),
        Shape::of("https://token.actions.{label}.ghe.com"),
        Shape::of("https://{host}/_services/token"),
    ],
    freshness: Freshness::PerRequest,
    // Documented samples live from five minutes to six hours.
    life_max: HOUR.saturating_mul(6),
    algorithms: &[Algorithm::Rs256],
    sends_x5t: true,
    claims: &[
        required("jti", Form::Text),
        required("event_name", Form::Text),
        required("repository_id", Form::Number),
        required("repository_owner_id", Form::Number),
        required("run_id", Form::Number),
        required("run_attempt", Form::Number),
        optional("actor_id", Form::Number),
        optional("check_run_id", Form::Number),
        optional("enterprise_id", Form::Number),
        optional("environment", Form::Text),
        optional("job_workflow_ref", Form::Text),
        optional("ref", Form::Text),
        optional("ref_protected", Form::Flag),
        optional("ref_type", Form::Text),
        optional("repository", Form::Text),
        optional("repository_owner", Form::Text),
        optional("repository_visibility", Form::Text),
        optional("run_number", Form::Number),
        optional("runner_environment", Form::Text),
        optional("sha", Form::Text),
        optional("workflow_ref", Form::Text),
    ],
    ids: &["repository_id", "repository_owner_id", "enterprise_id", "actor_id"],
    names: &[
        named("actor", &[&["actor_id"]]),
        named("enterprise", &[&["enterprise_id"]]),
        // A repository chooses the workflows that it calls, so its id is enough.
        named("job_workflow_ref", &[&["job_workflow_sha"], &["repository_id"]]),
        named("repository", &[&["repository_id"]]),
        named("repository_owner", &[&["repository_owner_id"], &["repository_id"]]),
        Naming { claim: "sub", pins: &[&["repository_id"]], own_ids: Some(('@', 2)) },
        named("workflow_ref", &[&["workflow_sha"], &["repository_id"]]),
    ],
    places: &[
        "sub",
        "environment",
        "job_workflow_ref",
        "job_workflow_sha",
        "ref",
        "ref_protected",
        "sha",
        "workflow_ref",
        "workflow_sha",
    ],
    // What it is when the job does not say: the owner.
    other_audiences: &[Shape::of("https://github.com/{slug}")],
    jobs: &[
        Job { unit: "job", claims: &["check_run_id"] },
        // Where GitHub does not say which job of the run it is.
        Job { unit: "run", claims: &["repository_id", "run_id", "run_attempt"] },
    ],
    traps: &[
        Trap {
            name: "pull-request-target",
            rule: Some(Rule::OneOf { claim: "event_name", values: &["pull_request_target"] }),
            text: "a stranger's pull request starts the job, and it runs with the rights of the \
                   default branch",
        },
        Trap {
            name: "workflow-run",
            rule: Some(Rule::OneOf { claim: "event_name", values: &["workflow_run"] }),
            text: "a job that a stranger's pull request started may start this one, which runs \
                   with the rights of the default branch on what the first one left",
        },
        Trap {
            name: "strangers-event",
            rule: Some(Rule::OneOf {
                claim: "event_name",
                values: &[
                    "discussion",
                    "discussion_comment",
                    "fork",
                    "issue_comment",
                    "issues",
                    "watch",
                ],
            }),
            text: "whoever can see a public repository can comment, open an issue or a discussion, \
                   fork it or star it, and that starts the job with the rights of the default \
                   branch",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "the name of a repository or an organisation is free again after it is renamed \
                   or deleted: pin `repository_id` and `repository_owner_id`",
        },
        Trap {
            name: "chosen-subject",
            rule: None,
            text: "repositories choose the form of `sub`, and new ones have ids in it: rules \
                   should speak of claims",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every repository of GitHub gets tokens of this issuer for any audience: a rule \
                   without an id lets all of them in",
        },
    ],
};

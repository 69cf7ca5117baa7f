//! Jobs of Buildkite.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "buildkite",
    title: "Buildkite",
    issuers: &[Shape::of("https://agent.buildkite.com")],
    // No `jti`, and a signature that is the same for the same claims.
    freshness: Freshness::PerSecond,
    // Five minutes unless the job asks for more with `--lifetime`.
    life_max: HOUR,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("organization_slug", Form::Text),
        required("pipeline_slug", Form::Text),
        required("job_id", Form::Text),
        optional("organization_id", Form::Text),
        optional("pipeline_id", Form::Text),
        optional("agent_id", Form::Text),
        optional("build_branch", Form::Text),
        optional("build_commit", Form::Text),
        optional("build_number", Form::Number),
        optional("build_source", Form::Text),
        optional("build_tag", Form::Text),
        optional("runner_environment", Form::Text),
        optional("step_key", Form::Text),
    ],
    ids: &["organization_id", "pipeline_id"],
    names: &[
        named("organization_slug", &[&["organization_id"], &["pipeline_id"]]),
        named("pipeline_slug", &[&["pipeline_id"]]),
        named("sub", &[&["pipeline_id"]]),
    ],
    places: &["sub", "build_branch", "build_commit", "build_tag"],
    // What it is when the job does not say.
    other_audiences: &[Shape::of("https://buildkite.com/{slug}")],
    jobs: &[Job { unit: "job", claims: &["job_id"] }],
    traps: &[
        Trap {
            name: "ids-on-request",
            rule: None,
            text: "the ids are in a token only if the job asks for them: `buildkite-agent oidc \
                   request-token --claim organization_id --claim pipeline_id`",
        },
        Trap {
            name: "same-second",
            rule: None,
            text: "two tokens that a job asks for in one second are one token, and the second \
                   opens no task: ask again a second later, or set `single_use = false`, with \
                   which whoever reads a token can open tasks until it expires",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "a slug is free again after a pipeline or an organisation is renamed: pin \
                   `organization_id` and `pipeline_id`",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every organisation of Buildkite has this issuer: a rule without an id lets all \
                   of them in",
        },
    ],
};

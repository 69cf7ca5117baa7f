//! Jobs of Buildkite.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "buildkite",
    title: "Buildkite",
    issuers: &[Shape::of("https://agent.buildkite.com")],
    freshness: Freshness::PerRequest,
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
    jobs: &[Job { unit: "job", claims: &["job_id"] }],
    traps: &[
        Trap {
            name: "ids-on-request",
            rule: None,
            text: "the ids are in a token only if the job asks for them: `buildkite-agent oidc \
                   request-token --claim organization_id --claim pipeline_id`",
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

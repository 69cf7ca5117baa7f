//! Builds of Jenkins, with its OpenID Connect Provider plugin. The issuer is the URL of a
//! Jenkins, with a path.

use super::DAY;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, named, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "jenkins",
    title: "Jenkins",
    issuers: &[Shape::of("https://{host}{path}")],
    // At each binding; a build that binds once keeps what it got.
    freshness: Freshness::Kept,
    // As the plugin is set.
    life_max: DAY,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[required("sub", Form::Text), required("build_number", Form::Number)],
    ids: &[],
    names: &[named("sub", &[])],
    places: &["sub"],
    other_audiences: &[],
    jobs: &[Job { unit: "build", claims: &["sub", "build_number"] }],
    traps: &[
        Trap {
            name: "recycled-names",
            rule: None,
            text: "the job's URL is all there is: a job that is deleted and made anew has the \
                   same, so whoever may make jobs in that folder gets its rights",
        },
        Trap {
            name: "pull-requests",
            rule: None,
            text: "no claim says whose branch is built: keep jobs that build pull requests apart \
                   from jobs that get credentials",
        },
    ],
};

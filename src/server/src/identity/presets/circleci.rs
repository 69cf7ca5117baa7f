//! Jobs of `CircleCI`. Each organisation has an issuer of its own.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Preset, Rule, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "circleci",
    title: "CircleCI",
    issuers: &[Shape::of("https://oidc.circleci.com/org/{uuid}")],
    freshness: Freshness::PerJob,
    life_max: HOUR,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("oidc.circleci.com/project-id", Form::Text),
        optional("oidc.circleci.com/context-ids", Form::List),
        optional("oidc.circleci.com/ssh-rerun", Form::Flag),
        optional("oidc.circleci.com/vcs-origin", Form::Text),
        optional("oidc.circleci.com/vcs-ref", Form::Text),
    ],
    ids: &["oidc.circleci.com/project-id", "oidc.circleci.com/context-ids"],
    names: &[named("oidc.circleci.com/vcs-origin", &[&["oidc.circleci.com/project-id"]])],
    places: &["sub", "oidc.circleci.com/context-ids", "oidc.circleci.com/vcs-ref"],
    // The organisation's id, for which `$CIRCLE_OIDC_TOKEN_V2` is.
    other_audiences: &[Shape::of("{uuid}")],
    jobs: &[],
    traps: &[
        Trap {
            name: "ssh-rerun",
            rule: Some(Rule::OneOf { claim: "oidc.circleci.com/ssh-rerun", values: &["true"] }),
            text: "the job was started again for a person to log in to it: the token is in that \
                   person's hands",
        },
        Trap {
            name: "no-job",
            rule: None,
            text: "no claim names the job, so its end is noticed by completion or by the deadline \
                   alone: keep deadlines short",
        },
        Trap {
            name: "shared-audience",
            rule: None,
            text: "`$CIRCLE_OIDC_TOKEN_V2` is for the organisation's id, so whatever service is \
                   given it can use it here: ask for a token of our audience with `circleci run \
                   oidc get`",
        },
        Trap {
            name: "standing-token",
            rule: None,
            text: "the job has one token for all of its time: who reads it can open tasks until \
                   it expires, unless a key was proven with it before (`first_key_binds`)",
        },
    ],
};

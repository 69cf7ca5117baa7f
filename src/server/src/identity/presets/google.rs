//! Service accounts of Google Cloud, by tokens of the metadata server or of the credentials
//! API.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Rule, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "google",
    title: "Google",
    issuers: &[Shape::with_keys_at(
        "https://accounts.google.com",
        "https://www.googleapis.com/oauth2/v3/certs",
    )],
    freshness: Freshness::Kept,
    life_max: HOUR,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("sub", Form::Text),
        required("azp", Form::Text),
        optional("email", Form::Text),
        optional("email_verified", Form::Flag),
        // In tokens of a machine that were asked for with `format=full`.
        optional("google.compute_engine.instance_id", Form::Text),
        optional("google.compute_engine.instance_name", Form::Text),
        optional("google.compute_engine.project_id", Form::Text),
        optional("google.compute_engine.project_number", Form::Number),
        optional("google.compute_engine.zone", Form::Text),
    ],
    ids: &["sub", "google.compute_engine.instance_id", "google.compute_engine.project_number"],
    names: &[
        named("email", &[&["sub"]]),
        named(
            "google.compute_engine.instance_name",
            &[&["google.compute_engine.instance_id"], &["sub"]],
        ),
    ],
    places: &[
        "sub",
        "azp",
        "email",
        "google.compute_engine.instance_id",
        "google.compute_engine.instance_name",
    ],
    other_audiences: &[],
    jobs: &[Job { unit: "machine", claims: &["google.compute_engine.instance_id"] }],
    traps: &[
        Trap {
            name: "email-unverified",
            rule: Some(Rule::OneOf { claim: "email_verified", values: &["false"] }),
            text: "anybody can claim an address that Google has not verified",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "the address of a service account is free again after it is deleted: pin `sub`, \
                   which is its number",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every account of Google, of people too, gets tokens of this issuer for any \
                   audience: a rule without `sub` lets all of them in",
        },
    ],
};

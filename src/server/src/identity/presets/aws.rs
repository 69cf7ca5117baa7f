//! Roles of AWS accounts, by `sts:GetWebIdentityToken`. Each account has an issuer of its own.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Preset, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "aws",
    title: "AWS",
    issuers: &[Shape::of("https://{label}.tokens.sts.global.api.aws")],
    freshness: Freshness::PerRequest,
    life_max: HOUR,
    algorithms: &[Algorithm::Es384, Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("sub", Form::Text),
        // Twelve digits, and the first may be zero: it is a name, not a number.
        required("https://sts.amazonaws.com/.aws_account", Form::Text),
        optional("jti", Form::Text),
        optional("https://sts.amazonaws.com/.org_id", Form::Text),
        optional("https://sts.amazonaws.com/.source_region", Form::Text),
    ],
    ids: &["https://sts.amazonaws.com/.aws_account", "https://sts.amazonaws.com/.org_id"],
    // A role's ARN is the same after it was made anew, and no claim has the role's own id.
    names: &[named("sub", &[])],
    places: &["sub"],
    other_audiences: &[],
    jobs: &[],
    traps: &[
        Trap {
            name: "request-tags",
            rule: None,
            text: "`request_tags` are what the caller asked for: they prove nothing, a job's \
                   number among them; `principal_tags` are the account's word",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "`sub` is the role's ARN, and a role that is deleted and made anew has the same: \
                   whoever may make roles of that name gets its rights",
        },
    ],
};

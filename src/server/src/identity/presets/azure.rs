//! Managed identities and applications of Microsoft Entra ID. Each tenant has two issuers:
//! which of them signs depends on the version of tokens that the API asks for.

use std::time::Duration;

use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Preset, Rule, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "azure",
    title: "Entra ID",
    issuers: &[
        Shape::of("https://login.microsoftonline.com/{uuid}/v2.0"),
        Shape::of("https://login.microsoftonline.us/{uuid}/v2.0"),
        Shape::of("https://login.partner.microsoftonline.cn/{uuid}/v2.0"),
        Shape::with_keys_at(
            "https://sts.windows.net/{uuid}/",
            "https://login.microsoftonline.com/common/discovery/keys",
        ),
    ],
    freshness: Freshness::Kept,
    // A managed identity's token lives for a day and some minutes.
    life_max: Duration::from_hours(25),
    algorithms: &[Algorithm::Rs256],
    sends_x5t: true,
    claims: &[
        required("tid", Form::Text),
        required("oid", Form::Text),
        optional("appid", Form::Text),
        optional("azp", Form::Text),
        optional("idtyp", Form::Text),
        optional("xms_az_rid", Form::Text),
        optional("xms_mirid", Form::Text),
    ],
    ids: &["tid", "oid", "appid", "azp"],
    names: &[
        named("app_displayname", &[&["oid"], &["appid"], &["azp"]]),
        named("xms_az_rid", &[&["oid"]]),
        named("xms_mirid", &[&["oid"]]),
    ],
    places: &["sub", "oid", "appid", "azp", "xms_az_rid", "xms_mirid"],
    other_audiences: &[
        Shape::of("https://graph.microsoft.com"),
        Shape::of("https://management.azure.com"),
        Shape::of("https://management.azure.com/"),
        Shape::of("https://vault.azure.net"),
    ],
    jobs: &[],
    traps: &[
        Trap {
            name: "other-tenant",
            rule: Some(Rule::NotInIssuer { claim: "tid" }),
            text: "all tenants share their keys: a token whose `tid` is not the issuer's is of \
                   another tenant",
        },
        Trap {
            name: "user-token",
            rule: Some(Rule::OneOf { claim: "idtyp", values: &["user"] }),
            text: "a person's token for the same audience; where `idtyp` is missing nothing tells \
                   it from a workload's, so pin `oid`",
        },
        Trap {
            name: "two-issuers",
            rule: None,
            text: "tokens of version 1 and of version 2 have different issuers: configure the one \
                   that the API's `accessTokenAcceptedVersion` asks for",
        },
        Trap {
            name: "national-clouds",
            rule: None,
            text: "of the clouds of the US government and of China only tokens of version 2 are \
                   known: let the API's `accessTokenAcceptedVersion` ask for 2",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every identity of the tenant gets tokens for the audience unless the \
                   application asks for an assignment: a rule without `oid` lets all of them in",
        },
        Trap {
            name: "standing-token",
            rule: None,
            text: "a token is kept for up to a day: who reads it can open tasks until it expires",
        },
    ],
};

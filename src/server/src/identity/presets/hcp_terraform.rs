//! Runs of HCP Terraform, and of Terraform Enterprise, whose issuer is its URL.

use super::DAY;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "hcp-terraform",
    title: "HCP Terraform",
    issuers: &[Shape::of("https://app.terraform.io"), Shape::of("https://{host}")],
    freshness: Freshness::PerPhase,
    // As long as the phase may take.
    life_max: DAY,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: false,
    claims: &[
        required("terraform_organization_id", Form::Text),
        required("terraform_workspace_id", Form::Text),
        required("terraform_run_id", Form::Text),
        required("terraform_run_phase", Form::Text),
        optional("terraform_project_id", Form::Text),
    ],
    ids: &["terraform_organization_id", "terraform_project_id", "terraform_workspace_id"],
    names: &[
        named("sub", &[&["terraform_workspace_id"]]),
        named("terraform_full_workspace", &[&["terraform_workspace_id"]]),
        named(
            "terraform_organization_name",
            &[&["terraform_organization_id"], &["terraform_workspace_id"]],
        ),
        named("terraform_project_name", &[&["terraform_project_id"], &["terraform_workspace_id"]]),
        named("terraform_workspace_name", &[&["terraform_workspace_id"]]),
    ],
    places: &["sub", "terraform_run_phase"],
    other_audiences: &[
        Shape::of("aws.workload.identity"),
        Shape::of("kubernetes"),
        Shape::of("vault.workload.identity"),
    ],
    jobs: &[Job { unit: "phase", claims: &["terraform_run_id", "terraform_run_phase"] }],
    traps: &[
        Trap {
            name: "plan-phase",
            rule: None,
            text: "a plan runs code that nobody has approved yet, a pull request's too: a rule \
                   for what changes something should ask for `terraform_run_phase` `apply`",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "`sub` is made of names, which are free again after a workspace is renamed: pin \
                   `terraform_workspace_id` and `terraform_organization_id`",
        },
        Trap {
            name: "anybody",
            rule: None,
            text: "every organisation of HCP Terraform has this issuer: a rule without an id lets \
                   all of them in",
        },
    ],
};

//! Runs of Azure Pipelines. Each organisation has an issuer of its own.

use super::HOUR;
use crate::identity::{
    Algorithm,
    preset::{Form, Freshness, Job, Preset, Shape, Trap, named, optional, required},
};

pub(super) static PRESET: Preset = Preset {
    name: "azure-devops",
    title: "Azure DevOps",
    issuers: &[Shape::of("https://vstoken.dev.azure.com/{uuid}")],
    freshness: Freshness::PerRequest,
    // About ten minutes, which is written nowhere.
    life_max: HOUR,
    algorithms: &[Algorithm::Rs256],
    sends_x5t: true,
    claims: &[
        required("org_id", Form::Text),
        required("prj_id", Form::Text),
        required("def_id", Form::Number),
        required("run_id", Form::Number),
        optional("rpo_id", Form::Text),
        optional("rpo_ref", Form::Text),
        optional("rpo_uri", Form::Text),
        optional("rpo_ver", Form::Text),
    ],
    ids: &["org_id", "prj_id", "def_id", "rpo_id"],
    names: &[named("sub", &[&["prj_id", "def_id"]]), named("rpo_uri", &[&["rpo_id"]])],
    // Which pipeline it is says nothing of the branch that it runs on.
    places: &["rpo_ref", "rpo_ver"],
    other_audiences: &[],
    jobs: &[Job { unit: "run", claims: &["org_id", "prj_id", "run_id"] }],
    traps: &[
        Trap {
            name: "fixed-audience",
            rule: None,
            text: "its tokens are for `api://AzureADTokenExchange`, which others accept as well: \
                   whoever is given one can use it here until it is used",
        },
        Trap {
            name: "run-not-job",
            rule: None,
            text: "the claims name the run: the jobs of one run cannot be told apart, and one of \
                   them may end long before the run",
        },
        Trap {
            name: "recycled-names",
            rule: None,
            text: "`sub` is made of names, which are free again after a project or a pipeline is \
                   renamed: pin `prj_id` and `def_id`",
        },
    ],
};

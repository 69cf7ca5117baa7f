//! `dayfly config`: what is in force, and a file to begin with.
//!
//! Invariant: it asks no broker, and shows what would be refused instead of failing by it.

use std::path::Path;

use clap::ValueEnum as _;
use serde::Serialize;

use super::{Config, create, file::Origin, project};
use crate::{
    args::{
        Context,
        config::{ConfigCommand, ConfigShowArgs},
        profile::faults,
    },
    failure::{self, Failure},
    output::{Column, Table},
};

/// What `init` writes.
const EXAMPLE: &str = include_str!("example.toml");

const COLUMNS: &[Column] =
    &[Column::whole("SETTING"), Column::cut("VALUE", 16), Column::cut("FROM", 12)];

/// `dayfly config`.
pub(crate) fn run(command: &ConfigCommand, context: Context<'_>) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Init => {
            create(Path::new(project::NAME), EXAMPLE)?;
            context.terminal.note(&format!("wrote {}; commit it", project::NAME));
            Ok(failure::OK)
        }
        ConfigCommand::Show(args) => show(args, context),
    }
}

fn show(args: &ConfigShowArgs, context: Context<'_>) -> Result<u8, Failure> {
    let shown = Shown::new(args, context);
    context.terminal.show(args.output, &shown, table)?;
    for problem in &shown.problems {
        context.terminal.error(problem);
    }
    Ok(if shown.problems.is_empty() { failure::OK } else { failure::USAGE })
}

/// Everything that `show` says.
#[derive(Serialize)]
struct Shown {
    settings: Vec<Setting>,
    allowed_urls: Vec<Setting>,
    profiles: Vec<ShownProfile>,
    files: Vec<ShownFile>,
    /// What a command would be refused for.
    problems: Vec<String>,
}

/// A value and where it comes from.
#[derive(Serialize)]
struct Setting {
    name: &'static str,
    value: String,
    from: String,
}

#[derive(Serialize)]
struct ShownProfile {
    name: String,
    /// As they would be typed.
    flags: Vec<String>,
    from: String,
}

#[derive(Serialize)]
struct ShownFile {
    kind: String,
    path: String,
    read: bool,
}

impl Shown {
    fn new(args: &ConfigShowArgs, context: Context<'_>) -> Self {
        let config = context.config;
        let refused = config.check_url(context.broker, context.ambient).err();
        let mut problems: Vec<String> =
            refused.iter().map(ToString::to_string).chain(config.warning()).collect();
        let mut profiles: Vec<ShownProfile> = Vec::new();
        for (name, profile) in config.files.iter().flat_map(|file| &file.profiles) {
            // One that a file before has already is not in force.
            if profiles.iter().any(|shown| shown.name == *name) {
                continue;
            }
            problems.extend(faults(profile).iter().map(ToString::to_string));
            let flags = profile.flags.iter().map(|flag| flag.word.to_string_lossy().into_owned());
            profiles.push(ShownProfile {
                name: name.clone(),
                flags: flags.collect(),
                from: profile.at.to_string(),
            });
        }
        let allowed = config.files.iter().flat_map(|file| &file.allowed_urls);
        let allowed = allowed.map(|url| Setting {
            name: "allowed_urls",
            value: url.value.to_string(),
            from: url.at.to_string(),
        });
        Self {
            settings: settings(args, context, refused.is_none()),
            allowed_urls: allowed.collect(),
            profiles,
            files: files(config),
            problems,
        }
    }
}

/// What is in force, without what nobody has set.
fn settings(args: &ConfigShowArgs, context: Context<'_>, is_allowed: bool) -> Vec<Setting> {
    let (config, identity) = (context.config, &args.identity);
    let path = |path: Option<&Path>| path.map(|path| path.display().to_string());
    let in_file = |at: &dyn ToString, value: String| (value, at.to_string());
    let url = config.first(|file| {
        // A refused one is not in force, and nothing else is in its place.
        file.url.as_ref().filter(|_| is_allowed || file.origin != Origin::Project)
    });
    let kind = identity.kind.and_then(|kind| kind.to_possible_value());
    let rows = [
        (
            "url",
            ("--url", context.broker.url.clone()),
            Some("DAYFLY_URL"),
            url.map(|url| in_file(&url.at, url.value.to_string())),
        ),
        (
            "ca_file",
            ("--ca-file", path(context.broker.ca_file.as_deref())),
            Some("DAYFLY_CA_FILE"),
            config
                .first(|file| file.ca_file.as_ref())
                .map(|file| in_file(&file.at, file.value.display().to_string())),
        ),
        (
            "audience",
            ("--audience", identity.audience.clone()),
            Some("DAYFLY_AUDIENCE"),
            config
                .first(|file| file.audience.as_ref())
                .map(|audience| in_file(&audience.at, audience.value.clone())),
        ),
        (
            "identity",
            ("--identity", kind.map(|kind| kind.get_name().to_owned())),
            Some("DAYFLY_IDENTITY"),
            config
                .identity(context.ambient)
                .map(|identity| in_file(&identity.at, identity.value.clone())),
        ),
        ("token_file", ("--token-file", path(identity.token_file.as_deref())), None, None),
        (
            "proof_key_file",
            ("--proof-key-file", path(identity.proof_key_file.as_deref())),
            Some("DAYFLY_PROOF_KEY_FILE"),
            None,
        ),
        ("profile", ("--profile", None), Some("DAYFLY_PROFILE"), None),
    ];
    let rows = rows.into_iter().filter_map(|(name, (flag, typed), variable, file)| {
        let typed = typed.map(|value| (value, flag.to_owned()));
        let set = || {
            let variable = variable?;
            let value = context.ambient.value(variable)?;
            Some((value.to_string_lossy().into_owned(), variable.to_owned()))
        };
        let (value, from) = typed.or_else(set).or(file)?;
        Some(Setting { name, value, from })
    });
    rows.collect()
}

fn files(config: &Config) -> Vec<ShownFile> {
    let shown = |kind: Origin, path: &Path, read| ShownFile {
        kind: kind.to_string(),
        path: path.display().to_string(),
        read,
    };
    let ignored = config.ignored.iter().map(|path| shown(Origin::Project, path, false));
    let read = config.files.iter().map(|file| shown(file.origin, &file.path, true));
    ignored.chain(read).collect()
}

fn table(shown: &Shown) -> Table {
    let mut table = Table::new(COLUMNS);
    for setting in shown.settings.iter().chain(&shown.allowed_urls) {
        table.row([setting.name, &setting.value, &setting.from]);
    }
    for profile in &shown.profiles {
        let name = format!("profile {}", profile.name);
        table.row([&name, &profile.flags.join(" "), &profile.from]);
    }
    for file in &shown.files {
        let state = if file.read { "read" } else { "not read" };
        table.row([&format!("{} file", file.kind), &file.path, state]);
    }
    table
}

//! Profiles on the command line: a profile's flags stand before those that were typed.
//!
//! Invariant: the flags' own reader reads a profile too. A flag that was typed counts instead of
//! the profile's, and one that may be repeated (`--role`, `--env`, `--file`) besides it.

use std::{
    error::Error as _,
    ffi::{OsStr, OsString},
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser as _, error::ErrorKind};

use crate::{
    ambient::Ambient,
    args::{Cli, Command},
    config::{
        fault::Fault,
        profile::{Flag, Profile},
    },
};

/// `words` with the profile that the environment names. One that is typed counts instead.
pub(crate) fn with_named(words: Vec<OsString>, ambient: &Ambient) -> Vec<OsString> {
    match ambient.value("DAYFLY_PROFILE") {
        Some(name) => {
            let mut flag = OsString::from("--profile=");
            flag.push(name);
            with_flags(&words, [flag])
        }
        None => words,
    }
}

/// What `words` mean with `profile`.
pub(crate) fn applied(words: &[OsString], profile: &Profile) -> Result<Cli, clap::Error> {
    let words = with_flags(words, profile.flags.iter().map(|flag| flag.word.clone()));
    // The last one counts: the typed one.
    let matches = Cli::command().args_override_self(true).try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let Command::Exec(exec) = &mut cli.command {
        // A role that is asked for twice is a mistake, but not one of those who did it here.
        let mut roles = Vec::with_capacity(exec.roles.len());
        for role in std::mem::take(&mut exec.roles) {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        exec.roles = roles;
    }
    Ok(cli)
}

/// What no flag of `profile` may say.
pub(crate) fn faults(profile: &Profile) -> Vec<Fault> {
    profile.flags.iter().filter_map(fault).collect()
}

fn fault(flag: &Flag) -> Option<Fault> {
    let words = ["dayfly", "exec", "--profile=-"].map(OsStr::new);
    let command = ["--", "true"].map(OsStr::new);
    let words = words.into_iter().chain([flag.word.as_os_str()]).chain(command);
    let error = Cli::try_parse_from(words).err()?;
    let message = match (error.kind(), error.source()) {
        (ErrorKind::UnknownArgument, _) => "this version of dayfly can't do that".to_owned(),
        (_, Some(source)) => source.to_string(),
        (_, None) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    Some(Fault::new(flag.at.clone(), &flag.key, message))
}

/// `words` with `flags` right after `exec`; as they are if they are no `exec`.
fn with_flags(words: &[OsString], flags: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all = words.to_vec();
    if let Some(place) = command_place(words).filter(|place| is_exec(words.get(*place))) {
        let rest = all.split_off(place.saturating_add(1).min(all.len()));
        all.extend(flags);
        all.extend(rest);
    }
    all
}

fn is_exec(word: Option<&OsString>) -> bool {
    word.is_some_and(|word| word == "exec")
}

/// Where the command's name is: the first word that is no flag and no flag's value.
fn command_place(words: &[OsString]) -> Option<usize> {
    let program = Cli::command();
    let takes_value = |word: &str| {
        program.get_arguments().any(|argument| {
            let long = word.strip_prefix("--");
            long.is_some() && argument.get_long() == long && argument.get_action().takes_values()
        })
    };
    let mut place = 1;
    loop {
        let word = words.get(place)?.to_str()?;
        if !word.starts_with('-') {
            return Some(place);
        }
        place += if takes_value(word) { 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn with(text: &str) -> String {
        let all = with_flags(&words(text), ["--ttl=1m".into()]);
        all.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn flags_go_right_after_exec_whatever_stands_before_it() {
        for (text, expected) in [
            ("dayfly exec -- true", "dayfly exec --ttl=1m -- true"),
            ("dayfly -q exec true", "dayfly -q exec --ttl=1m true"),
            ("dayfly --url exec exec true", "dayfly --url exec exec --ttl=1m true"),
            ("dayfly --url=x exec dayfly exec", "dayfly --url=x exec --ttl=1m dayfly exec"),
        ] {
            assert_eq!(with(text), expected);
        }
    }

    #[test]
    fn other_commands_stay_as_they_are() {
        for text in ["dayfly", "dayfly --url", "dayfly whoami", "dayfly lease list --role exec"] {
            assert_eq!(with(text), text);
        }
    }

    #[test]
    fn the_profile_that_is_typed_counts_instead_of_the_environments() {
        let ambient = Ambient::from([("DAYFLY_PROFILE", "nightly")]);
        let profile = |text: &str| {
            let cli = Cli::try_parse_from(with_named(words(text), &ambient)).unwrap();
            let Command::Exec(exec) = cli.command else { panic!("not exec") };
            exec.profile
        };
        assert_eq!(profile("dayfly exec -- true").as_deref(), Some("nightly"));
        assert_eq!(profile("dayfly exec --profile p -- true").as_deref(), Some("p"));
        let unset = Ambient::from([("DAYFLY_PROFILE", "")]);
        let text = words("dayfly exec -- true");
        assert_eq!(with_named(text.clone(), &unset), text);
    }
}

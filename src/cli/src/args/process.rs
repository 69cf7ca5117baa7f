//! How `exec` treats its command as a process: what it inherits, which signals reach it, what
//! becomes of its output.
//!
//! Invariant: a flag that an exec'ed command would silently be without is refused beside
//! `--replace`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// What signals are passed on to
    #[arg(long, value_enum, default_value_t = SignalTarget::Auto, value_name = "WHOM")]
    pub(crate) signal_target: SignalTarget,

    /// Stop the command when the process that started us is gone [default: in CI]
    #[arg(long, overrides_with = "no_die_with_parent", conflicts_with = "replace")]
    pub(crate) die_with_parent: bool,

    /// Let the command outlive the process that started us
    #[arg(long, overrides_with = "die_with_parent")]
    pub(crate) no_die_with_parent: bool,

    /// End the credentials only when everything that the command has started is gone
    #[arg(long, conflicts_with = "replace")]
    pub(crate) wait_all: bool,

    /// Become the command: nothing renews the credentials, and they end with --ttl (an hour at
    /// most), not with the command
    #[arg(
        long,
        conflicts_with_all = ["aws_endpoint", "fifos", "files", "heartbeat", "on_expiry", "on_rotate", "report", "revoke_failure", "revoke_timeout", "stop_timeout"]
    )]
    pub(crate) replace: bool,

    /// What it means that a credential is not verified dead in time: with `fail`, 125 where the
    /// command itself succeeded
    #[arg(long, value_enum, default_value_t = RevokeFailure::Warn, value_name = "WHAT")]
    pub(crate) revoke_failure: RevokeFailure,

    /// Whether secrets are kept out of the command's output
    #[arg(long, value_enum, default_value_t = Mask::Auto, value_name = "WHEN")]
    pub(crate) mask: Mask,

    /// Leave a summary in this file, as JSON, whatever happens
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) environment: EnvironmentArgs,
}

/// What of our environment the command gets.
#[derive(Debug, Default, Args)]
pub(crate) struct EnvironmentArgs {
    /// Let what is there already win over the credentials: for these variables, or for all
    #[arg(
        long,
        value_name = "NAMES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "*"
    )]
    pub(crate) preserve_env: Option<Names>,

    /// Start from an empty environment, but for what every program needs and these variables
    #[arg(
        long,
        value_name = "NAMES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub(crate) clean_env: Option<Names>,

    /// Leave the command the CI platform's own identity, with which it can open tasks as we do
    #[arg(long)]
    pub(crate) keep_ci_identity: bool,
}

/// What a signal is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignalTarget {
    /// The command's group if it has one of its own, as it has without a terminal.
    Auto,
    /// The command alone.
    Child,
    /// The command's group, also where it is ours.
    Group,
}

/// What a credential that is not verified dead means for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevokeFailure {
    /// 125 where the command itself succeeded.
    Fail,
    /// Nothing: it is told on stderr.
    Warn,
}

/// Whether secrets are kept out of the command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mask {
    /// The output goes through a filter.
    Always,
    /// As the CI platform does it, by a filter on other platforms, and not at all outside of CI.
    Auto,
    /// The output is left alone.
    Never,
}

/// Names of variables; one that ends with `*` is the beginning of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<String>);

impl Names {
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == known,
        })
    }
}

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(ToOwned::to_owned).collect();
        let odd = |name: &&String| {
            let plain = name.strip_suffix('*').unwrap_or(name.as_str());
            plain.contains(['=', '*']) || plain.contains(char::is_whitespace)
        };
        match names.iter().find(odd) {
            Some(name) => {
                Err(format!("`{name}` is not a variable's name; expected A,B or PREFIX*"))
            }
            None => Ok(Self(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(words: &[&str]) -> Result<ProcessArgs, clap::Error> {
        let cli = Cli::try_parse_from([&["dayfly", "exec", "--role", "r"], words].concat())?;
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        Ok(exec.process)
    }

    #[test]
    fn names_are_a_list_in_which_a_star_ends_a_beginning() {
        let names: Names = "A, LC_*,".parse().unwrap();
        assert!(names.contain("A") && names.contain("LC_ALL") && names.contain("LC_"));
        assert!(!names.contain("AB") && !names.contain("LC"));
        for bad in ["A=b", "*A", "A B", "A**"] {
            assert!(bad.parse::<Names>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_comes_after_an_equals_sign_and_never_takes_the_command() {
        let environment = |words: &[&str]| parse(words).unwrap().environment;
        let bare = environment(&["--preserve-env", "--clean-env", "psql"]);
        assert!(bare.preserve_env.unwrap().contain("ANYTHING"));
        assert!(!bare.clean_env.unwrap().contain("ANYTHING"));
        let named = environment(&["--preserve-env=A,B", "--clean-env=C", "--", "psql"]);
        let (preserved, kept) = (named.preserve_env.unwrap(), named.clean_env.unwrap());
        assert!(preserved.contain("B") && !preserved.contain("C") && kept.contain("C"));
        assert!(environment(&["psql"]).preserve_env.is_none());
    }

    #[test]
    fn what_a_replaced_process_cannot_do_is_refused() {
        for flag in [
            "--wait-all",
            "--die-with-parent",
            "--heartbeat=1m",
            "--report=x",
            "--revoke-timeout=1s",
            "--revoke-failure=fail",
            "--stop-timeout=1s",
        ] {
            assert!(parse(&["--replace", flag, "--", "true"]).is_err(), "{flag}");
            assert!(parse(&[flag, "--", "true"]).is_ok(), "{flag}");
        }
        assert!(parse(&["--replace", "--", "true"]).unwrap().replace);
    }

    #[test]
    fn the_last_word_on_the_parent_counts() {
        let args = parse(&["--die-with-parent", "--no-die-with-parent", "true"]).unwrap();
        assert_eq!((args.die_with_parent, args.no_die_with_parent), (false, true));
    }
}

//! `dayfly completion`: what shells are told about the command line.
//!
//! Invariant: it needs neither configuration nor broker; a package is built with it.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::{
    args::{self, Cli, CompletionArgs},
    failure::{self, Failure},
    output::Terminal,
};

/// `dayfly completion`.
pub(crate) fn write(args: &CompletionArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let shell = match args.shell {
        args::Shell::Bash => Shell::Bash,
        args::Shell::Fish => Shell::Fish,
        args::Shell::Powershell => Shell::PowerShell,
        args::Shell::Zsh => Shell::Zsh,
    };
    terminal.data(&script(shell))?;
    Ok(failure::OK)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "dayfly", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_every_command_and_what_is_for_people_alone() {
        let mut pending = vec![Cli::command()];
        let mut names = Vec::new();
        while let Some(command) = pending.pop() {
            pending.extend(command.get_subcommands().cloned());
            names.extend(command.get_subcommands().map(|one| one.get_name().to_owned()));
        }
        assert!(names.len() > 20, "{names:?}");
        for shell in [Shell::Bash, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = script(shell);
            for name in &names {
                assert!(script.contains(name.as_str()), "{shell}: {name}");
            }
            // What `exec` calls itself by is nobody else's.
            assert!(!script.contains("exec-child"), "{shell}");
        }
    }
}

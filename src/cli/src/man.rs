//! `dayfly man`: a page for each command.
//!
//! Invariant: it needs neither configuration nor broker; a package is built with it.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::{
    args::{Cli, ManArgs},
    failure::{self, Failure},
    output::Terminal,
};

/// `dayfly man`.
pub(crate) fn write(args: &ManArgs, terminal: &Terminal) -> Result<u8, Failure> {
    let mut program = Cli::command();
    // Only then does a command know its flags that others have too, and its whole name.
    program.build();
    match &args.directory {
        None => {
            let text = text(&page(program))?;
            terminal.data(&String::from_utf8_lossy(&text))?;
        }
        Some(directory) => all(program, directory)
            .map_err(|source| Failure::Pages { path: directory.display().to_string(), source })?,
    }
    Ok(failure::OK)
}

/// Leaves the pages of `program` and of its commands in `directory`.
fn all(program: clap::Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut pending = vec![program];
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().filter(|one| !one.is_hide_set()).cloned());
        let page = page(command);
        fs::write(directory.join(page.get_filename()), text(&page)?)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> Man {
    let source = concat!("dayfly ", env!("CARGO_PKG_VERSION"));
    // An empty date is left out by the writer, and the source would stand in its place.
    Man::new(command).date(" ").source(source).manual("Dayfly")
}

fn text(page: &Man) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(command: &clap::Command, name: &str, into: &mut BTreeSet<String>) {
        into.insert(format!("{name}.1"));
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            names(one, &format!("{name}-{}", one.get_name()), into);
        }
    }

    #[test]
    fn each_command_has_a_page_of_its_whole_name() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("man1");
        let mut program = Cli::command();
        program.build();
        all(program, &directory).unwrap();
        let written = fs::read_dir(&directory).unwrap();
        let written: BTreeSet<String> =
            written.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let mut expected = BTreeSet::new();
        names(&Cli::command(), "dayfly", &mut expected);
        assert_eq!(written, expected);
        assert!(expected.contains("dayfly-lease-revoke.1"));
        let page = fs::read_to_string(directory.join("dayfly-lease-revoke.1")).unwrap();
        // Its own flag, and one of all commands.
        assert!(page.contains("reason") && page.contains("quiet"), "{page}");
        let title = concat!("\" \" \"dayfly ", env!("CARGO_PKG_VERSION"), "\" Dayfly\n");
        assert!(page.contains(title), "{page}");
    }
}

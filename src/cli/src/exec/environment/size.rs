//! Whether the system takes the command's arguments and environment.
//!
//! Invariant: what is too large is told with its size before the command is started, not as the
//! kernel's `Argument list too long` afterwards.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use super::{Error, VARIABLE_BYTES_MAX};

/// What we and a script's first line add: a few words, and the file's name.
const SPARE: usize = 8 * 1024;

/// Checks `command` with `variables` against what the system takes.
pub(crate) fn check(command: &[OsString], variables: &[(OsString, OsString)]) -> Result<(), Error> {
    fits(command, variables, allowed())
}

fn fits(
    command: &[OsString],
    variables: &[(OsString, OsString)],
    allowed: usize,
) -> Result<(), Error> {
    let long = variables.iter().find(|(name, value)| length(name, value) > VARIABLE_BYTES_MAX);
    if let Some((name, _)) = long {
        return Err(Error::TooLong { name: name.to_string_lossy().into_owned() });
    }
    let words = command.iter().map(|word| word.as_bytes().len() + 1);
    let variables = variables.iter().map(|(name, value)| length(name, value));
    // Each string has a pointer as well.
    let needed: usize = words.chain(variables).map(|bytes| bytes + size_of::<usize>()).sum();
    if needed + SPARE > allowed {
        return Err(Error::TooLarge { needed_kib: needed / 1024, allowed_kib: allowed / 1024 });
    }
    Ok(())
}

/// Of `NAME=value` with its final NUL.
fn length(name: &OsStr, value: &OsStr) -> usize {
    name.as_bytes().len() + value.as_bytes().len() + 2
}

/// A quarter of the stack, but not more than 6 MiB and not less than 128 KiB: `execve(2)`.
#[cfg(target_os = "linux")]
fn allowed() -> usize {
    let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let quarter = usize::try_from(stack.unwrap_or(u64::MAX) / 4).unwrap_or(usize::MAX);
    quarter.clamp(128 * 1024, 6 * 1024 * 1024)
}

/// What every other system takes that we run on.
#[cfg(not(target_os = "linux"))]
fn allowed() -> usize {
    1024 * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, bytes: usize) -> (OsString, OsString) {
        (name.into(), "x".repeat(bytes).into())
    }

    #[test]
    fn what_the_system_does_not_take_is_told_with_its_size() {
        let variables: Vec<_> = (0..40).map(|i| variable(&format!("V{i}"), 100 * 1024)).collect();
        let error = fits(&["true".into()], &variables, 2 * 1024 * 1024).unwrap_err().to_string();
        assert!(error.contains("4000 KiB") && error.contains("2048 KiB"), "{error}");
        assert!(error.contains("--clean-env"), "{error}");
        assert!(fits(&["true".into()], &variables, 6 * 1024 * 1024).is_ok());
    }

    #[test]
    fn one_variable_has_a_limit_of_its_own() {
        let fits_at = |bytes| fits(&[], &[variable("LONG", bytes)], 6 * 1024 * 1024);
        assert!(fits_at(VARIABLE_BYTES_MAX - "LONG=".len() - 1).is_ok());
        let error = fits_at(VARIABLE_BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains("LONG") && error.len() < 200, "{error}");
    }

    /// The kernel itself is the judge: what we let pass must start, and with much more it must not.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_is_the_kernels() {
        let start = |kib: usize| {
            let variables = (0..kib.div_ceil(100)).map(|i| variable(&format!("V{i}"), 100 * 1024));
            let variables: Vec<_> = variables.collect();
            let passed = check(&["true".into()], &variables).is_ok();
            let started =
                std::process::Command::new("/bin/true").env_clear().envs(variables).status();
            (passed, started.is_ok())
        };
        let allowed_kib = allowed() / 1024;
        assert_eq!(start(allowed_kib - 200), (true, true));
        assert_eq!(start(allowed_kib + 200), (false, false));
    }
}

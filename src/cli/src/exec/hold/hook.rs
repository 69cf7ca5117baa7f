//! The user's own command after a replacement.
//!
//! Invariant: it has an end, and what it says goes to stderr: stdout is the command's.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

const WITHIN: Duration = Duration::from_mins(1);

/// Runs `command` in a shell with `variables`, or says what became of it.
pub(super) async fn run(command: &str, variables: Vec<(OsString, OsString)>) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env_clear().envs(variables).kill_on_drop(true);
    shell.stdin(Stdio::null()).stdout(io::stderr());
    match timeout(WITHIN, shell.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed ({status})")),
        Ok(Err(error)) => Err(format!("can't be run: {error}")),
        Err(_) => Err("took longer than a minute and was killed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_told_with_its_code() {
        let variables = vec![("ANSWER".into(), "42".into())];
        assert_eq!(run("test \"$ANSWER\" = 42", variables).await, Ok(()));
        assert_eq!(run("exit 3", Vec::new()).await, Err("failed (exit status: 3)".to_owned()));
    }
}

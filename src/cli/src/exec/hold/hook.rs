//! The user's own command after a replacement.
//!
//! Invariant: it has an end, and what it says goes to stderr, as what the command says there does:
//! stdout is the command's.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::mask::Masking;

const WITHIN: Duration = Duration::from_mins(1);
/// What the end of its output may take after its own.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs `command` in a shell with `variables`, or says what became of it.
pub(super) async fn run(
    command: &str,
    variables: Vec<(OsString, OsString)>,
    masking: &Masking<'_>,
) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env_clear().envs(variables).kill_on_drop(true);
    let [out, err] = masking.streams_to_stderr();
    shell.stdin(Stdio::null()).stdout(out).stderr(err);
    let unfit = |error: io::Error| format!("can't be run: {error}");
    let mut child = shell.spawn().map_err(unfit)?;
    let drains = masking.attach_to_stderr(&mut child).map_err(unfit)?;
    let ended = timeout(WITHIN, child.wait()).await;
    drop(child);
    // What it has left behind may print for as long as it likes.
    let _ = timeout(DRAIN, drains.finish(true)).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed ({status})")),
        Ok(Err(error)) => Err(unfit(error)),
        Err(_) => Err("took longer than a minute and was killed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ambient::Ambient, args::process::Mask, output::Terminal};

    #[tokio::test]
    async fn a_failure_is_told_with_its_code() {
        let (ambient, terminal) = (Ambient::default(), Terminal::standard(true));
        let masking = Masking::new(Mask::Never, false, None, &ambient, &terminal).unwrap();
        let variables = vec![("ANSWER".into(), "42".into())];
        assert_eq!(run("test \"$ANSWER\" = 42", variables, &masking).await, Ok(()));
        let failed = run("exit 3", Vec::new(), &masking).await;
        assert_eq!(failed, Err("failed (exit status: 3)".to_owned()));
    }
}

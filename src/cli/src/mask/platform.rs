//! How CI platforms are told what to hide.
//!
//! Invariant: a value is told in the platform's own escaping and on one line, so that no value can
//! become a command of its own; arguments, which others can read, hold none.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{SECRET_BYTES_MIN, Secret};
use crate::{ambient::Ambient, ci::Ci};

/// What the agent may take: it asks a process on the same machine.
const AGENT: Duration = Duration::from_secs(5);

/// What to write for GitHub or Azure. Both read commands from stderr as from stdout, and stderr
/// first; stdout is the command's own, which may go to `gzip` or to a file.
pub(super) fn commands(ci: Ci, secrets: &[Secret<'_>]) -> String {
    let mut text = String::new();
    for secret in secrets {
        // A short line of a long value, such as a bracket, would hide half of the log.
        let lines = secret.value.lines().map(str::trim);
        for line in lines.filter(|line| line.len() >= SECRET_BYTES_MIN) {
            let (command, line) = match ci {
                Ci::Azure => ("##vso[task.setsecret]", azure(line)),
                Ci::Buildkite | Ci::GitHub | Ci::Other => ("::add-mask::", github(line)),
            };
            text.extend([command, &line, "\n"]);
        }
    }
    text
}

fn github(line: &str) -> String {
    line.replace('%', "%25").replace('\r', "%0D")
}

fn azure(line: &str) -> String {
    let line = line.replace('%', "%AZP25").replace(';', "%3B");
    line.replace(']', "%5D").replace('\r', "%0D")
}

/// Has Buildkite's agent hide `value` from now on.
pub(super) async fn redact(agent: &Path, ambient: &Ambient, value: &str) -> io::Result<()> {
    let mut command = Command::new(agent);
    command.args(["redactor", "add"]).env_clear().envs(ambient.iter()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let told = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(value.as_bytes()).await?;
        }
        child.wait().await
    };
    match timeout(AGENT, told).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(io::Error::other(status.to_string())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ci: Ci, value: &str) -> String {
        commands(ci, &[Secret { label: "r/f".into(), value }])
    }

    #[test]
    fn each_line_is_a_command_and_no_value_becomes_one() {
        assert_eq!(told(Ci::GitHub, "hunter2-secret"), "::add-mask::hunter2-secret\n");
        assert_eq!(
            told(Ci::GitHub, "{\n\"key\": \"100%0A::set\"\r\n}"),
            "::add-mask::\"key\": \"100%250A::set\"\n"
        );
        assert_eq!(told(Ci::Azure, "a;b]c%3Bdef"), "##vso[task.setsecret]a%3Bb%5Dc%AZP253Bdef\n");
    }

    #[tokio::test]
    async fn the_agent_is_given_the_value_by_its_stdin_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let (agent, seen) = (home.path().join("agent"), home.path().join("seen"));
        let script = "#!/bin/sh\n[ \"$*\" = \"redactor add\" ] || exit 1\ncat >\"$SEEN\"\n";
        std::fs::write(&agent, script).unwrap();
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        let place = seen.to_str().unwrap();
        let ambient = Ambient::from([("PATH", "/usr/bin:/bin"), ("SEEN", place)]);
        redact(&agent, &ambient, "hunter2-secret").await.unwrap();
        assert_eq!(std::fs::read_to_string(&seen).unwrap(), "hunter2-secret");
        std::fs::write(&agent, "#!/bin/sh\ncat >/dev/null; exit 3\n").unwrap();
        assert!(redact(&agent, &ambient, "hunter2-secret").await.is_err());
    }
}

//! `dayfly task open`: a task whose credentials outlive this program, for scripts that can't be run
//! by `exec`.
//!
//! Invariant: what is secret is written to files of this user's alone, in a directory that was made
//! for it; a task whose credentials could not be left there is cancelled.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use dayfly_api::{Bind, CreateTask, Lease, OpenedTask, Outcome};

use crate::{
    args::{Context, TaskOpenArgs},
    client::Client,
    exec::{attended::Caught, environment, opening::Opening},
    failure::{self, Failure},
    identity::Token,
    output::Terminal,
};

/// How long to wait for the end of credentials that nobody will use.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// `dayfly task open`.
pub(crate) async fn open(args: &TaskOpenArgs, context: Context<'_>) -> Result<u8, Failure> {
    environment::check(&args.roles)?;
    let client = context.client()?;
    let source = context.workload(&args.identity, &client)?;
    let audience = context.audience(&args.identity, &client);
    let key = context.kept_key(&args.identity)?;
    let on_behalf_of = args.on_behalf.token(context.ambient)?;
    let directory = Directory::make(&args.directory)?;
    let request = CreateTask {
        purpose: args.purpose.clone(),
        ttl_seconds: seconds(args.ttl),
        // Nobody stays who could be heard.
        heartbeat_seconds: None,
        // Whoever completes the task with the key's file must be able to rely on it.
        bind: key.as_ref().map(|_| Bind::Key),
        roles: environment::roles(&args.roles),
        on_behalf_of,
    };
    let mut caught = Caught::install()?;
    let opening = Opening {
        client: &client,
        source: &source,
        audience: &audience,
        key: key.as_ref(),
        request: &request,
    };
    let (opened, stopped) = match caught.open(opening, context.terminal).await {
        Ok(opened) => opened,
        Err(failure) => {
            directory.remove();
            return Err(failure);
        }
    };
    let token = Token::of_task(&opened, key.as_ref())?;
    let left = match stopped {
        Some(stopped) => Err(stopped.into()),
        None => leave(args, &opened, &directory),
    };
    let done = match left {
        Ok(()) => tokio::select! {
            () = tell(args, &opened, (&client, &token), context.terminal) => Ok(()),
            stopped = caught.stopped() => Err(stopped.into()),
        },
        Err(failure) => Err(failure),
    };
    if let Err(failure) = done {
        directory.remove();
        // What fails here is told by the deadline; the first failure is what the user must know.
        let _ = client.complete_task(&token, &opened.id, Outcome::Cancelled, CANCEL_WAIT).await;
        return Err(failure);
    }
    Ok(failure::OK)
}

/// Gives each lease the life that it can have, and tells of it.
async fn tell(
    args: &TaskOpenArgs,
    opened: &OpenedTask,
    (client, token): (&Client, &Token),
    terminal: &Terminal,
) {
    for lease in &opened.leases {
        let until = lengthened(lease, args.ttl, client, token, terminal).await;
        terminal.note(&format!(
            "task {}: role `{}` → lease {} ({}, until {until})",
            opened.id, lease.role, lease.id, lease.backend
        ));
    }
}

/// Writes what the script needs. What completes the task comes first, so that there is never a
/// credential that could not be ended.
fn leave(
    args: &TaskOpenArgs,
    opened: &OpenedTask,
    directory: &Directory<'_>,
) -> Result<(), Failure> {
    directory.write("token", &format!("{}\n", opened.token))?;
    directory.write("task", &format!("{}\n", opened.id))?;
    let variables = environment::injected(&args.roles, &opened.leases)?;
    directory.write("env", &script(&variables))
}

/// What a POSIX shell sources.
fn script(variables: &BTreeMap<String, String>) -> String {
    let competing = environment::competing(variables).into_iter();
    let mut lines: Vec<String> = competing.map(|name| format!("unset {name}\n")).collect();
    lines.extend(
        variables
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', "'\\''"))),
    );
    lines.concat()
}

/// The end of `lease`, after it was given the longest life within the task's that it can have:
/// nobody will renew it later.
pub(crate) async fn lengthened(
    lease: &Lease,
    ttl: Duration,
    client: &Client,
    token: &Token,
    terminal: &Terminal,
) -> String {
    if !lease.renewable {
        return lease.expires_at.clone();
    }
    match client.renew_lease(token, &lease.id, seconds(ttl)).await {
        Ok(renewed) => renewed.expires_at,
        Err(error) => {
            terminal.warn(&format!(
                "cannot renew lease {} (role `{}`): {}",
                lease.id,
                lease.role,
                Failure::from(error).to_line()
            ));
            lease.expires_at.clone()
        }
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A directory that this program has made.
#[derive(Debug)]
struct Directory<'a>(&'a Path);

impl<'a> Directory<'a> {
    /// One that was there already could be somebody else's, or hold the credentials of a task that
    /// is still open.
    fn make(path: &'a Path) -> Result<Self, Failure> {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map(|()| Self(path)).map_err(|source| fault(path, source))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.0.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| fault(&path, source))
    }

    fn remove(&self) {
        // There is a worse failure to tell.
        let _ = fs::remove_dir_all(self.0);
    }
}

fn fault(path: &Path, source: io::Error) -> Failure {
    Failure::Directory { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        let pairs = [("PGHOST", "db"), ("PGPASSWORD", "it's `$HOME`\nand more")];
        let variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = script(&BTreeMap::from(variables));
        let unset = "unset PGHOSTADDR\nunset PGSERVICE\nunset PGSERVICEFILE\nunset PGPASSFILE\n";
        assert!(text.starts_with(&format!("{unset}export PGHOST='db'\n")), "{text}");
        let program = format!("{text}printf %s \"$PGPASSWORD\"");
        let output = std::process::Command::new("sh").args(["-c", &program]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's `$HOME`\nand more");
    }

    #[test]
    fn a_directory_that_is_there_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        assert!(matches!(Directory::make(place.path()), Err(Failure::Directory { .. })));
    }
}

//! `--report`: what became of a run, for programs.
//!
//! Invariant: it is written whole or not at all, for this user alone, on every way out, and never
//! holds a secret.

use std::{cell::RefCell, fs, io, path::Path};

use dayfly_api::{Lease, OpenedTask};
use serde::Serialize;

use crate::{exec::child::Exit, private};

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Record(RefCell<Report>);

#[derive(Debug, Default, Serialize)]
struct Report {
    /// None if no task was opened.
    task: Option<String>,
    leases: Vec<LeaseReport>,
    /// None if the command was never started.
    child: Option<ChildReport>,
    rotations: u64,
}

#[derive(Debug, Serialize)]
struct LeaseReport {
    id: String,
    role: String,
    expires_at: String,
    /// Whether it was verified dead before we ended.
    revoked: bool,
}

/// How the command ended, one of both.
#[derive(Debug, Serialize)]
struct ChildReport {
    exit_code: Option<u8>,
    signal: Option<i32>,
}

impl LeaseReport {
    fn of(lease: &Lease) -> Self {
        Self {
            id: lease.id.clone(),
            role: lease.role.clone(),
            expires_at: lease.expires_at.clone(),
            revoked: false,
        }
    }
}

impl Record {
    pub(super) fn opened(&self, task: &OpenedTask) {
        let mut report = self.0.borrow_mut();
        report.task = Some(task.id.clone());
        report.leases.extend(task.leases.iter().map(LeaseReport::of));
    }

    /// A lease has taken the place of another one.
    pub(super) fn replaced(&self, lease: &Lease) {
        let mut report = self.0.borrow_mut();
        report.rotations = report.rotations.saturating_add(1);
        report.leases.push(LeaseReport::of(lease));
    }

    /// A lease lives longer than was known.
    pub(super) fn renewed(&self, lease: &str, expires_at: &str) {
        let mut report = self.0.borrow_mut();
        if let Some(lease) = report.leases.iter_mut().find(|known| known.id == lease) {
            expires_at.clone_into(&mut lease.expires_at);
        }
    }

    /// The latest instant at which one of the leases ends.
    pub(super) fn last_expiry(&self) -> Option<String> {
        self.0.borrow().leases.iter().map(|lease| lease.expires_at.clone()).max()
    }

    pub(super) fn ended(&self, exit: Exit) {
        let (exit_code, signal) = match exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
        };
        self.0.borrow_mut().child = Some(ChildReport { exit_code, signal });
    }

    /// The credentials for which `is_dead` holds were verified dead.
    pub(super) fn revoked(&self, is_dead: impl Fn(&str) -> bool) {
        for lease in &mut self.0.borrow_mut().leases {
            lease.revoked = is_dead(&lease.id);
        }
    }

    /// Writes it beside `path` and then into its place.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(&*self.0.borrow())?;
        text.push('\n');
        private::replace(path, text.as_bytes())
    }
}

/// Finds out before anything is minted whether a report can be left at `path`.
pub(super) fn check(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let draft = private::draft(path)?;
    private::write_new(&draft, b"")?;
    fs::remove_file(draft)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_report_takes_the_place_of_an_older_one_and_is_this_users_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.json");
        fs::write(&path, "older").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "older");
        let record = Record::default();
        record.ended(Exit::Code(3));
        record.write(&path).unwrap();
        let report: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let expected = serde_json::json!({
            "task": null, "leases": [], "child": { "exit_code": 3, "signal": null }, "rotations": 0
        });
        assert_eq!(report, expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_none_can_be_left_is_known_beforehand() {
        let home = tempfile::tempdir().unwrap();
        assert!(check(home.path()).is_err());
        assert!(check(&home.path().join("missing/report.json")).is_err());
        assert!(check(Path::new("/")).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

//! Which process a directory belongs to, as its name says it.
//!
//! Invariant: a process is called dead only where its number can be looked up: in its own PID
//! namespace. A number that another process has got since is told by the time of its start.

use std::{fmt, fs, str::FromStr};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

/// A process, by more than its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    /// In ticks since the machine's start.
    started: u64,
    namespace: u64,
}

impl Owner {
    /// This process; `None` without `/proc`.
    pub(super) fn ourselves() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, started: started(pid)?, namespace: namespace()? })
    }

    /// Whether it is known to be no more.
    pub(super) fn is_dead(&self) -> bool {
        if namespace() != Some(self.namespace) {
            return false;
        }
        // One that hides its memory cannot be looked at where `/proc` is mounted with `hidepid`;
        // that it is there can be asked all the same.
        started(self.pid).map_or_else(|| is_gone(self.pid), |started| started != self.started)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.pid, self.started, self.namespace)
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(());
        let (pid, started, namespace) = (next()?, next()?, next()?);
        let pid = u32::try_from(pid).map_err(|_| ())?;
        if parts.next().is_some() { Err(()) } else { Ok(Self { pid, started, namespace }) }
    }
}

/// Whether no process has the number.
fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// When a process started.
fn started(pid: u32) -> Option<u64> {
    started_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd value. The second is the program's name in parentheses, which may hold any of them.
fn started_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_start_is_found_behind_any_name() {
        let values: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("17 (a) b (c) {}\n", values.join(" "));
        assert_eq!(started_in(&stat), Some(22));
        assert_eq!(started_in("17 (a"), None);
    }

    #[test]
    fn we_are_alive_and_who_had_our_number_before_is_not() {
        let ourselves = Owner::ourselves().unwrap();
        assert_eq!(ourselves.to_string().parse(), Ok(ourselves.clone()));
        assert!(!ourselves.is_dead());
        let before = Owner { started: ourselves.started - 1, ..ourselves.clone() };
        assert!(before.is_dead());
        let elsewhere = Owner { namespace: 1, ..before };
        assert!(!elsewhere.is_dead(), "nobody here can know");
        for bad in ["", "1", "1-2", "1-2-3-4", "a-1-2", "-1-2-3", "99999999999-1-2"] {
            assert_eq!(bad.parse::<Owner>(), Err(()), "{bad}");
        }
    }
}

//! Processes that the command has left behind: they become our children, also where we are not
//! the first process of a container.
//!
//! Invariant: nobody's exit status is taken away: the command itself is left to who waits for it,
//! and so is everything that was not found dead twice, a while apart.

use std::{cell::Cell, collections::BTreeSet, fs, future::pending, time::Duration};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, waitid, waitpid,
    },
};
use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::sleep,
};

/// Who waits for a process of ours hears of its death sooner than this.
const UNCLAIMED: Duration = Duration::from_secs(1);
/// Between two looks at whether everybody is gone.
const LOOK: Duration = Duration::from_millis(200);

/// Reaps what nobody waits for.
#[derive(Debug)]
pub(super) struct Reaper {
    deaths: Option<Stream>,
}

impl Reaper {
    /// To be made before the command is started. From then on, deaths are told to us even if we
    /// were started with SIGCHLD ignored, which would leave nothing to wait for.
    pub(super) fn install() -> Self {
        // Without it daemons go to the first process, as they would without us.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(getpid()));
        Self { deaths: signal(SignalKind::child()).ok() }
    }

    /// Reaps for as long as it is polled. The command, which may become another process, is waited
    /// for by somebody else.
    pub(super) async fn reap(&mut self, command: &Cell<Option<Pid>>) {
        let Some(deaths) = &mut self.deaths else { return pending().await };
        let mut dead = BTreeSet::new();
        loop {
            let mut unclaimed: BTreeSet<i32> = children()
                .into_iter()
                .filter(|child| child.is_dead)
                .map(|child| child.id)
                .collect();
            unclaimed.retain(|id| Pid::from_raw(*id) != command.get());
            for id in unclaimed.intersection(&dead) {
                // Who has reaped it after all has done our work.
                let _ = waitpid(Pid::from_raw(*id), WaitOptions::NOHANG);
            }
            unclaimed.retain(|id| !dead.contains(id));
            dead = unclaimed;
            if dead.is_empty() {
                deaths.recv().await;
            } else {
                sleep(UNCLAIMED).await;
            }
        }
    }
}

/// Waits until no child is left, dead or alive. Somebody must reap them.
pub(super) async fn all_gone() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while !matches!(waitid(WaitId::All, options), Err(Errno::CHILD)) {
        sleep(LOOK).await;
    }
}

/// How many of our children still run.
pub(super) fn running() -> usize {
    children().iter().filter(|child| !child.is_dead).count()
}

/// Sends `signal` to every child. None of their ids can have gone to another process, since nobody
/// has reaped them meanwhile.
pub(super) fn signal_all(signal: Signal) {
    for child in children().iter().filter(|child| !child.is_dead) {
        if let Some(pid) = Pid::from_raw(child.id) {
            let _ = kill_process(pid, signal);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Child {
    id: i32,
    is_dead: bool,
}

/// Our children, as far as the system shows them; none where it has no `/proc`.
fn children() -> Vec<Child> {
    let own = getpid().as_raw_nonzero().get();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let stats =
        ids.filter_map(|id| Some((id, fs::read_to_string(format!("/proc/{id}/stat")).ok()?)));
    stats.filter_map(|(id, stat)| child_of(own, id, &stat)).collect()
}

/// The process `id`, if `parent` is its parent by what the system says of it.
fn child_of(parent: i32, id: i32, stat: &str) -> Option<Child> {
    // The name before it may hold anything, brackets and spaces too.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let is_ours = fields.next()?.parse() == Ok(parent);
    is_ours.then_some(Child { id, is_dead: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_by_its_parent_and_its_state() {
        let of = |stat| child_of(7, 9, stat);
        assert_eq!(of("9 (sh) S 7 9 9 0"), Some(Child { id: 9, is_dead: false }));
        assert_eq!(of("9 (a) Z 1) Z 7 9 9 0"), Some(Child { id: 9, is_dead: true }));
        assert_eq!(of("9 (sh) S 77 9 9 0"), None);
        assert_eq!(of("garbage"), None);
    }
}

//! Signals to us, with who sent them.
//!
//! Invariant: a signal that was ignored when we started stays ignored, for us and for the
//! command: that is how `nohup` and the shell's background jobs work.

use std::{collections::VecDeque, fs, future::pending, io, thread};

use rustix::process::{Signal, getpid};
use signal_hook::{
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::Origin,
};
use tokio::sync::mpsc;

use crate::exec::parent::{self, Parent};

/// What is caught. Not TSTP: we stop with the rest of the job.
const CAUGHT: [Signal; 8] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::CONT,
    Signal::WINCH,
];
/// The kernel itself keeps one pending signal of each number.
const QUEUE: usize = 64;

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) signal: Signal,
    /// Whether a process sent it, with `kill` say. What the kernel sends comes from the terminal
    /// and has gone to the whole foreground group.
    pub(super) from_process: bool,
    /// Whether it says that the process that started us is gone. It is then a TERM.
    pub(super) from_parents_death: bool,
}

/// The signals of [`CAUGHT`], in the order of their arrival.
#[derive(Debug)]
pub(super) struct Signals {
    arriving: mpsc::Receiver<Arrived>,
    /// Those that came before there was a command to pass them to.
    early: VecDeque<Arrived>,
    have_stopped_us: bool,
}

impl Signals {
    /// From here on the signals no longer have their default actions. `parent` is whose end is to
    /// be told as well.
    pub(super) fn install(parent: Option<Parent>) -> io::Result<Self> {
        let ignored = ignored();
        let death = parent.and(parent::DEATH);
        let caught = CAUGHT.into_iter().chain(death).map(Signal::as_raw);
        let caught = caught.filter(|number| ignored & (1_u64 << (number - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(caught)?;
        let (sender, arriving) = mpsc::channel(QUEUE);
        // It ends with the process: there is nothing to clean up, and no moment at which a
        // signal should find its default action again.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in &mut signals {
                let Some(arrived) = arrived(&origin, parent) else { continue };
                if sender.blocking_send(arrived).is_err() {
                    return;
                }
            }
        })?;
        if parent.is_some() {
            // Where this can't be had, what is left is the heartbeat.
            let _ = Parent::watch();
        }
        Ok(Self { arriving, early: VecDeque::new(), have_stopped_us: false })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Arrived {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        match self.arriving.recv().await {
            Some(arrived) => arrived,
            None => pending().await,
        }
    }

    /// The next signal, if it has arrived.
    pub(super) fn arrived(&mut self) -> Option<Arrived> {
        self.early.pop_front().or_else(|| self.arriving.try_recv().ok())
    }

    /// Waits for a signal that ends us; others are kept for the command.
    pub(super) async fn stopped(&mut self) -> Signal {
        loop {
            match self.arriving.recv().await {
                Some(arrived) if ends_us(arrived.signal) => {
                    self.have_stopped_us = true;
                    return arrived.signal;
                }
                Some(arrived) => self.keep(arrived),
                None => pending().await,
            }
        }
    }

    /// Whether somebody who waited for one that ends us was told of it.
    pub(super) fn have_stopped_us(&self) -> bool {
        self.have_stopped_us
    }

    /// A signal that ends us, if one has arrived.
    pub(super) fn pending_stop(&mut self) -> Option<Signal> {
        while let Ok(arrived) = self.arriving.try_recv() {
            if ends_us(arrived.signal) {
                return Some(arrived.signal);
            }
            self.keep(arrived);
        }
        None
    }

    fn keep(&mut self, arrived: Arrived) {
        if self.early.len() < QUEUE {
            self.early.push_back(arrived);
        }
    }
}

fn ends_us(signal: Signal) -> bool {
    ![Signal::USR1, Signal::USR2, Signal::CONT, Signal::WINCH].contains(&signal)
}

/// What a signal means to us; nothing if we sent it ourselves, to a group that we are in.
fn arrived(origin: &Origin, parent: Option<Parent>) -> Option<Arrived> {
    if parent::DEATH.is_some_and(|death| death.as_raw() == origin.signal) {
        let is_gone = parent.is_some_and(Parent::is_gone);
        return is_gone.then_some(Arrived {
            signal: Signal::TERM,
            from_process: true,
            from_parents_death: true,
        });
    }
    let signal = CAUGHT.into_iter().find(|signal| signal.as_raw() == origin.signal)?;
    let sender = origin.process.map(|process| process.pid);
    if sender == Some(getpid().as_raw_nonzero().get()) {
        return None;
    }
    // Only Linux says whether there was a sender; one of another PID namespace is 0 there. On
    // others 0 is the kernel.
    let from_process = sender.is_some_and(|pid| cfg!(target_os = "linux") || pid != 0);
    Some(Arrived { signal, from_process, from_parents_death: false })
}

/// The signals that we were started with as ignored, as a mask; none where it can't be told.
fn ignored() -> u64 {
    fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_in(&status))
}

fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t00000001\n";
        assert_eq!(ignored_in(status), 1 << (Signal::HUP.as_raw() - 1) | 1 << 12);
        assert_eq!(ignored_in("Name:\tx\n"), 0);
    }
}

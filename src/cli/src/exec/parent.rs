//! The process that started us, and its end.
//!
//! Invariant: its end is believed only if it is no longer our parent: the kernel also tells of
//! the end of the mere thread by which it started us, as pools of threads have them.

use rustix::process::{Pid, Signal, getppid};

/// What the kernel is asked to send. Nothing else on Linux sends it, so it is never taken for a
/// request; a real-time signal would serve as well, but can't be had without unsafe code.
#[cfg(target_os = "linux")]
pub(super) const DEATH: Option<Signal> = Some(Signal::STKFLT);
#[cfg(not(target_os = "linux"))]
pub(super) const DEATH: Option<Signal> = None;

/// Who was our parent when we were started; none that we could see if it is in another PID
/// namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent(Option<Pid>);

impl Parent {
    /// To be asked as early as possible: who has gone before is never noticed.
    pub(super) fn at_start() -> Self {
        Self(getppid())
    }

    pub(super) fn is_gone(self) -> bool {
        getppid() != self.0
    }

    /// Asks to be sent [`DEATH`] when it is gone. The signal must be caught by then: its default
    /// action would end us, and nobody would end the credentials.
    pub(super) fn watch() -> rustix::io::Result<()> {
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(DEATH)?;
        Ok(())
    }
}

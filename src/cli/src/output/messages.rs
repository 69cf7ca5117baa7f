//! The way of messages to stderr.
//!
//! Invariant: nobody who reads them, or does not, makes us wait while we have anything else to do:
//! a log that stands still must not stop a heartbeat. Messages keep their order, and what is left
//! out is said to be.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe that is ready takes without waiting (POSIX `PIPE_BUF`, by its Linux value).
const AT_ONCE_BYTES: usize = 4096;
/// Messages that wait. More than a run has to say; less than would matter for memory.
const WAITING_MAX: usize = 256;
/// How long nobody may read before what still waits at our end is given up.
const STILL_MAX: Duration = Duration::from_mins(1);
/// Between two looks at what still waits.
const LOOK: Duration = Duration::from_millis(20);

/// Messages to stderr.
#[derive(Debug, Default)]
pub(super) struct Messages {
    queue: RefCell<Option<Queue>>,
    /// How many found no place.
    lost: Cell<u64>,
}

/// Those that wait for their reader, and the thread that waits with them.
#[derive(Debug)]
struct Queue {
    sender: SyncSender<Vec<u8>>,
    written: Arc<AtomicU64>,
    sent: u64,
}

impl Messages {
    /// Writes `text` now, or leaves it to a thread where that would have to wait. Without stderr
    /// there is nobody to tell that stderr is gone.
    pub(super) fn write(&self, text: &str) {
        if self.is_idle() && text.len() <= AT_ONCE_BYTES && is_ready() {
            let _ = io::stderr().write_all(text.as_bytes());
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if queue.is_none() {
            *queue = Queue::start().ok();
        }
        match queue.as_mut() {
            Some(queue) => {
                let lost = self.lost.get();
                if lost > 0 && queue.push(lost_line(lost)) {
                    self.lost.set(0);
                }
                if !queue.push(text.as_bytes().to_vec()) {
                    self.lost.set(self.lost.get().saturating_add(1));
                }
            }
            // There is no thread to be had: waiting is all that is left.
            None => drop(io::stderr().write_all(text.as_bytes())),
        }
    }

    /// Waits until all has been read, as long as somebody reads. To be called when there is nothing
    /// else to do.
    pub(super) fn finish(&self) {
        let (mut before, mut still) = (0, Duration::ZERO);
        while !self.is_idle() && still < STILL_MAX {
            thread::sleep(LOOK);
            let now = self.queue.borrow().as_ref().map_or(0, Queue::written);
            still = if now == before { still + LOOK } else { Duration::ZERO };
            before = now;
        }
        let lost = self.lost.replace(0);
        if lost > 0 && is_ready() {
            let _ = io::stderr().write_all(&lost_line(lost));
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.borrow().as_ref().is_none_or(|queue| queue.written() == queue.sent)
    }
}

impl Queue {
    fn start() -> io::Result<Self> {
        let mut stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (sender, waiting) = sync_channel::<Vec<u8>>(WAITING_MAX);
        let written = Arc::new(AtomicU64::new(0));
        let progress = Arc::clone(&written);
        // It ends with the process.
        thread::Builder::new().name("messages".to_owned()).spawn(move || {
            for message in waiting {
                let _ = stderr.write_all(&message);
                progress.fetch_add(1, Ordering::AcqRel);
            }
        })?;
        Ok(Self { sender, written, sent: 0 })
    }

    /// Whether there was a place for it.
    fn push(&mut self, message: Vec<u8>) -> bool {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.sent += 1;
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

fn lost_line(lost: u64) -> Vec<u8> {
    let what = if lost == 1 { "a message was" } else { "messages were" };
    format!("dayfly: warning: {what} lost here ({lost}), since nobody read them\n").into_bytes()
}

/// Whether stderr takes a message without waiting.
fn is_ready() -> bool {
    let stderr = io::stderr();
    let mut streams = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut streams, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

//! The way of messages to stderr.
//!
//! Invariant: while a command of ours runs, nobody who reads them, or does not, makes us wait: a log
//! that stands still must not stop a heartbeat. Messages keep their order, and where some were left
//! out, that is said there.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    rc::Rc,
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{
    mpsc::{Receiver, Sender, channel},
    watch,
};

/// Messages that wait. More than a run has to say; less than would matter for memory.
const WAITING_MAX: usize = 256;
/// How long nobody may read at our end before what still waits is given up.
const STILL_MAX: Duration = Duration::from_secs(2);
/// Between two looks at what still waits.
const LOOK: Duration = Duration::from_millis(1);

/// Messages to stderr.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Once nothing may wait for a reader.
    queue: RefCell<Option<Queue>>,
    /// How many found no place.
    lost: Cell<u64>,
    /// Nobody reads any more.
    is_given_up: Cell<bool>,
}

/// Those that wait for their reader, and the thread that waits with them.
#[derive(Clone, Debug)]
struct Queue {
    sender: Sender<Vec<u8>>,
    sent: Rc<Cell<u64>>,
    written: watch::Receiver<u64>,
}

impl Messages {
    /// From now on a thread waits for the reader. Without one to be had, we do.
    pub(super) fn stand_apart(&self) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_none() {
            let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
            *queue = stderr.and_then(Queue::start).ok();
        }
    }

    /// Writes `text`. Without stderr there is nobody to tell that stderr is gone.
    pub(super) fn write(&self, text: &str) {
        let queue = self.queue.borrow();
        let Some(queue) = queue.as_ref() else {
            let _ = io::stderr().write_all(text.as_bytes());
            return;
        };
        let lost = self.lost.get();
        if lost > 0 && queue.push(lost_line(lost)) {
            self.lost.set(0);
        }
        if self.lost.get() > 0 || !queue.push(text.as_bytes().to_vec()) {
            self.lost.set(self.lost.get().saturating_add(1));
        }
    }

    /// Writes `text` and comes back when all of it has been taken, however long that lasts.
    pub(super) async fn deliver(&self, text: &str) {
        let queue = self.queue.borrow().clone();
        let Some(mut queue) = queue else { return self.write(text) };
        // The thread takes each line by itself, so that none is cut by what the command writes.
        for line in text.split_inclusive('\n') {
            let Ok(place) = queue.sender.reserve().await else { return };
            queue.sent.set(queue.sent.get().saturating_add(1));
            place.send(line.as_bytes().to_vec());
        }
        queue.all_written().await;
    }

    /// Waits for a moment until all has been taken, so that what follows stands behind it.
    pub(super) async fn settle(&self) {
        let queue = self.queue.borrow().clone();
        if let Some(mut queue) = queue {
            let _ = tokio::time::timeout(STILL_MAX, queue.all_written()).await;
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.borrow().as_ref().is_none_or(Queue::is_idle)
    }

    /// Waits until all has been taken, as long as somebody reads. To be called when there is
    /// nothing else to do.
    pub(super) fn finish(&self) {
        if self.is_given_up.get() {
            return;
        }
        if self.lost.get() > 0 {
            // It stands behind what it found no place after.
            self.wait();
            if let Some(queue) = self.queue.borrow().as_ref() {
                queue.push(lost_line(self.lost.replace(0)));
            }
        }
        self.wait();
    }

    fn wait(&self) {
        let queue = self.queue.borrow();
        let Some(queue) = queue.as_ref() else { return };
        let (mut before, mut still) = (*queue.written.borrow(), Duration::ZERO);
        while !queue.is_idle() {
            if still >= STILL_MAX {
                self.is_given_up.set(true);
                return;
            }
            thread::sleep(LOOK);
            let now = *queue.written.borrow();
            still = if now == before { still + LOOK } else { Duration::ZERO };
            before = now;
        }
    }
}

impl Queue {
    fn start(stderr: File) -> io::Result<Self> {
        let (sender, waiting) = channel(WAITING_MAX);
        let (progress, written) = watch::channel(0);
        // It ends with the process.
        thread::Builder::new()
            .name("messages".to_owned())
            .spawn(move || carry(stderr, waiting, &progress))?;
        Ok(Self { sender, sent: Rc::default(), written })
    }

    /// Whether there was a place for it.
    fn push(&self, message: Vec<u8>) -> bool {
        let is_taken = self.sender.try_send(message).is_ok();
        if is_taken {
            self.sent.set(self.sent.get().saturating_add(1));
        }
        is_taken
    }

    fn is_idle(&self) -> bool {
        *self.written.borrow() >= self.sent.get()
    }

    async fn all_written(&mut self) {
        while !self.is_idle() {
            // The thread ends with us alone.
            if self.written.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Writes what comes, and counts it.
fn carry(mut stderr: File, mut waiting: Receiver<Vec<u8>>, written: &watch::Sender<u64>) {
    while let Some(message) = waiting.blocking_recv() {
        write(&mut stderr, &message);
        written.send_modify(|written| *written = written.saturating_add(1));
    }
}

/// Writes all of `bytes`, also to what somebody has set not to block, as node does with what it
/// shares with us.
fn write(to: &mut File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(&*to, PollFlags::OUT)], None);
            }
            // Nobody is there to be told.
            Err(_) => return,
        }
    }
}

fn lost_line(lost: u64) -> Vec<u8> {
    let what = if lost == 1 { "a message is" } else { "messages are" };
    format!("dayfly: warning: {what} missing here ({lost}), since nobody read them\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd};

    use super::*;

    fn piped() -> (io::PipeReader, Messages) {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Queue::start(File::from(OwnedFd::from(writer))).unwrap();
        (reader, Messages { queue: RefCell::new(Some(queue)), ..Messages::default() })
    }

    #[test]
    fn what_found_no_place_is_missed_where_it_would_have_been() {
        let (mut reader, messages) = piped();
        for number in 0..400 {
            messages.write(&format!("{number:>4000}\n"));
        }
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        while !messages.is_idle() {
            thread::sleep(LOOK);
        }
        messages.write("after\n");
        messages.finish();
        drop(messages);
        let text = read.join().unwrap().unwrap();
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines.pop(), Some("after"));
        let (mut next, mut gaps) = (0_u64, 0);
        for line in lines {
            let Ok(number) = line.parse::<u64>() else {
                let (_, lost) = line.split_once('(').unwrap();
                next += lost.split_once(')').unwrap().0.parse::<u64>().unwrap();
                gaps += 1;
                continue;
            };
            assert_eq!(number, next);
            next += 1;
        }
        assert!(next == 400 && gaps > 0, "{next} {gaps}");
    }

    #[test]
    fn a_reader_that_does_not_read_is_given_up_once() {
        let (_reader, messages) = piped();
        for _ in 0..100 {
            messages.write(&"x".repeat(4000));
        }
        messages.finish();
        assert!(messages.is_given_up.get() && !messages.is_idle());
        messages.finish();
    }

    #[tokio::test]
    async fn what_must_be_taken_is_waited_for() {
        let (mut reader, messages) = piped();
        let commands = format!("{}\n", "y".repeat(100_000)).repeat(3);
        let length = commands.len();
        let read = thread::spawn(move || {
            let mut text = vec![0; length];
            reader.read_exact(&mut text).map(|()| text.len())
        });
        messages.deliver(&commands).await;
        assert!(messages.is_idle());
        assert_eq!(read.join().unwrap().unwrap(), length);
    }
}

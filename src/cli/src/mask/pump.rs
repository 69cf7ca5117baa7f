//! A thread that carries one stream of the command to ours, through the filter.
//!
//! Invariant: nothing is read before what was read has gone out, so that a slow reader slows the
//! command down as it would without us, and memory is bounded. When our reader is gone, so is the
//! command's.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::{filter::Filter, needles::Matcher};

const CHUNK_BYTES: usize = 64 * 1024;
/// How long the beginning of what may be a secret waits for the rest.
const HOLD: Duration = Duration::from_secs(1);

/// What is looked for at the moment. It grows while the command runs.
pub(super) struct Shared(Mutex<Arc<Matcher>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Arc::new(Matcher::new(std::iter::empty()))))
    }

    pub(super) fn set(&self, matcher: Matcher) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(matcher);
    }

    fn now(&self) -> Arc<Matcher> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How far one stream has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    writing: AtomicBool,
    written: AtomicU64,
}

impl Progress {
    /// Whether something that was read has not gone out yet.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Acquire)
    }

    /// How much has gone out.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// One stream on its way.
#[derive(Debug)]
pub(super) struct Pump {
    /// Hears when all of it has gone.
    pub(super) finished: oneshot::Receiver<()>,
    pub(super) progress: Arc<Progress>,
}

/// Carries `from` to `to`.
pub(super) fn start(from: File, to: File, shared: Arc<Shared>) -> io::Result<Pump> {
    let (done, finished) = oneshot::channel();
    let progress = Arc::new(Progress::default());
    let own = Arc::clone(&progress);
    thread::Builder::new().name("mask".to_owned()).spawn(move || {
        // A stream that breaks is at its end.
        let _ = carry(from, to, &shared, &own);
        let _ = done.send(());
    })?;
    Ok(Pump { finished, progress })
}

fn carry(mut from: File, mut to: File, shared: &Shared, progress: &Progress) -> io::Result<()> {
    let (mut filter, mut out) = (Filter::default(), Vec::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if filter.holds() && !is_ready(&from, PollFlags::IN, Some(HOLD))? {
            filter.flush(&shared.now(), &mut out);
        } else {
            let length = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            filter.push(&shared.now(), chunk.get(..length).unwrap_or_default(), &mut out);
        }
        write(&mut to, &out, progress)?;
        out.clear();
    }
    filter.flush(&shared.now(), &mut out);
    write(&mut to, &out, progress)
}

/// Writes all of `bytes`, also to what somebody has set not to block.
fn write(to: &mut File, mut bytes: &[u8], progress: &Progress) -> io::Result<()> {
    progress.writing.store(!bytes.is_empty(), Ordering::Release);
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                progress.written.fetch_add(written as u64, Ordering::AcqRel);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_ready(to, PollFlags::OUT, None)?;
            }
            Err(error) => return Err(error),
        }
    }
    progress.writing.store(false, Ordering::Release);
    Ok(())
}

fn is_ready(file: &File, events: PollFlags, within: Option<Duration>) -> io::Result<bool> {
    let within = within.and_then(|within| Timespec::try_from(within).ok());
    loop {
        match poll(&mut [PollFd::new(file, events)], within.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
    }

    fn shared() -> Arc<Shared> {
        let shared = Shared::new();
        shared.set(Matcher::new([("r/password", "hunter2-secret")].into_iter()));
        Arc::new(shared)
    }

    #[test]
    fn a_stream_is_carried_to_its_end() {
        let ((from, mut command), (mut reader, to)) = (pipe(), pipe());
        let mut finished = start(from, to, shared()).unwrap().finished;
        let writer = thread::spawn(move || {
            for _ in 0..20_000 {
                command.write_all(b"0123456789 hunter2-").unwrap();
                command.write_all(b"secret\n").unwrap();
            }
        });
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        writer.join().unwrap();
        assert_eq!(out, "0123456789 [masked:r/password]\n".repeat(20_000));
        assert!(finished.try_recv().is_ok() || finished.blocking_recv().is_ok());
    }

    #[test]
    fn a_beginning_is_not_held_for_ever() {
        let ((from, mut command), (mut reader, to)) = (pipe(), pipe());
        start(from, to, shared()).unwrap();
        command.write_all(b"go on? hunter2").unwrap();
        let mut out = [0; 14];
        reader.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"go on? hunter2");
        command.write_all(b" or hunter2-secret").unwrap();
        drop(command);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, " or [masked:r/password]");
    }

    #[test]
    fn a_reader_that_is_gone_is_gone_for_the_command_too() {
        let ((from, mut command), (reader, to)) = (pipe(), pipe());
        drop(reader);
        let finished = start(from, to, shared()).unwrap().finished;
        command.write_all(b"x").unwrap();
        finished.blocking_recv().unwrap();
        let error = command.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

//! FIFOs: whoever opens one reads what is valid then.
//!
//! Invariant: a reader gets one whole value and the end of the file, unless another one has opened
//! the same FIFO at the same moment; nobody can make us wait for ever, and nothing that a reader
//! does fails the run.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileTypeExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{io::AsyncWriteExt as _, net::unix::pipe, sync::mpsc, time::timeout};
use zeroize::Zeroizing;

use crate::{
    exec::deliver::{Delivered, directory},
    output::Terminal,
};

/// Between two attempts where we are out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);
/// Only a value that is larger than a pipe's buffer waits for its reader at all.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Readers that wait for their value.
const QUEUE: usize = 64;

/// Serves all FIFOs, until each has been read as often as it may be.
pub(in crate::exec) async fn serve(delivered: &RefCell<Delivered<'_>>, terminal: &Terminal) {
    let names = delivered.borrow().fifos();
    join_all(names.iter().map(|name| serve_one(delivered, name, terminal))).await;
}

async fn serve_one(delivered: &RefCell<Delivered<'_>>, name: &str, terminal: &Terminal) {
    let (path, reads, is_over) = {
        let delivered = delivered.borrow();
        (delivered.path(name), delivered.fifo_reads(), delivered.is_over())
    };
    let (sender, mut readers) = mpsc::channel(QUEUE);
    // It ends with the process: nothing but a reader wakes it.
    let started = thread::Builder::new()
        .name("fifo".to_owned())
        .spawn(move || open_each(&path, reads, &sender, &is_over));
    if let Err(error) = started {
        terminal.warn(&format!("the FIFO `{name}` can't be served: {error}"));
        return;
    }
    let mut serving = FuturesUnordered::new();
    loop {
        let reader = tokio::select! {
            Some(()) = serving.next() => continue,
            reader = readers.recv() => reader,
        };
        let given = match reader {
            None => break,
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(reader)) => {
                let text = delivered.borrow().text_of_fifo(name);
                text.map(|text| serving.push(hand_over(reader, text)))
                    .map_err(|error| error.to_string())
            }
        };
        if let Err(reason) = given {
            terminal.warn(&format!("the FIFO `{name}` can't be served any more: {reason}"));
            break;
        }
    }
    while serving.next().await.is_some() {}
}

/// Passes on our end of each FIFO at `path` that somebody has opened. The kernel tells a writer of
/// a reader only by letting it open, so this waits in a thread of its own; by the time that a
/// reader is passed on, another FIFO is in the place of its own, so that who opens that does not
/// share its value.
fn open_each(
    path: &Path,
    mut left: Option<u32>,
    readers: &mpsc::Sender<io::Result<File>>,
    is_over: &AtomicBool,
) {
    while left != Some(0) {
        let opened = match open(path) {
            Err(error) if !is_gone(&error) => {
                thread::sleep(PAUSE);
                continue;
            }
            opened => opened,
        };
        // Its directory goes, and no other one is to be left there.
        if is_over.load(Ordering::Acquire) {
            return;
        }
        left = left.map(|left| left - 1);
        let reader = opened.and_then(|reader| {
            if left == Some(0) { directory::unlink(path) } else { directory::fifo(path) }
                .map(|()| reader)
        });
        let is_last = reader.is_err();
        if readers.blocking_send(reader).is_err() || is_last {
            return;
        }
    }
}

/// Our end of it, as soon as somebody has opened the other one.
fn open(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::symlink_metadata(path)?.file_type().is_fifo();
    if !is_fifo {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    OpenOptions::new().write(true).open(path)
}

fn is_gone(error: &io::Error) -> bool {
    // The second is what another file in its place gives.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
}

/// A reader that goes away, or does not read on, has had its turn.
async fn hand_over(reader: File, text: Zeroizing<String>) {
    let Ok(mut reader) = pipe::Sender::from_file(reader) else { return };
    let _ = timeout(READ_WITHIN, reader.write_all(text.as_bytes())).await;
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, thread::JoinHandle};

    use super::*;

    fn read(path: &Path) -> JoinHandle<String> {
        let path = path.to_owned();
        thread::spawn(move || fs::read_to_string(path).unwrap())
    }

    /// What two readers share, one of them gets.
    #[test]
    fn who_comes_while_another_waits_has_a_pipe_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k");
        directory::fifo(&path).unwrap();
        let (sender, mut readers) = mpsc::channel(1);
        let served = path.clone();
        thread::spawn(move || open_each(&served, Some(2), &sender, &AtomicBool::new(false)));
        let mut next = || readers.blocking_recv().map(Result::unwrap);
        let first = read(&path);
        let mut one = next().unwrap();
        let second = read(&path);
        let mut two = next().unwrap();
        two.write_all(b"two").unwrap();
        drop(two);
        assert_eq!(second.join().unwrap(), "two");
        one.write_all(b"one").unwrap();
        drop(one);
        assert_eq!(first.join().unwrap(), "one");
        assert!(!path.exists() && next().is_none());
    }

    #[test]
    fn another_file_in_its_place_is_not_written_to() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k");
        fs::write(&path, "mine").unwrap();
        let (sender, mut readers) = mpsc::channel(1);
        open_each(&path, None, &sender, &AtomicBool::new(false));
        assert!(readers.blocking_recv().unwrap().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}

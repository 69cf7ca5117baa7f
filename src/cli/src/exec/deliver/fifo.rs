//! FIFOs: whoever opens one reads what is valid then.
//!
//! Invariant: a reader gets one whole value and the end of the file; nobody can make us wait for
//! ever, and nothing that a reader does fails the run.

use std::{cell::RefCell, io, path::Path, time::Duration};

use futures_util::future::join_all;
use rustix::io::Errno;
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use crate::{exec::deliver::Delivered, output::Terminal};

/// How often to look whether somebody reads: the kernel tells a writer only by letting it open.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Only a value that is larger than a pipe's buffer waits for its reader at all.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Serves all FIFOs, until each has been read as often as it may be.
pub(in crate::exec) async fn serve(delivered: &RefCell<Delivered<'_>>, terminal: &Terminal) {
    let names = delivered.borrow().fifos();
    join_all(names.iter().map(|name| serve_one(delivered, name, terminal))).await;
}

async fn serve_one(delivered: &RefCell<Delivered<'_>>, name: &str, terminal: &Terminal) {
    let mut left = delivered.borrow().fifo_reads();
    let path = delivered.borrow().path(name);
    while left != Some(0) {
        let Some(mut reader) = opened(&path).await else {
            terminal.warn(&format!("the FIFO `{name}` is gone; nobody can read it any more"));
            return;
        };
        left = left.map(|left| left - 1);
        // Before the first byte: who opens it from now on must not share this reader's value.
        let text = {
            let delivered = delivered.borrow();
            let renewed =
                if left == Some(0) { delivered.unlink(name) } else { delivered.fifo(name) };
            renewed
                .map_err(|error| error.to_string())
                .and_then(|()| delivered.text_of_fifo(name).map_err(|error| error.to_string()))
        };
        match text {
            Ok(text) => hand_over(&mut reader, text).await,
            Err(reason) => {
                terminal.warn(&format!("the FIFO `{name}` can't be served: {reason}"));
                return;
            }
        }
    }
}

/// Our end of it, once somebody has opened the other one; `None` if it is not there any more.
async fn opened(path: &Path) -> Option<pipe::Sender> {
    loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Ok(reader) => return Some(reader),
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {}
            // We are out of descriptors, say.
            Err(error) if !is_gone(&error) => {}
            Err(_) => return None,
        }
        sleep(LOOK_EVERY).await;
    }
}

fn is_gone(error: &io::Error) -> bool {
    // The second is what a file in its place gives.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
}

/// A reader that goes away, or does not read on, has had its turn.
async fn hand_over(reader: &mut pipe::Sender, text: Zeroizing<String>) {
    let _ = timeout(READ_WITHIN, reader.write_all(text.as_bytes())).await;
}

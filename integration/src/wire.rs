//! A hop on the way to a server, where a test can disturb what passes.
//!
//! Invariant: what was sent is never lost on its own account: it is held back until it is
//! released, or passed on with its answer cut off.

use std::sync::Arc;

use dayfly_lease::spawn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What happens to what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Disturbance {
    /// A message with this text is passed on, and the connection it came by is cut.
    CutAfter(String),
    /// A message with this text waits.
    Hold(String),
    /// Everything passes.
    None,
}

/// A listening hop.
#[derive(Debug)]
pub struct Wire {
    disturbance: Arc<watch::Sender<Disturbance>>,
    accepting: JoinHandle<()>,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
}

impl Wire {
    /// To the server that listens on `port`.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let disturbance = Arc::new(watch::Sender::new(Disturbance::None));
        let accepting = spawn(accept(listener, port, Arc::clone(&disturbance)));
        Self { disturbance, accepting, port: own }
    }

    /// Holds back messages that contain `text`, as a slow network would.
    pub fn hold(&self, text: &str) {
        self.disturbance.send_replace(Disturbance::Hold(text.to_owned()));
    }

    /// Passes on a message that contains `text`, and loses its answer.
    pub fn cut_after(&self, text: &str) {
        self.disturbance.send_replace(Disturbance::CutAfter(text.to_owned()));
    }

    /// Lets everything pass, first of all what was held back.
    pub fn release(&self) {
        self.disturbance.send_replace(Disturbance::None);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, disturbance: Arc<watch::Sender<Disturbance>>) {
    // Dropped with this future, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let watching = disturbance.subscribe();
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut answers = JoinSet::new();
            answers.spawn(pass(from_server, to_client));
            let kept = pass_requests(from_client, to_server, watching).await;
            answers.shutdown().await;
            if kept.is_some() {
                // The server does not see the cut, and goes on with what it has received.
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Passes what the client sends until it has no more; or until it is cut off, and then gives
/// back the open way to the server.
async fn pass_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut disturbance: watch::Receiver<Disturbance>,
) -> Option<OwnedWriteHalf> {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return None };
        let message = buffer.get(..length).unwrap_or_default();
        let has = |text: &str| String::from_utf8_lossy(message).contains(text);
        let now = disturbance.borrow_and_update().clone();
        match &now {
            Disturbance::Hold(text) if has(text) => {
                // The test may be over before it is released.
                if disturbance.wait_for(|next| *next != now).await.is_err() {
                    return None;
                }
            }
            Disturbance::CutAfter(_) | Disturbance::Hold(_) | Disturbance::None => {}
        }
        if to.write_all(message).await.is_err() {
            return None;
        }
        if matches!(&now, Disturbance::CutAfter(text) if has(text)) {
            return Some(to);
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // The other side may go away at any time.
    drop(tokio::io::copy(&mut from, &mut to).await);
}

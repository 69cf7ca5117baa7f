//! A hop on the way to a server, where a test can disturb what passes.
//!
//! Invariant: what was sent is never lost on its own account: it is held back until it is
//! released, or passed on with its answer cut off. A connection that has lost a byte ends.

use std::{io, sync::Arc};

use dayfly_lease::spawn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What happens to what passes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Disturbance {
    /// A message with this text is passed on, and the connection it came by is cut.
    CutAfter(String),
    /// What the server answers is lost.
    DropAnswers,
    /// The client sees its end of the connection closed; what it sends still arrives.
    HalfClose,
    /// A message with this text waits.
    Hold(String),
    /// Everything passes.
    None,
    /// Connections are reset, new ones too.
    Reset,
    /// Nothing passes, in neither direction.
    Stall,
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

    /// Passes on what is sent, and loses every answer.
    pub fn drop_answers(&self) {
        self.disturbance.send_replace(Disturbance::DropAnswers);
    }

    /// Closes the way back of every connection, while the way there stays open.
    pub fn half_close(&self) {
        self.disturbance.send_replace(Disturbance::HalfClose);
    }

    /// Resets every connection, and those that are opened meanwhile.
    pub fn reset(&self) {
        self.disturbance.send_replace(Disturbance::Reset);
    }

    /// Lets nothing pass in either direction.
    pub fn stall(&self) {
        self.disturbance.send_replace(Disturbance::Stall);
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
        connections.spawn(relay(client, port, disturbance.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

/// How a direction of a connection came to its end.
enum End {
    /// The client is to be cut off, and the server not to notice.
    Cut,
    /// Whoever sends has no more.
    Closed,
    /// Something of it is lost, so that it cannot go on.
    Torn,
}

async fn relay(mut client: TcpStream, port: u16, disturbance: watch::Receiver<Disturbance>) {
    let mut resets = disturbance.clone();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = pass_requests(from_client, to_server, disturbance.clone());
        let answers = async {
            if !matches!(pass_answers(from_server, to_client, disturbance).await, End::Torn) {
                // The client may still send; its own close ends the connection.
                std::future::pending::<()>().await;
            }
            End::Torn
        };
        tokio::select! {
            end = requests => end,
            end = answers => end,
            _ = resets.wait_for(|now| *now == Disturbance::Reset) => End::Torn,
        }
    };
    match end {
        End::Closed => {}
        End::Cut => {
            drop(client);
            // The server does not see the cut, and goes on with what it has received.
            std::future::pending::<()>().await;
        }
        // Both may be gone already.
        End::Torn => drop((client.set_zero_linger(), server.set_zero_linger())),
    }
}

/// Passes what the client sends until it has no more or is cut off.
async fn pass_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut disturbance: watch::Receiver<Disturbance>,
) -> End {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return End::Closed };
        let message = buffer.get(..length).unwrap_or_default();
        let has = |text: &str| String::from_utf8_lossy(message).contains(text);
        let now = disturbance.borrow_and_update().clone();
        let held = match &now {
            Disturbance::Hold(text) => has(text),
            Disturbance::Stall => true,
            Disturbance::CutAfter(_)
            | Disturbance::DropAnswers
            | Disturbance::HalfClose
            | Disturbance::None
            | Disturbance::Reset => false,
        };
        // The test may be over before it is released.
        if held && disturbance.wait_for(|next| *next != now).await.is_err() {
            return End::Closed;
        }
        if to.write_all(message).await.is_err() {
            return End::Closed;
        }
        if matches!(&now, Disturbance::CutAfter(text) if has(text)) {
            return End::Cut;
        }
    }
}

/// Passes what the server answers until it has no more, or until an answer was lost and the
/// disturbance that lost it is over.
async fn pass_answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut disturbance: watch::Receiver<Disturbance>,
) -> End {
    let mut buffer = vec![0; 65_536];
    loop {
        let now = disturbance.borrow_and_update().clone();
        if now == Disturbance::HalfClose {
            drop(to.shutdown().await);
            return lose(&mut from, &mut buffer, &mut disturbance, &now).await;
        }
        let length = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = disturbance.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return End::Closed,
            },
        };
        let Ok(length @ 1..) = length else {
            drop(to.shutdown().await);
            return End::Closed;
        };
        let now = disturbance.borrow_and_update().clone();
        if now == Disturbance::DropAnswers {
            return lose(&mut from, &mut buffer, &mut disturbance, &now).await;
        }
        if now == Disturbance::Stall && disturbance.wait_for(|next| *next != now).await.is_err() {
            return End::Closed;
        }
        if to.write_all(buffer.get(..length).unwrap_or_default()).await.is_err() {
            return End::Closed;
        }
    }
}

/// Reads what nobody gets until `now` is over.
async fn lose(
    from: &mut ReadHalf<'_>,
    buffer: &mut [u8],
    disturbance: &mut watch::Receiver<Disturbance>,
    now: &Disturbance,
) -> End {
    let losing = async {
        while let Ok(1..) = from.read(buffer).await {}
        // A server that closes must not end this before its time.
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        _ = losing => {}
        _ = disturbance.wait_for(|next| next != now) => {}
    }
    End::Torn
}

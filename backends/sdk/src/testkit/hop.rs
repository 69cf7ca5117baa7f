//! A hop on the way to a server that holds a message, or loses its answer.
//!
//! Invariant: what it does not hold or lose it carries at once, byte for byte.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what it lacks")]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A port that leads to a server.
#[derive(Debug)]
pub struct Hop {
    port: u16,
    met: Arc<AtomicBool>,
}

/// What becomes of a message that contains the word.
#[derive(Clone, Copy)]
enum Fate {
    /// It comes so much later.
    Held(Duration),
    /// It comes, and its answer does not: the client's connection is cut.
    Unanswered,
}

#[derive(Clone)]
struct Rule {
    word: &'static [u8],
    fate: Fate,
    met: Arc<AtomicBool>,
    /// Of one connection: nothing more goes back.
    cut: Arc<AtomicBool>,
}

impl Hop {
    /// Holds whatever contains `word` for `lasts`, and then lets it go.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn before(place: &str, word: &'static [u8], lasts: Duration) -> Self {
        Self::start(place, word, Fate::Held(lasts))
    }

    /// Carries what contains `word`, and never its answer.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn losing_the_answer(place: &str, word: &'static [u8]) -> Self {
        Self::start(place, word, Fate::Unanswered)
    }

    fn start(place: &str, word: &'static [u8], fate: Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let met = Arc::new(AtomicBool::new(false));
        let (place, shared) = (place.to_owned(), Arc::clone(&met));
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(&place).unwrap();
                let (met, cut) = (Arc::clone(&shared), Arc::default());
                carry(client.unwrap(), server, Rule { word, fate, met, cut });
            }
        });
        Self { port, met }
    }

    /// `host:port` of the hop itself.
    pub fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of the hop itself.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the word came by: else the test proves nothing.
    pub fn met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }
}

fn carry(client: TcpStream, server: TcpStream, rule: Rule) {
    let (back, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let cut = Arc::clone(&rule.cut);
    thread::spawn(move || pass(back, to_client, |_| !cut.load(Ordering::Relaxed), &cut));
    thread::spawn(move || {
        let goes = |message: &[u8]| {
            if message.windows(rule.word.len()).any(|part| part == rule.word) {
                rule.met.store(true, Ordering::Relaxed);
                match rule.fate {
                    Fate::Held(lasts) => thread::sleep(lasts),
                    Fate::Unanswered => rule.cut.store(true, Ordering::Relaxed),
                }
            }
            true
        };
        pass(client, server, goes, &rule.cut);
    });
}

/// How long a server whose answer is lost is left to do what it was told: some stop when the
/// client is gone.
const TIME_TO_ACT: Duration = Duration::from_secs(3);

/// From one end to the other while `goes` says so.
fn pass(mut from: TcpStream, mut to: TcpStream, goes: impl Fn(&[u8]) -> bool, cut: &AtomicBool) {
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let Some(message) = bytes.get(..count) else { return };
        if !goes(message) || to.write_all(message).is_err() {
            return;
        }
        if cut.load(Ordering::Relaxed) {
            // The client hears nothing more; the server has the message.
            from.shutdown(Shutdown::Both).ok();
            break;
        }
    }
    if cut.load(Ordering::Relaxed) {
        thread::sleep(TIME_TO_ACT);
    }
    // The other end learns that there is no more.
    to.shutdown(Shutdown::Both).ok();
}

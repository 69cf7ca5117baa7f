//! A hop on the way to a node that holds one message for a while.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

pub(crate) struct Hop {
    port: u16,
    held: Arc<AtomicBool>,
}

/// What is held, and for how long.
#[derive(Clone)]
struct Rule {
    word: &'static [u8],
    lasts: Duration,
    held: Arc<AtomicBool>,
}

impl Hop {
    /// Holds whatever contains `word` for `lasts`, and then lets it go.
    pub(crate) fn before(place: &str, word: &'static [u8], lasts: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::new(AtomicBool::new(false));
        let rule = Rule { word, lasts, held: Arc::clone(&held) };
        let place = place.to_owned();
        thread::spawn(move || {
            for client in listener.incoming() {
                let node = TcpStream::connect(&place).unwrap();
                carry(client.unwrap(), node, rule.clone());
            }
        });
        Self { port, held }
    }

    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

fn carry(mut client: TcpStream, mut node: TcpStream, rule: Rule) {
    let (mut back, mut to_client) = (node.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut back, &mut to_client));
    thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            let Some(message) = bytes.get(..count) else { return };
            if message.windows(rule.word.len()).any(|part| part == rule.word) {
                rule.held.store(true, Ordering::Relaxed);
                thread::sleep(rule.lasts);
            }
            if node.write_all(message).is_err() {
                return;
            }
        }
    });
}

//! Ports for servers under test.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below what Linux gives to outgoing connections (32768 and up), so that none of those is in
/// the way of a server that comes back to its port.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port that is free, and that this process gives to nobody else: one whose server is down
/// for a while is still its server's.
///
/// # Panics
/// When all of them are in use.
#[expect(clippy::panic, reason = "a test says by panicking what it lacks")]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Each process begins elsewhere: several suites may run at a time.
        let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(process::id() * 100);
        let port = u16::try_from(FIRST + next % COUNT).unwrap_or(u16::MAX);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
}

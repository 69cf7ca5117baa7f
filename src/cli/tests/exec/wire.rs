//! HTTP as somebody writes it who has no library: to the agent's socket, to the endpoint's port.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use serde_json::Value;

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Asks the agent that listens at `path`, or soon will.
pub(crate) fn ask(path: &Path, line: &str) -> Said {
    let mut stream = connected(path);
    write!(stream, "{line} HTTP/1.1\r\nhost: agent\r\n\r\n").unwrap();
    read(stream)
}

/// Waits for the agent.
pub(crate) fn connected(path: &Path) -> UnixStream {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("no agent listens at {}", path.display());
}

/// Asks the endpoint whose whole address is `url`.
pub(crate) fn fetch(url: &str, headers: &[(&str, &str)]) -> Said {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\n").unwrap();
    if !headers.iter().any(|(name, _)| *name == "host") {
        write!(stream, "host: {host}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n").unwrap();
    }
    write!(stream, "\r\n").unwrap();
    read(stream)
}

fn read(mut stream: impl Read) -> Said {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Said { status, body: serde_json::from_str(body).unwrap() }
}

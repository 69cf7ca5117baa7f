//! A login that begins and stands still: the protocol by hand, over the server's socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x0200 | 0x8000 | 0x0008_0000;

pub(crate) struct Stalled {
    stream: UnixStream,
    password: String,
    sequence: u8,
    /// The server's challenge to a native login; none where it asks for the password over a
    /// way that it trusts.
    challenge: Option<Vec<u8>>,
}

impl Stalled {
    /// Up to where the server has looked up the account and waits for the proof.
    pub(crate) fn begin(socket: &Path, user: &str, password: &str) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stalled =
            Self { stream, password: password.to_owned(), sequence: 0, challenge: None };
        stalled.read().unwrap();
        let mut hello = Vec::new();
        hello.extend(CAPABILITIES.to_le_bytes());
        hello.extend((1_u32 << 24).to_le_bytes());
        hello.push(45);
        hello.extend([0; 23]);
        hello.extend(user.as_bytes());
        // No proof yet, for a method that the account does not have: the server names its own.
        hello.extend(b"\0\0some_other_plugin\0");
        stalled.write(&hello);
        let switch = stalled.read().unwrap();
        assert_eq!(switch.first(), Some(&0xfe), "{switch:?}");
        let name_ends = switch.iter().position(|byte| *byte == 0).unwrap();
        if &switch[1..name_ends] == b"mysql_native_password" {
            stalled.challenge = Some(switch[name_ends + 1..name_ends + 21].to_vec());
        }
        stalled
    }

    /// Goes on. `None` where the server has hung up or refuses.
    pub(crate) fn finish(mut self) -> Option<Session> {
        if let Some(challenge) = self.challenge.take() {
            let sha = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
            let once = sha(self.password.as_bytes());
            let mixed = sha(&[challenge, sha(&once)].concat());
            let proof: Vec<u8> = once.iter().zip(mixed).map(|(a, b)| a ^ b).collect();
            self.write(&proof);
        } else {
            // Something that is not in the server's cache, so that it asks for all of it.
            self.write(&[0; 32]);
            let more = self.read()?;
            assert_eq!(more, [1, 4], "it asks for the password itself");
            let plain = format!("{}\0", self.password);
            self.write(plain.as_bytes());
        }
        let answer = self.read()?;
        (answer.first() == Some(&0)).then_some(Session(self))
    }

    fn write(&mut self, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let packet = [&length[..3], &[self.sequence], payload].concat();
        self.sequence = self.sequence.wrapping_add(1);
        // A server that has hung up is noticed by reading.
        self.stream.write_all(&packet).ok();
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        self.sequence = head[3].wrapping_add(1);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        Some(payload)
    }
}

pub(crate) struct Session(Stalled);

impl Session {
    /// Whether the server runs it; the answer is read as far as its first packet.
    pub(crate) fn query(&mut self, sql: &str) -> Result<(), String> {
        self.0.sequence = 0;
        self.0.write(&[b"\x03", sql.as_bytes()].concat());
        let first = self.0.read().ok_or("hung up")?;
        if first.first() == Some(&0xff) {
            return Err(String::from_utf8_lossy(&first[9..]).into_owned());
        }
        // To the end of the rows: two packets that begin with 0xfe.
        let mut ends = 0;
        while ends < 2 {
            let packet = self.0.read().ok_or("hung up")?;
            ends += u8::from(packet.first() == Some(&0xfe) && packet.len() < 9);
        }
        Ok(())
    }
}

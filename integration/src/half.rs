//! A request whose body does not come.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// A connection that has sent all of a request's head and one byte of its body.
#[derive(Debug)]
pub struct Half(TcpStream);

impl Half {
    /// Begins to post to `path` on `port`. `headers` are more lines of its head, each with its
    /// end.
    pub async fn post(port: u16, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 1000\r\n\r\n{{"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// The status of the answer, which is to come although the body does not.
    pub async fn status(mut self) -> u16 {
        let mut begun = [0; 12];
        let read = tokio::time::timeout(ANSWERED_WITHIN, self.0.read_exact(&mut begun)).await;
        read.expect("an answer in time").unwrap();
        String::from_utf8_lossy(&begun).rsplit(' ').next().unwrap().parse().unwrap()
    }
}

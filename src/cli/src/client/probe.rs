//! What everybody may ask a broker, for `dayfly doctor`.
//!
//! Invariant: no token is sent, and any answer is an answer.

use reqwest::tls::TlsInfo;
use time::OffsetDateTime;

use crate::client::{Client, Error, date, read_body};

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) status: u16,
    /// When the broker says that it answered.
    pub(crate) date: Option<OffsetDateTime>,
    /// The broker's own certificate, verified, as DER.
    pub(crate) certificate: Option<Vec<u8>>,
    /// Empty if it is larger than any that we know.
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// Asks for a path that needs no token.
    pub(crate) async fn probe(&self, path: &str) -> Result<Probe, Error> {
        let request = self.http.get(self.url.join(&[path]));
        let response = request.send().await.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        let date = date(&response);
        let tls = response.extensions().get::<TlsInfo>();
        let certificate = tls.and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let body = read_body(response).await.map_err(|error| self.transport(error))?;
        Ok(Probe { status, date, certificate, body: body.unwrap_or_default() })
    }
}

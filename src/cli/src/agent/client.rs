//! How `dayfly credential` asks the agent.
//!
//! Invariant: only a socket of this user's is asked, and what it answers is bounded.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::{
    agent::{
        answer::{NOTHING_HELD, Refusal, UNKNOWN_ROLE, exit_code, route},
        place,
    },
    ambient::Ambient,
    client::{agent_http, read_body},
    credential::Handed,
    failure,
};

/// The agent may have to wait for the broker.
const TIMEOUT: Duration = Duration::from_mins(1);
const SOCKET: &str = "DAYFLY_AGENT_SOCKET";
/// Nothing of an address but its path reaches the other end of a socket.
const BASE: &str = "http://agent";

/// A client of the agent that is there.
#[derive(Debug)]
pub(crate) struct AgentClient {
    http: reqwest::Client,
    path: PathBuf,
    is_named: bool,
}

impl AgentClient {
    /// The agent that the environment names, or else the one in its usual place, if there is one.
    pub(crate) fn find(ambient: &Ambient) -> Result<Option<Self>, Error> {
        let named = ambient.value(SOCKET).map(PathBuf::from);
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| place::usual(ambient)) else { return Ok(None) };
        match check(&path) {
            Ok(()) => {}
            Err(_) if !is_named => return Ok(None),
            Err(source) => return Err(Error::Socket { path: shown(&path), source }),
        }
        let http = agent_http(&path, TIMEOUT)
            .map_err(|source| Error::Unreachable { path: shown(&path), source })?;
        Ok(Some(Self { http, path, is_named }))
    }

    /// Whether the user named it, so that nothing else will do.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    /// The role's credential, which it gets if it has none.
    pub(crate) async fn credential(&self, role: &str) -> Result<Handed, Error> {
        self.call(Method::GET, &route(role, None)).await
    }

    /// The role's credential if it has one.
    pub(crate) async fn held(&self, role: &str) -> Result<Option<Handed>, Error> {
        match self.call(Method::GET, &format!("{}?held", route(role, None))).await {
            Ok(handed) => Ok(Some(handed)),
            Err(Error::Refused { code, .. }) if code == NOTHING_HELD => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Revokes what it holds, unless that is another one by now.
    pub(crate) async fn erase(&self, held: &Handed) -> Result<(), Error> {
        let route = route(&held.role, Some(&held.lease));
        let erased: Result<serde_json::Value, _> = self.call(Method::DELETE, &route).await;
        match erased {
            Err(Error::Refused { code, .. }) if code == NOTHING_HELD => Ok(()),
            erased => erased.map(drop),
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, route: &str) -> Result<T, Error> {
        let failed = |source: reqwest::Error| Error::Unreachable {
            path: shown(&self.path),
            source: source.without_url(),
        };
        let request = self.http.request(method, format!("{BASE}{route}"));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = read_body(response).await.map_err(failed)?.unwrap_or_default();
        let foreign = || Error::Foreign { path: shown(&self.path) };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|_| foreign());
        }
        let Refusal { code, message } = serde_json::from_slice(&body).map_err(|_| foreign())?;
        Err(if code == UNKNOWN_ROLE {
            Error::UnknownRole { message }
        } else {
            Error::Refused { code, message, exit_code: exit_code(status) }
        })
    }
}

/// A socket of somebody else's could give us credentials of theirs to work with.
fn check(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("it is no socket"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is another user's"));
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Why the agent gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "what answers on `{path}` is no agent of dayfly's; set DAYFLY_AGENT_SOCKET to the \
         agent's socket"
    )]
    Foreign { path: String },
    #[error("the agent: {message}")]
    Refused { code: String, message: String, exit_code: u8 },
    #[error("cannot use the agent's socket `{path}`")]
    Socket {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the agent: {message}")]
    UnknownRole { message: String },
    #[error("no agent answers on `{path}`; start `dayfly agent`, or unset DAYFLY_AGENT_SOCKET")]
    Unreachable {
        path: String,
        #[source]
        source: reqwest::Error,
    },
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Foreign { .. } => failure::FAILED,
            Self::Refused { exit_code, .. } => *exit_code,
            Self::Socket { .. } => failure::USAGE,
            Self::UnknownRole { .. } => failure::NOT_FOUND,
            Self::Unreachable { .. } => failure::UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_is_asked() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("agent.sock");
        let find = |name: &str, value: &Path| {
            AgentClient::find(&Ambient::from([(name, value.to_str().unwrap())]))
        };
        assert!(matches!(find(SOCKET, &path), Err(Error::Socket { .. })), "nothing there");
        assert!(find("XDG_RUNTIME_DIR", place.path()).unwrap().is_none());
        std::fs::write(&path, "").unwrap();
        assert!(matches!(find(SOCKET, &path), Err(Error::Socket { .. })), "a file");
        std::fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(find(SOCKET, &path).unwrap().unwrap().is_named());
        assert!(AgentClient::find(&Ambient::default()).unwrap().is_none());
    }
}

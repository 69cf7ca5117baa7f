//! What a canary does with a user: each node is logged in to.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{backend::RedisBackend, error::Failure};

#[async_trait]
impl Probe for RedisBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        let unknown = |failure: Failure| failure.into_error("the server's clock could not be read");
        let mut open = match self.nodes().first() {
            Some(node) => node.open().await.map_err(unknown)?,
            None => return Err(Error::new(ErrorKind::Invalid, "there is no node")),
        };
        let mut message = redis::pipe();
        message.cmd("TIME");
        let ((seconds, _micros),): ((i64, i64),) = open.ask(&message).await.map_err(unknown)?;
        Ok(Timestamp::from_seconds(seconds))
    }

    /// A node that lets it in after another has refused it makes it usable.
    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let field = |name| credential.field(name).unwrap_or_default();
        let mut refused = None;
        let mut accepted = 0;
        for node in self.nodes() {
            match node.try_login(field("username"), field("password")).await {
                Ok(()) => accepted += 1,
                Err(failure) if failure.is_login_refused() => refused = Some(failure),
                Err(failure) => {
                    let doing = "whether the credential can log in is not known";
                    return Err(Unusable::Unknown(failure.into_error(doing)));
                }
            }
        }
        match refused {
            None => Ok(()),
            Some(failure) if accepted == 0 => {
                Err(Unusable::Refused(failure.into_error("the credential cannot log in")))
            }
            Some(failure) => {
                let doing = "the credential can log in at some nodes only";
                Err(Unusable::Unknown(failure.into_error(doing)))
            }
        }
    }
}

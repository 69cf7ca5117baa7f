//! What a canary does with a credential.
//!
//! `GetCallerIdentity` answers every key that AWS knows, and no policy can deny it: it shows
//! that a deleted user's key is dead, and nothing about the belt. That a session is denied shows
//! in the reason of a refusal: by a policy of its own that forbids it, and not for want of one
//! that allows it.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{account::whoami, backend::AwsBackend, error::Failure};

#[async_trait]
impl Probe for AwsBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        let doing = "AWS's clock could not be read";
        let asked = whoami(&self.account().sts).await;
        asked.map_err(|failure| failure.into_error(doing))?;
        match self.account().clock.seconds() {
            0 => Err(Error::new(ErrorKind::Invalid, "AWS's answers have no date")),
            seconds => Ok(Timestamp::from_seconds(seconds)),
        }
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let (sts, iam) = self.account().with(credential);
        let identity = whoami(&sts).await.map_err(|failure| judged(failure, Failure::is_denied))?;
        if credential.field("session_token").is_none() || self.belt().is_none() {
            return Ok(());
        }
        if let Some((_, name)) = identity.arn.rsplit_once(":federated-user/") {
            // IAM answers no federated user whatever it may, so there is nothing to be denied:
            // what the belt itself says is all there is.
            return self.unnamed(name).await;
        }
        // A harmless question that few may ask.
        match iam.list_account_aliases().send().await.map_err(Failure::from) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_denied() && !is_end(&failure) => Ok(()),
            Err(failure) => Err(judged(failure, is_end)),
        }
    }
}

/// The belt forbids everything, or AWS does not know the key.
fn is_end(failure: &Failure) -> bool {
    failure.is_explicitly_denied() || failure.is_unknown_key()
}

fn judged(failure: Failure, is_refusal: impl Fn(&Failure) -> bool) -> Unusable {
    if is_refusal(&failure) {
        Unusable::Refused(failure.into_error("the credential is refused"))
    } else {
        Unusable::Unknown(failure.into_error("whether the credential can be used is not known"))
    }
}

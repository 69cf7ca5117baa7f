//! What a canary does with a credential: the program itself uses it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{
    backend::ExecBackend,
    error::Failure,
    protocol::{Call, Now, Used},
};

#[async_trait]
impl Probe for ExecBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        let doing = "the system's clock could not be read";
        let failed = |failure: Failure| failure.into_error(doing);
        let now: Now = self.ask(&Call::Clock {}).await.map_err(failed)?;
        Timestamp::parse_rfc3339(&now.now).ok_or_else(|| Error::new(ErrorKind::Invalid, doing))
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let mut fields = BTreeMap::new();
        for (name, _) in credential.fields() {
            fields.extend(credential.field(name).map(|value| (name, value)));
        }
        match self.ask::<Used>(&Call::Use { fields }).await {
            Ok(Used { accepted: true }) => Ok(()),
            Ok(Used { accepted: false }) => Err(Unusable::Refused(Error::new(
                ErrorKind::Invalid,
                "the program says that the credential is refused",
            ))),
            Err(failure) => {
                let doing = "whether the credential can be used is not known";
                Err(Unusable::Unknown(failure.into_error(doing)))
            }
        }
    }
}

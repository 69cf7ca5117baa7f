//! What a canary does with a credential: a request of its own.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Secret, Timestamp, Unusable};
use serde_json::Value;

use crate::{
    backend::HttpBackend,
    error::Failure,
    role::{ID, TOKEN},
    values::Values,
};

const DOING: &str = "whether the credential can be used is not known";

#[async_trait]
impl Probe for HttpBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        let failed = |failure: Failure| failure.into_error("the API's clock could not be read");
        self.api.now().await.map_err(failed)
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let Some(request) = &self.requests.try_use else {
            let what = "no `use` request is configured, without which a canary proves nothing";
            return Err(Unusable::Unknown(Error::new(ErrorKind::Invalid, what)));
        };
        let unknown = |failure: Failure| Unusable::Unknown(failure.into_error(DOING));
        let secret = credential.field(TOKEN).map(Secret::new);
        let id = credential.field(ID).map(Value::from);
        let values = Values { id: id.as_ref(), secret: secret.as_ref(), ..Values::default() };
        let ready = request.ready(self.api.base(), &values).map_err(unknown)?;
        let answer = self.api.ask(ready).await.map_err(unknown)?;
        if request.is_ok(&answer) {
            return Ok(());
        }
        let refused = request.is_gone(&answer);
        let failure = answer.bad();
        if refused {
            return Err(Unusable::Refused(failure.into_error("the credential is refused")));
        }
        Err(unknown(failure))
    }
}

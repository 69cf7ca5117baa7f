//! What a canary does with an account: it logs in over the way that we go ourselves.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{backend::MysqlBackend, quote::Sql, revoke::column};

#[async_trait]
impl Probe for MysqlBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        // The epoch by difference: UNIX_TIMESTAMP would take the session's time zone.
        let sql = Sql::new().text(
            "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) AS SIGNED)",
        );
        let doing = "the server's clock could not be read";
        let rows = self.link().run(&sql).await.map_err(|failure| failure.into_error(doing))?;
        let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Invalid, doing))?;
        let micros = column::<i64>(row, 0).map_err(|failure| failure.into_error(doing))?;
        Ok(Timestamp::from_micros(micros))
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let field = |name| credential.field(name).unwrap_or_default();
        let tried = self.link().try_login(field("username"), field("password")).await;
        tried.map_err(|failure| {
            if failure.is_login_refused() {
                Unusable::Refused(failure.into_error("the credential cannot log in"))
            } else {
                let doing = "whether the credential can log in is not known";
                Unusable::Unknown(failure.into_error(doing))
            }
        })
    }
}

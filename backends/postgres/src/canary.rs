//! What a canary does with a role: it logs in over the way that we go ourselves.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{backend::PostgresBackend, quote::Sql, revoke::column};

#[async_trait]
impl Probe for PostgresBackend {
    async fn clock(&self) -> Result<Timestamp, Error> {
        let sql = Sql::new()
            .text("SELECT (extract(epoch from pg_catalog.clock_timestamp())")
            .text(" * 1000000)::pg_catalog.int8");
        let doing = "the server's clock could not be read";
        let rows = self.server().run(&sql).await.map_err(|failure| failure.into_error(doing))?;
        let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Invalid, doing))?;
        let micros = column::<i64>(row, 0).map_err(|failure| failure.into_error(doing))?;
        Ok(Timestamp::from_micros(micros))
    }

    async fn try_use(&self, credential: &Credential) -> Result<(), Unusable> {
        let field = |name| credential.field(name).unwrap_or_default();
        let tried =
            self.server().try_login(field("username"), field("password"), field("database")).await;
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

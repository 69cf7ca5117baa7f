//! What a canary does with an account: it logs in over the way that we go ourselves.

use async_trait::async_trait;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Probe, Timestamp, Unusable};

use crate::{
    backend::MysqlBackend,
    connection::Login,
    error::Failure,
    hash,
    quote::{Literal, Sql},
    revoke::{column, text},
};

const UNKNOWN: &str = "whether the credential can log in is not known";

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
        let (username, password) = (field("username"), field("password"));
        match self.link().try_login(username, password).await {
            Ok(Login::Done) => Ok(()),
            Ok(Login::Unspoken) => self.compare(username, password).await,
            Err(failure) if failure.is_login_refused() => {
                Err(Unusable::Refused(failure.into_error("the credential cannot log in")))
            }
            Err(failure) => Err(Unusable::Unknown(failure.into_error(UNKNOWN))),
        }
    }
}

impl MysqlBackend {
    /// In place of a login that the driver cannot finish: whether the server has the account
    /// with the key of this password. The server asks for the same proof in the name of an
    /// account that is not there, so as not to say which are.
    async fn compare(&self, username: &str, password: &str) -> Result<(), Unusable> {
        let unknown = |failure: Failure| Unusable::Unknown(failure.into_error(UNKNOWN));
        let name = Literal::new(username).map_err(|error| unknown(error.into()))?;
        let sql = Sql::new()
            .text("SELECT CONVERT(authentication_string USING utf8mb4) FROM mysql.user")
            .text(" WHERE plugin = 'ed25519' AND User = ")
            .literal(&name);
        let key = hash::ed25519(password);
        for row in self.link().run(&sql).await.map_err(unknown)? {
            if text(&row, 0).map_err(unknown)? == key {
                return Ok(());
            }
        }
        let refused = Error::new(ErrorKind::Denied, "the server has no such account with this key");
        Err(Unusable::Refused(refused))
    }
}

//! Logging in, which is the only proof of life.
//!
//! Invariant: "refused" is said by the server that knows; a server that does not answer has
//! said nothing.

use std::{str::FromStr, sync::Arc, time::Duration};

use dayfly_integration::Client;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::ledger::Secret;

const WITHIN: Duration = Duration::from_secs(5);

/// What became of a login.
#[derive(Debug)]
pub(crate) enum Login {
    /// It worked; at PostgreSQL with the session that it opened.
    Works(Option<PgConnection>),
    /// The server said no.
    Refused,
    /// There was no answer, or none about the credential.
    Unknown(String),
}

/// Where API keys are checked: at any replica.
#[derive(Clone, Debug)]
pub(crate) struct Door(pub(crate) Arc<Vec<Client>>);

impl Door {
    pub(crate) async fn login(&self, secret: &Secret) -> Login {
        match secret {
            Secret::Key(key) => self.verify(key).await,
            Secret::Login(url) => match tokio::time::timeout(WITHIN, log_in(url)).await {
                Ok(Ok(session)) => Login::Works(Some(session)),
                Ok(Err(sqlx::Error::Database(error)))
                    if error.code().is_some_and(|code| code.starts_with("28")) =>
                {
                    Login::Refused
                }
                Ok(Err(error)) => Login::Unknown(error.to_string()),
                Err(_) => Login::Unknown("no answer in time".to_owned()),
            },
        }
    }

    /// A yes of any replica is a yes.
    async fn verify(&self, key: &str) -> Login {
        let mut answer = Login::Unknown("no replica answered".to_owned());
        for client in self.0.iter() {
            let request = client.with(key).request(reqwest::Method::GET, "/verify");
            match Client::send(request.timeout(WITHIN)).await.map(|answer| answer.status) {
                Some(200) => return Login::Works(None),
                Some(401) => answer = Login::Refused,
                Some(_) | None => {}
            }
        }
        answer
    }
}

/// Connects and reads what the role gives access to.
async fn log_in(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.ssl_mode(PgSslMode::Disable);
    let mut session = options.disable_statement_logging().connect().await?;
    use_it(&mut session).await?;
    Ok(session)
}

async fn use_it(session: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("SELECT text FROM app.notes").execute(session).await.map(drop)
}

/// Whether a session still gets answers. One that is silent is no proof of either.
pub(crate) async fn goes_on(session: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(WITHIN, use_it(session)).await, Ok(Ok(())))
}

/// Ends a session in good order, so that it is not taken for a forgotten one.
pub(crate) async fn leave(session: Option<PgConnection>) {
    if let Some(session) = session {
        drop(tokio::time::timeout(WITHIN, session.close()).await);
    }
}

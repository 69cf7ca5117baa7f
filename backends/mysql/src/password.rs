//! New passwords, and what the server is told of them.
//!
//! Invariant: a hash has the form that the server wants now. A server that enforces one lets in
//! whoever has another, and then only to change his password.

use std::sync::{Mutex, PoisonError};

use dayfly_backend_sdk::{Error, ErrorKind, Secret};
use ring::rand::SystemRandom;

use crate::{
    authentication::Authentication,
    connection::Link,
    credential::random_password,
    error::Failure,
    hash::{self, SALT_LEN, Sha2Form},
    quote::Sql,
    revoke::text,
};

pub(crate) struct Passwords {
    random: SystemRandom,
    /// Whether the server knows more than one form of a `caching_sha2_password` hash. It comes
    /// with the server's version, and is asked once for as long as no connection is opened; which
    /// form it wants is asked each time.
    forms: Forms,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { random: SystemRandom::new(), forms: Forms::default() }
    }

    /// A new one and its hash.
    pub(crate) async fn make(
        &self,
        link: &Link,
        authentication: Authentication,
    ) -> Result<(Secret, String), Error> {
        let (password, _) = self.random()?;
        let hash = self.hash(link, &password, authentication).await?;
        Ok((password, hash))
    }

    /// What the server is told of `password`.
    pub(crate) async fn hash(
        &self,
        link: &Link,
        password: &Secret,
        authentication: Authentication,
    ) -> Result<String, Error> {
        let form = match authentication {
            Authentication::CachingSha2Password => self.form(link).await,
            Authentication::Ed25519 => return Ok(hash::ed25519(password.expose())),
            Authentication::MysqlNativePassword => return Ok(hash::native(password.expose())),
        };
        let doing = "the form in which the server keeps a password could not be asked";
        let form = form.map_err(|failure| failure.into_error(doing))?;
        let (_, salt) = self.random()?;
        let plain = password.clone();
        // Some milliseconds of arithmetic: not on a thread that others wait for.
        let hash = tokio::task::spawn_blocking(move || match form {
            Sha2Form::Crypt5 => hash::caching_sha2(plain.expose(), &salt),
            Sha2Form::Pbkdf2Sha512 => hash::caching_sha2_pbkdf2(plain.expose(), &salt),
        });
        hash.await.map_err(|_| Error::new(ErrorKind::Unavailable, "the hash was not computed"))
    }

    fn random(&self) -> Result<(Secret, [u8; SALT_LEN]), Error> {
        random_password(&self.random).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the operating system has no random numbers")
        })
    }

    /// The form in which the server keeps a password that it is told now.
    async fn form(&self, link: &Link) -> Result<Sha2Form, Failure> {
        if !self.several_forms(link).await? {
            return Ok(Sha2Form::Crypt5);
        }
        let sql = "SELECT CONVERT(@@GLOBAL.caching_sha2_password_storage_format USING utf8mb4)";
        let rows = link.run(&Sql::new().text(sql)).await?;
        let said = rows.first().map(|row| text(row, 0)).transpose()?.unwrap_or_default();
        match said.as_str() {
            "CRYPT5" => Ok(Sha2Form::Crypt5),
            "PBKDF2_SHA512" => Ok(Sha2Form::Pbkdf2Sha512),
            other => Err(Failure::Ours(format!(
                "the server keeps passwords as `{other}` (`caching_sha2_password_storage_format`), \
                 and only `CRYPT5` and `PBKDF2_SHA512` can be computed"
            ))),
        }
    }

    /// Asked by more than one at first, rather than by one for whom the others wait.
    async fn several_forms(&self, link: &Link) -> Result<bool, Failure> {
        let opened = link.opened();
        if let Some(several) = self.forms.of(opened) {
            return Ok(several);
        }
        let sql = "SHOW GLOBAL VARIABLES LIKE 'caching\\_sha2\\_password\\_storage\\_format'";
        let rows = link.run(&Sql::new().text(sql)).await?;
        let several = !rows.is_empty();
        // With the count of before the question: if that opened a connection, the next one asks
        // once more.
        self.forms.note(opened, several);
        Ok(several)
    }
}

/// What the server has said, and how many connections had been opened by then.
#[derive(Default)]
struct Forms(Mutex<Option<(u64, bool)>>);

impl Forms {
    fn of(&self, opened: u64) -> Option<bool> {
        let said = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.filter(|(then, _)| *then == opened).map(|(_, several)| several)
    }

    fn note(&self, opened: u64, several: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((opened, several));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_can_is_asked_again_after_a_new_connection() {
        let forms = Forms::default();
        assert_eq!(forms.of(1), None);
        forms.note(1, true);
        assert_eq!((forms.of(1), forms.of(2)), (Some(true), None));
        forms.note(2, false);
        assert_eq!((forms.of(1), forms.of(2)), (None, Some(false)));
    }
}

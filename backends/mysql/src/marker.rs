//! Whose prefix this is: an account that nobody can log in as, with the owner as the subject of
//! the certificate that it asks for. It is kept, restored and replicated with the accounts.
//!
//! Invariant: another installation's marker is never replaced, and the marker's name is not one
//! that a handle can have.

use dayfly_backend_sdk::{Error, ErrorKind, HandlePrefix, Marker, Retry};

use crate::{
    connection::Link,
    error::Failure,
    quote::{Literal, QuoteError, Sql},
    revoke::{column, text},
};

/// Only from here, if anybody unlocked it.
const HOST: &str = "localhost";
/// How long one writer waits for another, in seconds.
const LOCK_WAIT_S: u64 = 5;

fn name(prefix: &HandlePrefix) -> String {
    format!("{}marker", prefix.as_str())
}

pub(crate) async fn read(link: &Link, prefix: &HandlePrefix) -> Result<Option<Marker>, Error> {
    let doing = "the marker could not be read";
    let sql = || -> Result<Sql, QuoteError> {
        let name = Literal::new(&name(prefix))?;
        Ok(Sql::new()
            .text("SELECT CONVERT(x509_subject USING utf8mb4) FROM mysql.user WHERE User = ")
            .literal(&name))
    };
    let sql = sql().map_err(|error| Failure::from(error).into_error(doing))?;
    let rows = link.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
    let Some(row) = rows.last() else { return Ok(None) };
    let subject = text(row, 0).map_err(|failure| failure.into_error(doing))?;
    match Marker::parse(&subject) {
        Some(marker) => Ok(Some(marker)),
        None => Err(not_a_marker(prefix)),
    }
}

/// One message under one lock of the server: what stands there is looked at and changed by
/// nobody else in between.
pub(crate) async fn write(
    link: &Link,
    prefix: &HandlePrefix,
    marker: &Marker,
) -> Result<(), Error> {
    let doing = "the marker could not be written";
    let sql = message(prefix, marker).map_err(|error| Failure::from(error).into_error(doing))?;
    let rows = link.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
    let failed = |failure: Failure| failure.into_error(doing);
    let row = rows.last().ok_or_else(|| Error::new(ErrorKind::Invalid, doing))?;
    if column::<Option<i64>>(row, 0).map_err(failed)? != Some(1) {
        let busy = Error::new(ErrorKind::Unavailable, "somebody else is writing the marker");
        return Err(busy.with_retry(Retry::Temporary));
    }
    let Some(before) = column::<Option<String>>(row, 1).map_err(failed)? else { return Ok(()) };
    match Marker::parse(&before) {
        Some(found) if found.installation == marker.installation => Ok(()),
        Some(found) => {
            let message = format!("the prefix belongs to installation {}", found.installation);
            Err(Error::new(ErrorKind::Conflict, message))
        }
        None => Err(not_a_marker(prefix)),
    }
}

fn message(prefix: &HandlePrefix, marker: &Marker) -> Result<Sql, QuoteError> {
    let (name, host) = (Literal::new(&name(prefix))?, Literal::new(HOST)?);
    let lock = Literal::new(&format!("dayfly:{}marker", prefix.as_str()))?;
    let subject = Literal::new(&marker.to_text())?;
    // Up to the turn, which is the last that its text says.
    let ours = format!("dayfly installation={} turn=", marker.installation);
    let length = u64::try_from(ours.len()).unwrap_or(u64::MAX);
    let ours = Literal::new(&ours)?;
    let change = |verb| Sql::new().text(verb).account(&name, &host);
    let create = change("CREATE USER ");
    let create = create.text(" REQUIRE SUBJECT ").literal(&subject).text(" ACCOUNT LOCK");
    let alter = change("ALTER USER ").text(" REQUIRE SUBJECT ").literal(&subject);
    Ok(Sql::new()
        .text("SET @dayfly_lock = GET_LOCK(")
        .literal(&lock)
        .text(", ")
        .number(LOCK_WAIT_S)
        .text(");\nSET @dayfly_before = (SELECT MAX(CONVERT(x509_subject USING utf8mb4))")
        .text(" FROM mysql.user WHERE User = ")
        .literal(&name)
        .text(");\nSET @dayfly_ours = COALESCE(LEFT(@dayfly_before, ")
        .number(length)
        .text(") = ")
        .literal(&ours)
        .text(", FALSE);\n")
        .only_if(&Sql::new().text("@dayfly_lock = 1 AND @dayfly_before IS NULL"), &create)
        .only_if(&Sql::new().text("@dayfly_lock = 1 AND @dayfly_ours"), &alter)
        .text("DO RELEASE_LOCK(")
        .literal(&lock)
        .text(");\nSELECT CAST(@dayfly_lock AS SIGNED), @dayfly_before"))
}

fn not_a_marker(prefix: &HandlePrefix) -> Error {
    let message = format!("the account `{}` is there and is no marker of Dayfly", name(prefix));
    Error::new(ErrorKind::Conflict, message)
}

//! Whose prefix this is: a role that nobody can log in as, with the owner in its comment.
//! Roles and their comments are the cluster's, and so is the prefix.
//!
//! Invariant: another installation's marker is never replaced, and the marker's name is not
//! one that a handle can have.

use dayfly_backend_sdk::{Error, ErrorKind, HandlePrefix, Marker};

use crate::{
    connection::Server,
    error::Failure,
    quote::{Ident, Literal, QuoteError, Sql},
    revoke::column,
};

/// Eight characters after the prefix's sixteen at most: far from the 63 that are cut.
fn name(prefix: &HandlePrefix) -> String {
    format!("{}marker", prefix.as_str())
}

pub(crate) async fn read(server: &Server, prefix: &HandlePrefix) -> Result<Option<Marker>, Error> {
    let doing = "the marker could not be read";
    let sql = || -> Result<Sql, QuoteError> {
        Ok(Sql::new()
            .text("SELECT pg_catalog.shobj_description(oid, 'pg_authid')")
            .text(" FROM pg_catalog.pg_roles WHERE rolname = ")
            .literal(&Literal::new(&name(prefix))?))
    };
    let sql = sql().map_err(|error| Failure::from(error).into_error(doing))?;
    let rows = server.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
    let Some(row) = rows.last() else { return Ok(None) };
    let comment: Option<String> = column(row, 0).map_err(|failure| failure.into_error(doing))?;
    match comment.as_deref().and_then(Marker::parse) {
        Some(marker) => Ok(Some(marker)),
        None => Err(not_a_marker(prefix)),
    }
}

pub(crate) async fn write(
    server: &Server,
    prefix: &HandlePrefix,
    marker: &Marker,
) -> Result<(), Error> {
    let doing = "the marker could not be written";
    let create = match read(server, prefix).await? {
        Some(found) if found.installation != marker.installation => {
            let message = format!("the prefix belongs to installation {}", found.installation);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Some(_) => false,
        None => true,
    };
    let sql = || -> Result<Sql, QuoteError> {
        let role = Ident::new(&name(prefix))?;
        let comment = Literal::new(&marker.to_text())?;
        let mut sql = Sql::new();
        if create {
            // Strict: if another installation was faster, this fails, and so does its comment.
            sql = sql.text("CREATE ROLE ").ident(&role).text(" NOLOGIN;\n");
        }
        Ok(sql.text("COMMENT ON ROLE ").ident(&role).text(" IS ").literal(&comment))
    };
    let sql = sql().map_err(|error| Failure::from(error).into_error(doing))?;
    server.run(&sql).await.map(drop).map_err(|failure| failure.into_error(doing))
}

fn not_a_marker(prefix: &HandlePrefix) -> Error {
    let message = format!("the role `{}` is there and is no marker of Dayfly", name(prefix));
    Error::new(ErrorKind::Conflict, message)
}

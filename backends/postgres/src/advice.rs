//! What should be changed at a server, or about our account there.

use dayfly_backend_sdk::Error;

use crate::{connection::Server, quote::Sql, revoke::column};

/// Of the 8 KiB that a row has at most. An access list that is larger than a page's part fails
/// every further grant on its object.
const ACL_BYTES: i64 = 4_096;
/// How many objects are named.
const NAMES_MAX: i64 = 5;

pub(crate) async fn advice(server: &Server) -> Result<Vec<String>, Error> {
    let sql = Sql::new()
        .text("SELECT rolsuper, pg_catalog.pg_has_role(oid, 'pg_signal_backend', 'usage'),")
        .text(" pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 160000,")
        .text(" pg_catalog.current_setting('server_version'), (SELECT")
        .text(" pg_catalog.string_agg(name, ', ') FROM (")
        .text("SELECT oid::pg_catalog.regclass::pg_catalog.text, relacl FROM pg_catalog.pg_class")
        .text(" UNION ALL SELECT 'schema ' || nspname, nspacl FROM pg_catalog.pg_namespace")
        .text(" UNION ALL SELECT 'database ' || datname, datacl FROM pg_catalog.pg_database")
        .text(") AS objects (name, acl) WHERE pg_catalog.pg_column_size(acl) > ")
        .number(ACL_BYTES)
        .text(" LIMIT ")
        .number(NAMES_MAX)
        .text("), pg_catalog.current_database()::pg_catalog.text, EXISTS (SELECT FROM")
        .text(" pg_catalog.pg_namespace WHERE nspname = 'public' AND")
        .text(" pg_catalog.has_schema_privilege('public', oid, 'CREATE'))")
        .text(" FROM pg_catalog.pg_roles WHERE rolname = current_user");
    let doing = "the server could not be asked about our account";
    let rows = server.run(&sql).await.map_err(|failure| failure.into_error(doing))?;
    let mut advice = Vec::new();
    let Some(row) = rows.last() else { return Ok(advice) };
    let fact = |index| column::<bool>(row, index).map_err(|failure| failure.into_error(doing));
    let text =
        |index| column::<Option<String>>(row, index).map_err(|failure| failure.into_error(doing));
    if fact(0)? {
        advice.push(
            "our account is a superuser: it needs CREATEROLE and membership in what it hands on, \
             no more"
                .to_owned(),
        );
    }
    if !fact(1)? {
        advice.push(
            "our account is not in pg_signal_backend: a session whose role somebody else drops \
             cannot be ended"
                .to_owned(),
        );
    }
    if fact(2)? {
        advice.push(format!(
            "with PostgreSQL {} CREATEROLE may change every role that is no superuser: prefer 16 \
             or later",
            text(3)?.unwrap_or_default()
        ));
    }
    if fact(6)? {
        advice.push(format!(
            "whoever logs in may create objects in the schema public of the database {}, as it \
             was before PostgreSQL 15: REVOKE CREATE ON SCHEMA public FROM PUBLIC, in every \
             database",
            text(5)?.unwrap_or_default()
        ));
    }
    if let Some(names) = text(4)? {
        advice.push(format!(
            "the access lists of these are half full: {names}. At 8 KiB every further grant \
             fails; grant to groups, and let roles be members"
        ));
    }
    Ok(advice)
}

//! What should be changed at a server, or about our account there.

use dayfly_backend_sdk::Error;

use crate::{
    connection::Link,
    quote::{Literal, Sql},
    revoke::{column, text},
};

pub(crate) async fn advice(link: &Link, account_host: &Literal) -> Result<Vec<String>, Error> {
    let doing = "the server could not be asked about our account";
    let failed = |failure: crate::error::Failure| failure.into_error(doing);
    let mut advice = Vec::new();
    // The more exact host comes first, and only at the same host the name.
    let anonymous = Sql::new()
        .text("SELECT CONVERT(Host USING utf8mb4), CAST(Host IN ('%', ")
        .literal(account_host)
        .text(") AS SIGNED) FROM mysql.user WHERE User = '' AND Host <> ''");
    for row in link.run(&anonymous).await.map_err(failed)? {
        let host = text(&row, 0).map_err(failed)?;
        advice.push(match column::<i64>(&row, 1).map_err(failed)? {
            0 => format!(
                "the anonymous account ''@'{host}' is taken before any of ours by whoever comes \
                 from there: drop it"
            ),
            _ => format!(
                "the anonymous account ''@'{host}' answers for every account that is not there, \
                 those of ours that have ended included: drop it"
            ),
        });
    }
    let grants = link.run(&Sql::new().text("SHOW GRANTS")).await.map_err(failed)?;
    for row in grants {
        let grant = text(&row, 0).map_err(failed)?;
        // Up to ` ON `: what follows may hold the account's own hash.
        let privileges = grant.split(" ON ").next().unwrap_or_default();
        let many = ["ALL PRIVILEGES", "SUPER", "SYSTEM_USER"];
        if let Some(one) = many.into_iter().find(|one| has(privileges, one)) {
            advice.push(format!(
                "our account has {one}: it needs CREATE USER, PROCESS, the right to end \
                 connections, and what it hands on"
            ));
        }
    }
    Ok(advice)
}

fn has(privileges: &str, one: &str) -> bool {
    let list = privileges.strip_prefix("GRANT ").unwrap_or(privileges);
    list.split(',').any(|name| name.trim() == one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_is_found_as_a_whole() {
        assert!(has("GRANT ALL PRIVILEGES", "ALL PRIVILEGES"));
        assert!(has("GRANT SELECT, SUPER", "SUPER"));
        assert!(!has("GRANT SUPERIOR, SELECT", "SUPER"));
    }
}

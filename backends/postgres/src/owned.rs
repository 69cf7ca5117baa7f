//! Where roles own something or have rights, and what becomes of it there.
//!
//! Invariant: the server's own list says in which databases that is, since a role may have been
//! in any that lets everybody in. What fails in one database is told with its name, and fails
//! those roles alone that have something there.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;

use crate::{
    error::Failure,
    quote::Sql,
    revoke::{any_id, column},
};

/// So many databases are named to people.
const NAMED_MAX: usize = 8;

/// What roles have in one database; none: what belongs to the whole server.
pub(crate) type Place = Option<String>;

/// How many objects each role has to do with, and where.
#[derive(Debug, Default)]
pub(crate) struct Estates(BTreeMap<Place, BTreeMap<i64, i64>>);

/// Asks for them. The list is one for all databases, and everybody may read it.
pub(crate) fn question(oids: impl Iterator<Item = i64>) -> Sql {
    let sql = Sql::new()
        .text("SELECT d.datname::pg_catalog.text, s.refobjid::pg_catalog.int8,")
        .text(" pg_catalog.count(*) FROM pg_catalog.pg_shdepend s")
        .text(" LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid")
        .text(" WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid");
    any_id(sql, oids).text(" GROUP BY 1, 2")
}

impl Estates {
    pub(crate) fn read(rows: &[PgRow]) -> Result<Self, Failure> {
        let mut estates = Self::default();
        for row in rows {
            let (place, oid): (Place, i64) = (column(row, 0)?, column(row, 1)?);
            estates.0.entry(place).or_default().insert(oid, column(row, 2)?);
        }
        Ok(estates)
    }

    /// Each place, with the roles that have something there.
    pub(crate) fn places(self) -> impl Iterator<Item = (Place, BTreeSet<i64>)> {
        self.0.into_iter().map(|(place, oids)| (place, oids.into_keys().collect()))
    }

    /// Why the role `oid` cannot be dropped; none if nothing is in its way.
    pub(crate) fn of(&self, oid: i64) -> Option<String> {
        let has = self.0.iter().filter_map(|(place, oids)| Some((place, oids.get(&oid)?)));
        let mut words: Vec<String> = has
            .map(|(place, count)| match place {
                Some(database) => format!("{count} in `{database}`"),
                None => format!("{count} of the whole server"),
            })
            .collect();
        if words.len() > NAMED_MAX {
            let more = words.len() - NAMED_MAX;
            words.truncate(NAMED_MAX);
            words.push(format!("more in {more} databases"));
        }
        (!words.is_empty())
            .then(|| format!("objects that it owns or has rights to: {}", words.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_counted_by_database() {
        let mut estates = Estates::default();
        let mut has = |place: Option<&str>, oid, count| {
            estates.0.entry(place.map(str::to_owned)).or_default().insert(oid, count);
        };
        has(Some("shop"), 7, 3);
        has(Some("stock"), 7, 1);
        has(Some("stock"), 8, 9);
        has(None, 7, 2);
        let said = "objects that it owns or has rights to: 2 of the whole server, 3 in `shop`, 1 in `stock`";
        assert_eq!(estates.of(7).as_deref(), Some(said));
        assert_eq!(estates.of(9), None);
        let places: Vec<_> = estates.places().collect();
        assert_eq!(places.len(), 3);
        assert_eq!(places[2], (Some("stock".to_owned()), BTreeSet::from([7, 8])));
    }

    #[test]
    fn very_many_databases_are_not_all_named() {
        let place = |at: usize| (Some(format!("d{at:02}")), BTreeMap::from([(1, 1)]));
        let estates = Estates((0..30).map(place).collect());
        let said = estates.of(1).unwrap();
        assert!(said.ends_with("1 in `d07`, more in 22 databases"), "{said}");
    }
}

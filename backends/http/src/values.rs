//! What fills placeholders.
//!
//! Invariant: a placeholder is filled with a value of this very credential or not at all.

use dayfly_backend_sdk::{Secret, Timestamp};
use serde_json::{Map, Value};

use crate::{error::Failure, text::Hole};

const DAY_S: i64 = 86_400;

/// What is known of one credential.
#[derive(Clone, Copy, Default)]
pub(crate) struct Values<'a> {
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) handle: Option<&'a str>,
    pub(crate) id: Option<&'a Value>,
    pub(crate) lease: Option<&'a str>,
    pub(crate) marker: Option<&'a str>,
    /// By the API's clock.
    pub(crate) now: Option<Timestamp>,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) principal: Option<&'a str>,
    pub(crate) role: Option<&'a Map<String, Value>>,
    pub(crate) secret: Option<&'a Secret>,
}

impl Values<'_> {
    pub(crate) fn of(&self, hole: &Hole) -> Result<Value, Failure> {
        let text = |text: Option<&str>| text.map(Value::from);
        let expires = self.expires_at.map(seconds_up);
        let value = match hole {
            Hole::ExpiresAt => expires.map(|at| Value::from(time(at))),
            Hole::ExpiresDate => expires.map(|at| Value::from(date_up(at))),
            Hole::ExpiresUnix => expires.map(Value::from),
            Hole::Handle => text(self.handle),
            Hole::Id => self.id.cloned(),
            Hole::Lease => text(self.lease),
            Hole::Marker => text(self.marker),
            Hole::Password => text(self.password.map(Secret::expose)),
            Hole::Principal => text(self.principal),
            Hole::Role(name) => self.role.and_then(|role| role.get(name)).cloned(),
            Hole::Secret => text(self.secret.map(Secret::expose)),
            // Zero would mean "for ever" to some.
            Hole::TtlSeconds => self.expires_at.zip(self.now).map(|(at, now)| {
                let ahead = at.since(now);
                let up = u64::from(ahead.subsec_nanos() > 0);
                Value::from(ahead.as_secs().saturating_add(up).max(1))
            }),
        };
        value.ok_or_else(|| Failure::Refused(format!("{hole} is not known of this credential")))
    }
}

/// Up, so that nothing ends before its lease.
fn seconds_up(at: Timestamp) -> i64 {
    at.micros().saturating_add(999_999) / 1_000_000
}

/// Without a fraction, which some do not read.
fn time(seconds: i64) -> String {
    Timestamp::from_seconds(seconds).rfc3339().replace(".000000Z", "Z")
}

/// The first midnight that is not before it: what ends "on" a date ends as the date begins.
fn date_up(seconds: i64) -> String {
    let days = seconds.saturating_add(DAY_S - 1) / DAY_S;
    time(days.saturating_mul(DAY_S)).chars().take_while(|c| *c != 'T').collect()
}

/// An instant as an API writes it: a time or a date of RFC 3339, or seconds since 1970.
pub(crate) fn instant(value: &Value) -> Option<Timestamp> {
    if let Some(seconds) = value.as_i64() {
        return Some(Timestamp::from_seconds(seconds));
    }
    let text = value.as_str()?;
    Timestamp::parse_rfc3339(text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::Text;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn expiries_are_rounded_up() {
        let filled = |text: &str, expires_at| {
            let now = Some(at("2026-11-22T12:00:00Z"));
            let values = Values { expires_at: Some(expires_at), now, ..Values::default() };
            Text::parse(text).unwrap().json(&values).unwrap()
        };
        let late = at("2026-11-22T12:10:00.25Z");
        assert_eq!(filled("{expires_at}", late), json!("2026-11-22T12:10:01Z"));
        assert_eq!(filled("{ttl_seconds}", late), json!(601));
        assert_eq!(filled("in {ttl_seconds} s", late), json!("in 601 s"));
        assert_eq!(filled("{ttl_seconds}", at("2026-11-22T11:00:00Z")), json!(1));
        assert_eq!(filled("{expires_date}", late), json!("2026-11-23"));
        assert_eq!(filled("{expires_date}", at("2026-12-31T00:00:00Z")), json!("2026-12-31"));
        assert_eq!(filled("{expires_date}", at("2026-12-31T00:00:01Z")), json!("2027-01-01"));
    }

    #[test]
    fn an_api_may_write_its_expiry_in_three_ways() {
        let midnight = Some(at("2026-11-23T00:00:00Z"));
        assert_eq!(instant(&json!("2026-11-23")), midnight);
        assert_eq!(instant(&json!("2026-11-23T01:00:00+01:00")), midnight);
        assert_eq!(instant(&json!(1_795_392_000)), midnight);
        assert_eq!(instant(&json!(null)), None);
        assert_eq!(instant(&json!("never")), None);
    }
}

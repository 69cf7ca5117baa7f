//! Who we would be to the broker, and what it makes of that.
//!
//! Invariant: of a token only what it says of itself is shown, and that it is not verified here.

use dayfly_api::WhoAmI;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Report, certificate::Moment};
use crate::{
    args::{Context, DoctorArgs},
    client::Client,
    failure::{self, Failure},
    identity::{Source, Token},
};

/// What is left of a token's life at least, so that a run still begins within it.
const LEFT_MIN_S: i64 = 30;
const UNREACHED: &str = "the broker was not reached";

/// Which identity there is, what it says, and whether the broker takes it.
pub(super) async fn look(
    report: &mut Report,
    args: &DoctorArgs,
    context: Context<'_>,
    reached: Option<&Client>,
    now: Moment,
) {
    let Some(source) = found(report, args, context, reached) else {
        for name in ["claims", "whoami", "roles"] {
            report.skip(name, "there is no identity");
        }
        return;
    };
    let asked = match reached {
        Some(_) => context.signed_in(&args.identity).await.map(|(_, token)| token),
        // Whoever makes a token for an audience needs the broker's name; what lies here does not.
        None if is_at_hand(&source) => source.token("").await,
        None => {
            for name in ["claims", "whoami", "roles"] {
                report.skip(name, UNREACHED);
            }
            return;
        }
    };
    let token = match asked {
        Ok(token) => token,
        Err(error) => {
            let failure = Failure::from(error);
            report.fail("claims", failure.to_line(), "", failure.exit_code());
            for name in ["whoami", "roles"] {
                report.skip(name, "there is no token");
            }
            return;
        }
    };
    claims(report, &token, now);
    if let Some(client) = reached {
        accepted(report, client, &token).await;
    } else {
        report.skip("whoami", UNREACHED);
        report.skip("roles", UNREACHED);
    }
}

/// The identity that commands would use, by where it is.
fn found(
    report: &mut Report,
    args: &DoctorArgs,
    context: Context<'_>,
    reached: Option<&Client>,
) -> Option<Source> {
    const NAME: &str = "identity";
    let (identity, ambient) = (&args.identity, context.ambient);
    match context.bearer(identity, reached) {
        Ok(source) => {
            let has_own = identity.kind.is_none() && ambient.value("DAYFLY_TOKEN").is_some();
            let variable = if has_own { "DAYFLY_TOKEN" } else { "DAYFLY_ID_TOKEN" };
            let shown = match &source {
                Source::Aws(_) => "AWS credentials, by which a request is signed".to_owned(),
                Source::File(path) => format!("a token in the file `{}`", path.display()),
                Source::GitHub { .. } => {
                    "GitHub's, asked for by ACTIONS_ID_TOKEN_REQUEST_URL".to_owned()
                }
                Source::Login(_) => "who signed in by `dayfly login`".to_owned(),
                Source::Variable(_) => format!("a token in {variable}"),
            };
            report.ok(NAME, shown);
            Some(source)
        }
        Err(error) => {
            let failure = Failure::from(error);
            report.fail(NAME, failure.to_line(), "", failure.exit_code());
            None
        }
    }
}

fn is_at_hand(source: &Source) -> bool {
    matches!(source, Source::File(_) | Source::Variable(_))
}

/// What the token says of itself.
fn claims(report: &mut Report, token: &Token, now: Moment) {
    const NAME: &str = "claims";
    if token.is_of_a_task() {
        report.ok(NAME, "none to be read: it is a task's token");
        return;
    }
    let Some(claims) = token.unverified_claims() else {
        report.ok(NAME, "none to be read: it is no JWT");
        return;
    };
    let shown: Vec<_> = ["iss", "aud", "sub"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", text(claims.get(name)?))))
        .collect();
    let shown = shown.join(" ");
    match left(&claims, now) {
        None => report.warn(NAME, format!("{shown}; no `exp`"), "the broker refuses such a token"),
        Some((end, left)) if left <= 0 => {
            let advice = "get a new one from whoever issued it";
            let detail = format!("{shown}; it expired at {end}");
            report.fail(NAME, detail, advice, failure::UNAUTHENTICATED);
        }
        Some((end, left)) if left < LEFT_MIN_S => {
            report.warn(
                NAME,
                format!("{shown}; it expires at {end}"),
                "get a new one before a run",
            );
        }
        Some((end, _)) => report.ok(NAME, format!("{shown}; it expires at {end} (not verified)")),
    }
}

/// When the token ends, and in how many seconds that is.
fn left(claims: &Map<String, Value>, now: Moment) -> Option<(String, i64)> {
    let end = claims.get("exp")?.as_i64()?;
    let shown = OffsetDateTime::from_unix_timestamp(end).ok()?.format(&Rfc3339).ok()?;
    Some((shown, end.saturating_sub(now.0.unix_timestamp())))
}

/// A string as it is, or several.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

async fn accepted(report: &mut Report, client: &Client, token: &Token) {
    match client.whoami(token).await {
        Ok(WhoAmI { principal, kind, task, .. }) => {
            let task = task.map(|task| format!(", in {task}")).unwrap_or_default();
            report.ok("whoami", format!("{principal} ({kind}){task}"));
        }
        Err(error) => {
            let failure = Failure::from(error);
            let advice = "the broker's audit log says why (`identity.refused`): issuer, audience, \
                          signature or time";
            report.fail("whoami", failure.to_line(), advice, failure.exit_code());
            report.skip("roles", "the broker does not accept the identity");
            return;
        }
    }
    match client.roles(token).await {
        Ok(roles) if roles.data.is_empty() => {
            let advice = "`dayfly role check ROLE --explain` tells which rule is missing";
            report.warn("roles", "no rule lets it have any", advice);
        }
        Ok(roles) => report.ok("roles", format!("{} to be had or seen", roles.data.len())),
        Err(error) => {
            let failure = Failure::from(error);
            report.fail("roles", failure.to_line(), "", failure.exit_code());
        }
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use time::macros::datetime;

    use super::*;
    use crate::doctor::State;

    fn looked_at(claims_text: &str) -> (State, String) {
        let body = BASE64URL_NOPAD.encode(claims_text.as_bytes());
        let token = Token::parse(&format!("eyJhbGciOiJub25lIn0.{body}.c2ln"), "x").unwrap();
        let mut report = Report::default();
        claims(&mut report, &token, Moment(datetime!(2026-01-01 00:00:00 UTC)));
        let check = report.checks.remove(0);
        (check.state, check.detail)
    }

    #[test]
    fn a_token_is_told_by_what_it_says_of_itself() {
        let (state, detail) = looked_at(
            r#"{"iss":"https://ci","aud":["a","b"],"sub":"job","exp":1767225900,"secret":"x"}"#,
        );
        assert_eq!(state, State::Ok);
        assert!(detail.starts_with("iss=https://ci aud=a,b sub=job; it expires at "), "{detail}");
        assert!(detail.contains("2026-01-01T00:05:00Z") && !detail.contains("secret"), "{detail}");
    }

    #[test]
    fn what_has_ended_or_is_about_to_is_told() {
        assert_eq!(looked_at(r#"{"exp":1767225600}"#).0, State::Failed);
        assert_eq!(looked_at(r#"{"exp":1767225610}"#).0, State::Warning);
        assert_eq!(looked_at(r#"{"exp":1767225700}"#).0, State::Ok);
        assert_eq!(looked_at(r#"{"iss":"x"}"#).0, State::Warning);
        for odd in ["no JSON", "[]", ""] {
            let (state, detail) = looked_at(odd);
            assert_eq!((state, detail.as_str()), (State::Ok, "none to be read: it is no JWT"));
        }
    }
}

//! `dayfly doctor`: what is in the way between here and a credential, and what to do about it.
//!
//! Invariant: it changes nothing and shows no token; what it can't find out it says so, and goes on.

mod broker;
mod certificate;
mod here;
mod who;

use serde::Serialize;

use crate::{
    args::{Context, DoctorArgs, Format},
    doctor::{broker::Reached, certificate::Moment},
    failure::{self, Failure},
    output::printable,
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Failed,
    Ok,
    /// It makes no sense after what failed before.
    Skipped,
    Warning,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(skip)]
    code: u8,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default, Serialize)]
struct Report {
    checks: Vec<Check>,
}

impl Report {
    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, State::Ok, detail.into(), None, failure::OK);
    }

    fn warn(&mut self, name: &'static str, detail: impl Into<String>, advice: impl Into<String>) {
        self.add(name, State::Warning, detail.into(), Some(advice.into()), failure::OK);
    }

    fn fail(
        &mut self,
        name: &'static str,
        detail: impl Into<String>,
        advice: impl Into<String>,
        code: u8,
    ) {
        let advice = Some(advice.into()).filter(|advice| !advice.is_empty());
        self.add(name, State::Failed, detail.into(), advice, code);
    }

    fn skip(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, State::Skipped, detail.into(), None, failure::OK);
    }

    fn add(
        &mut self,
        name: &'static str,
        state: State,
        detail: String,
        advice: Option<String>,
        code: u8,
    ) {
        self.checks.push(Check { name, state, detail, advice, code });
    }

    /// The code of the first failure.
    fn exit_code(&self) -> u8 {
        let failed = self.checks.iter().find(|check| check.state == State::Failed);
        failed.map_or(failure::OK, |check| check.code)
    }

    fn lines(&self) -> String {
        let line = |check: &Check| {
            let Check { name, state, detail, advice, .. } = check;
            let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
            printable(&format!("{:<8} {name}: {detail}{advice}", state.as_str())) + "\n"
        };
        self.checks.iter().map(line).collect()
    }
}

/// `dayfly doctor`.
pub(crate) async fn run(args: &DoctorArgs, context: Context<'_>) -> Result<u8, Failure> {
    let mut report = Report::default();
    here::configuration(&mut report, context);
    let client = broker::address(&mut report, context);
    let reached = match &client {
        Some(client) => broker::look(&mut report, client, context.ambient).await,
        None => Reached::No,
    };
    let client = client.as_ref().filter(|_| reached == Reached::Yes);
    who::look(&mut report, args, context, client, Moment::now()).await;
    here::look(&mut report, context.ambient);
    match args.output {
        Format::Json => context.terminal.data(&(serde_json::to_string_pretty(&report)? + "\n"))?,
        Format::Table => context.terminal.data(&report.lines())?,
    }
    Ok(report.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_gives_the_code_and_each_check_has_one_line() {
        let mut report = Report::default();
        report.ok("a", "good");
        assert_eq!(report.exit_code(), failure::OK);
        report.warn("b", "odd", "mend it");
        report.fail("c", "bad\nand forged", "", failure::UNAVAILABLE);
        report.fail("d", "worse", "despair", failure::UNAUTHENTICATED);
        report.skip("e", "no use");
        assert_eq!(report.exit_code(), failure::UNAVAILABLE);
        assert_eq!(
            report.lines(),
            "ok       a: good\nwarning  b: odd; mend it\nfailed   c: bad\u{fffd}and forged\n\
             failed   d: worse; despair\nskipped  e: no use\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"][2]["state"], "failed");
        assert!(
            json["checks"][2].get("advice").is_none() && json["checks"][2].get("code").is_none()
        );
    }
}

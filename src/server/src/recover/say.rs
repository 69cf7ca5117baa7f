//! What `recover` tells: for a person, and for a program.
//!
//! Invariant: every difference is told with what will be done about it, before it is done.

use std::{
    error::Error,
    io::{Result, Write as Output},
};

use dayfly_lease::Survey;
use serde_json::{Value, json};

use super::{Picture, Surveys};

/// The most names of one kind that a person is shown; a program gets all.
const SHOWN_MAX: usize = 20;

/// How it ended.
pub(super) struct End<'a> {
    pub(super) blocked: &'a [String],
    pub(super) go: bool,
    pub(super) failed: &'a [String],
    pub(super) after: &'a Surveys,
    pub(super) resumed: bool,
}

pub(super) fn picture(picture: &Picture, without: &[String], out: &mut dyn Output) -> Result<()> {
    if let Some(suspended) = &picture.suspended {
        writeln!(out, "Minting is suspended since {}: {}.", suspended.since, suspended.reason)?;
    }
    for (name, survey) in &picture.surveys {
        match survey {
            Ok(survey) => backend(name, survey, out)?,
            Err(error) if without.contains(name) => {
                writeln!(out, "\n{name}: left out, because it cannot be asked: {error}")?;
            }
            Err(error) => writeln!(
                out,
                "\n{name}: it cannot be asked: {error}\n  Nothing can be resumed while nobody \
                 knows what it has. When it is gone for good: --without {name}"
            )?,
        }
    }
    for group in &picture.stranded {
        writeln!(
            out,
            "\n{}: not in the configuration, and the store has {} lease(s) of it that are {}. \
             Nobody can end them until it is configured again.",
            group.backend, group.count, group.state
        )?;
    }
    writeln!(out)
}

fn backend(name: &str, survey: &Survey, out: &mut dyn Output) -> Result<()> {
    writeln!(out, "\n{name}: {} credential(s) under our prefix", survey.listed)?;
    writeln!(out, "  {} as their rows say: kept", kept(survey))?;
    let longer = survey.longer.iter().map(|(id, until)| format!("{id} until {until}"));
    kind(out, "that live longer than their rows know: the rows' expiry is moved to", longer)?;
    let names = |handles: &[dayfly_backend_sdk::Handle]| {
        handles.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter()
    };
    kind(out, "that no row covers: ended", names(&survey.unknown))?;
    kind(out, "whose rows say that they are dead: ended", names(&survey.dead))?;
    let missing = survey.missing.iter().map(ToString::to_string);
    kind(out, "that are alive by their rows and not there: their rows are condemned", missing)?;
    kind(out, "that two people gave up, still there: left to the sweep", names(&survey.abandoned))
}

fn kind(
    out: &mut dyn Output,
    what: &str,
    which: impl ExactSizeIterator<Item = String>,
) -> Result<()> {
    let count = which.len();
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "  {count} {what}")?;
    for one in which.take(SHOWN_MAX) {
        writeln!(out, "      {one}")?;
    }
    if count > SHOWN_MAX {
        writeln!(out, "      and {} more", count - SHOWN_MAX)?;
    }
    Ok(())
}

/// Credentials that are there and stay as they are.
fn kept(survey: &Survey) -> u64 {
    let others =
        [survey.longer.len(), survey.unknown.len(), survey.dead.len(), survey.abandoned.len()];
    survey.listed.saturating_sub(others.iter().sum::<usize>() as u64)
}

pub(super) fn end(end: &End<'_>, out: &mut dyn Output) -> Result<()> {
    if end.resumed {
        let left_out = left_out(end.after);
        if !left_out.is_empty() {
            writeln!(out, "Left out: {}.", left_out.join(", "))?;
        }
        let what = if left_out.is_empty() { "Nothing" } else { "Nothing else" };
        return writeln!(out, "{what} differs any more. Minting goes on.");
    }
    for name in end.blocked {
        writeln!(out, "{name} cannot be asked, and --without {name} was not given.")?;
    }
    for failure in end.failed {
        writeln!(out, "{failure}.")?;
    }
    if end.go {
        writeln!(out, "Minting stays suspended. Look at what is named above, then run this again.")
    } else {
        writeln!(out, "Nothing was changed. Minting stays suspended until this is run again.")
    }
}

fn left_out(surveys: &Surveys) -> Vec<&str> {
    let failed = surveys.iter().filter(|(_, survey)| survey.is_err());
    failed.map(|(name, _)| name.as_str()).collect()
}

pub(super) fn json(picture: &Picture, end: &End<'_>) -> Value {
    let stranded = picture.stranded.iter().map(
        |group| json!({ "backend": group.backend, "state": group.state, "leases": group.count }),
    );
    json!({
        "suspended": picture.suspended,
        "backends": picture.surveys.iter().map(|(name, s)| one(name, s)).collect::<Vec<_>>(),
        "not_configured": stranded.collect::<Vec<_>>(),
        "cannot_be_asked": end.blocked,
        "failed": end.failed,
        "left_out": if end.resumed { left_out(end.after) } else { Vec::new() },
        "resumed": end.resumed,
    })
}

fn one(name: &str, survey: &std::result::Result<Survey, String>) -> Value {
    let survey = match survey {
        Ok(survey) => survey,
        Err(error) => return json!({ "backend": name, "error": error }),
    };
    let names = |handles: &[dayfly_backend_sdk::Handle]| {
        handles.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let longer = survey.longer.iter();
    json!({
        "backend": name,
        "listed": survey.listed,
        "turn": survey.turn,
        "kept": kept(survey),
        "longer": longer.map(|(id, at)| json!({ "lease": id, "expires_at": at })).collect::<Vec<_>>(),
        "unknown": names(&survey.unknown),
        "dead": names(&survey.dead),
        "missing": survey.missing,
        "abandoned": names(&survey.abandoned),
    })
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

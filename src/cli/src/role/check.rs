//! `dayfly role check`: what the broker would decide.
//!
//! Invariant: it shows the broker's answer; nothing comes of the question.

use dayfly_api::{CheckRole, Claim, RoleCheck, RoleDecision};

use crate::{
    args::{Context, RoleCheckArgs},
    failure::{self, Failure},
    output::{Column, Table},
    role::short,
};

const COLUMNS: &[Column] = &[Column::cut("WHAT", 12), Column::cut("ANSWER", 16)];
/// The rule that decides when no other does.
const NO_RULE: &str = "default-deny";

/// `dayfly role check`.
pub(crate) async fn run(args: &RoleCheckArgs, context: Context<'_>) -> Result<u8, Failure> {
    let identity = &args.read.identity;
    let (client, token) = context.signed_in(identity).await?;
    // A task's token has its own proof. Another one is shown as `exec` would show it.
    let is_identity = !token.is_of_a_task();
    let token = if is_identity && !args.no_proof {
        token.with_proof_of(&context.passing_key(identity)?)
    } else {
        token
    };
    let on_behalf_of = if is_identity { args.on_behalf.token(context.ambient)? } else { None };
    let question = CheckRole {
        ttl_seconds: args.ttl.map(|ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
        purpose: args.purpose.clone(),
        on_behalf_of,
        explain: args.explain,
        ..CheckRole::default()
    };
    let check = client.check_role(&token, &args.role, &question).await?;
    context.terminal.show(args.read.output, &check, table)?;
    for hindrance in &check.hindered_by {
        context.terminal.warn(&hindered(hindrance));
    }
    if check.allowed {
        return Ok(failure::OK);
    }
    if check.about.is_none() && check.denied_by.as_deref() == Some(NO_RULE) {
        context.terminal.note("a role that is not there would get the same answer");
    }
    Ok(failure::DENIED)
}

/// What would stop a mint that is allowed, for people.
pub(crate) fn hindered(name: &str) -> String {
    match name {
        "minting_suspended" => {
            "it would not be minted now: minting is suspended until `dayfly-server recover`"
        }
        "task_ending" => "it would not be minted now: the task's time is nearly up",
        "backend_down" => "it would not be minted now: its backend does not answer",
        "prefix_of_another" => {
            "it would not be minted now: its backend belongs to another installation"
        }
        // A newer broker knows more.
        other => return format!("it would not be minted now: {other}"),
    }
    .to_owned()
}

/// How long it would live, and what else is known of the role, on one line.
pub(crate) fn lifetime(check: &RoleCheck) -> String {
    let mut text = check.ttl_seconds.map(short).unwrap_or_default();
    if let Some(role) = &check.about {
        let renewable = check.renewable.unwrap_or(false);
        let most = if renewable { "renewable to" } else { "at most" };
        text = format!("{text}, {most} {}", short(role.ttl_max_seconds));
    }
    text
}

/// Why it is denied: the rule, and its words.
pub(crate) fn denial(check: &RoleCheck) -> String {
    let rule = check.denied_by.as_deref().unwrap_or(NO_RULE);
    let detail = check.detail.as_deref().unwrap_or("no reason is given");
    format!("denied by rule `{rule}`: {}", detail.trim_end_matches('.'))
}

fn table(check: &RoleCheck) -> Table {
    let mut table = Table::new(COLUMNS);
    table.row(["role", &check.role]);
    if check.allowed {
        table.row(["allowed", "yes"]);
        table.row(["lifetime", &lifetime(check)]);
    } else {
        table.row(["allowed", "no"]);
        table.row(["why", &denial(check)]);
    }
    if let Some(role) = &check.about {
        table.row(["backend", &format!("{} ({})", role.backend, role.kind)]);
        table.row(["owner", &role.owner]);
        let labels = role.labels.iter().map(|(name, value)| format!("{name}={value}"));
        some(&mut table, "labels", &labels.collect::<Vec<_>>().join(" "));
    }
    some(&mut table, "ended by", &check.belts.join(", "));
    if let Some(variables) = &check.variables {
        some(&mut table, "variables", &names(variables.keys()));
    }
    for decision in &check.decisions {
        decided(&mut table, decision);
    }
    if let Some(caller) = &check.caller {
        table.row(["principal", &format!("{} ({})", caller.principal, caller.kind)]);
        for (name, value) in &caller.claims {
            table.row([&format!("claim {name}"), &shown(value)]);
        }
        table.row(["policy", &caller.policy]);
    }
    table
}

fn decided(table: &mut Table, decision: &RoleDecision) {
    let RoleDecision { action, allowed, rules, denied, context } = decision;
    let verdict = if *allowed { "permitted" } else { "denied" };
    let whom = denied.as_ref().map(|party| format!(" ({party})")).unwrap_or_default();
    if rules.is_empty() {
        table.row([action, &format!("{verdict}{whom}")]);
    }
    for rule in rules {
        let reason = rule.reason.as_deref().map(|reason| format!(": {reason}"));
        let reason = reason.unwrap_or_default();
        table.row([action, &format!("{verdict}{whom} by rule `{}`{reason}", rule.id)]);
    }
    for (name, value) in context {
        table.row([&format!("{action} {name}"), value]);
    }
}

fn some(table: &mut Table, name: &str, value: &str) {
    if !value.is_empty() {
        table.row([name, value]);
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn shown(claim: &Claim) -> String {
    match claim {
        Claim::List(entries) => entries.join(", "),
        Claim::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str) -> RoleCheck {
        serde_json::from_str(answer).unwrap()
    }

    #[test]
    fn a_denial_is_told_with_its_rule_and_a_grant_with_its_lifetime() {
        let denied = check(
            r#"{"role":"r","allowed":false,"denied_by":"freeze","detail":"not on a Friday.",
                "decisions":[{"action":"mint","allowed":false,
                    "rules":[{"id":"freeze","reason":"not on a Friday"}]}]}"#,
        );
        let text = table(&denied).fit(None);
        assert!(text.contains("denied by rule `freeze`: not on a Friday\n"), "{text}");
        assert!(!text.contains("lifetime"), "{text}");
        let allowed = check(
            r#"{"role":"r","allowed":true,"ttl_seconds":300,"renewable":true,
                "about":{"name":"r","backend":"pg","kind":"postgres","owner":"us","labels":{},
                    "ttl_seconds":300,"ttl_max_seconds":3600},
                "variables":{"PGHOST":"host","PGUSER":"username"},
                "decisions":[{"action":"open_task","allowed":true},
                    {"action":"mint","allowed":true,"rules":[{"id":"mint-own"}],
                     "context":{"purpose":"x"}}],
                "caller":{"principal":"ci|job","kind":"workload","policy":"ab",
                    "claims":{"sub":"job","groups":["a","b"]}}}"#,
        );
        let text = table(&allowed).fit(None);
        for line in [
            "5m, renewable to 1h",
            "pg (postgres)",
            "PGHOST PGUSER",
            "permitted by rule `mint-own`",
            "mint purpose",
            "claim groups  a, b",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn what_a_newer_broker_names_is_told_as_it_is() {
        assert_eq!(hindered("moon_phase"), "it would not be minted now: moon_phase");
        assert!(hindered("backend_down").ends_with("its backend does not answer"));
    }
}

//! `dayfly exec --dry-run`: what would be granted, and what the command would find.
//!
//! Invariant: the broker is asked what it would decide and nothing else, nothing is made or
//! started, and no value is shown: there is none.

use std::{collections::BTreeMap, io};

use dayfly_api::{CheckRole, RoleCheck};

use crate::{
    args::{Context, ExecArgs},
    client::{self, Client},
    exec::{
        Error, FAILED, advice, child,
        deliver::{Foreseen, Plan},
        endpoint::Planned,
        environment::inherit::TASK,
        explain, masking, nested, request,
    },
    failure::{self, Failure},
    identity::{self, Token},
    output::printable,
    role::{check, short},
};

pub(super) async fn run(args: &ExecArgs, context: Context<'_>) -> Result<u8, Error> {
    let plan = Plan::new(args, context.ambient)?;
    let program = child::resolve(&args.command, context.ambient)?;
    masking(args, context)?;
    let planned = Planned::of(args, &plan).await?;
    let client = context.client()?;
    let request = request(args, &plan, planned.as_ref());
    let token = token(args, context, &client).await?;
    let question = CheckRole {
        purpose: Some(request.purpose.clone()),
        task_ttl_seconds: Some(request.ttl_seconds),
        on_behalf_of: args.on_behalf.token(context.ambient)?,
        ..CheckRole::default()
    };
    let seconds = u64::try_from(request.ttl_seconds).unwrap_or(0);
    let mut lines = vec![
        format!("command    {}", program.display()),
        format!("task       {} at most, for `{}`", short(seconds), request.purpose),
    ];
    let (mut known, mut starts) = (BTreeMap::new(), true);
    for role in &request.roles {
        match asked(&client, &token, role, &question).await? {
            Ok(check) => {
                lines.push(format!("role       {}", granted(&check)));
                known.insert(role.clone(), check.variables);
            }
            Err(refusal) => {
                starts = false;
                context.terminal.error(&refusal);
            }
        }
    }
    if starts {
        let more = planned.as_ref().map(Planned::variables).unwrap_or_default();
        let more = more.into_iter().chain([(TASK.to_owned(), String::new())]).collect();
        let inheritance = context.inheritance(&args.identity, &args.process.environment);
        let file_dir = args.deliver.file_dir.as_deref();
        let foreseen = Foreseen::new(&plan, file_dir, inheritance, &known, more)?;
        lines.extend(told(&foreseen));
    }
    let text: String = lines.iter().map(|line| printable(line) + "\n").collect();
    context.terminal.data(&text).map_err(|failure| {
        if let Failure::Output(source) = failure {
            Error::Output(source)
        } else {
            Error::Output(io::Error::other(failure.to_line()))
        }
    })?;
    let end = if starts { "the command would start" } else { "the command would not start" };
    context.terminal.note(&format!("{end}; nothing was minted, and nothing was started"));
    Ok(if starts { failure::OK } else { FAILED })
}

async fn token(args: &ExecArgs, context: Context<'_>, client: &Client) -> Result<Token, Error> {
    let source =
        context.workload(&args.identity, client).map_err(|error| nested(error, context.ambient))?;
    let token = source.token(&context.audience(&args.identity, client)).await?;
    if args.no_proof {
        return Ok(token);
    }
    Ok(token.with_proof_of(&context.passing_key(&args.identity)?))
}

/// What the broker would decide about one role, or why the command would not start.
async fn asked(
    client: &Client,
    token: &Token,
    role: &str,
    question: &CheckRole,
) -> Result<Result<RoleCheck, String>, Error> {
    match client.check_role(token, role, question).await {
        Ok(check) if !check.allowed => {
            let denial = check::denial(&check);
            Ok(Err(format!("role `{role}` would be {denial}; {}", advice(role))))
        }
        Ok(check) => match check.hindered_by.first() {
            Some(hindrance) => Ok(Err(format!("role `{role}`: {}", check::hindered(hindrance)))),
            None => Ok(Ok(check)),
        },
        Err(client::Error::Refused { problem, .. }) if problem.code == "not_found" => {
            Ok(Err(format!("role `{role}`: there is no such role")))
        }
        Err(error) => Err(explain(identity::Error::from(error).into(), &[role.to_owned()])),
    }
}

fn granted(check: &RoleCheck) -> String {
    let place = check.about.as_ref().map(|role| format!(", {} ({})", role.backend, role.kind));
    format!("{}: {}{}", check.role, check::lifetime(check), place.unwrap_or_default())
}

fn told(foreseen: &Foreseen) -> Vec<String> {
    let Foreseen { set, overridden, removed, preserved, withheld, unknown, files } = foreseen;
    let unknown = unknown.iter().map(|role| format!("the role's own variables of `{role}`"));
    let set = set.iter().cloned().chain(unknown).collect::<Vec<_>>();
    let named = [
        ("sets", set.join(" ")),
        ("overrides", overridden.join(" ")),
        ("removes", removed.join(" ")),
        ("preserves", preserved.join(" ")),
        ("withholds", withheld.join(" ")),
    ];
    let named = named.into_iter().filter(|(_, names)| !names.is_empty());
    let named = named.map(|(what, names)| format!("{what:<10} {names}"));
    named.chain(files.iter().map(|file| format!("{:<10} {file}", "delivers"))).collect()
}

//! `dayfly`: runs a command with credentials that end with it, and lets people look at leases
//! and revoke them.
//!
//! Invariant: this file alone reads the process's environment and turns results into exit
//! codes, and no secret is ever put into an argument or a message.

mod agent;
mod ambient;
mod args;
mod backend;
mod ci;
mod client;
mod credential;
mod exec;
mod failure;
mod identity;
mod lease;
mod mask;
mod output;
mod proof;
mod role;
mod standing;
mod task;
mod whoami;

use std::{env, process::ExitCode};

use clap::Parser as _;

use crate::{
    ambient::Ambient,
    args::{
        BackendCommand, Cli, Command, Context, LeaseCommand, RoleCommand, StandingCommand,
        TaskCommand,
    },
    failure::Failure,
    output::Terminal,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(fault) => return usage(&fault),
    };
    let terminal = Terminal::standard(cli.quiet);
    let ambient = Ambient::new(env::vars_os());
    ExitCode::from(run(&cli, &ambient, &terminal))
}

/// Help goes to stdout and is a success. A mistake is 2, except for `exec`: what fails before
/// the command starts is 125 there, so that it is not taken for the command's own answer.
fn usage(fault: &clap::Error) -> ExitCode {
    // Nothing is left to tell anyone when stderr itself is gone.
    let _ = fault.print();
    if !fault.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let commands =
        ["agent", "backend", "credential", "exec", "lease", "role", "standing", "task", "whoami"];
    let mut words = env::args_os().skip(1);
    let exec = words
        .find(|word| commands.iter().any(|name| word == name))
        .is_some_and(|word| word == "exec");
    ExitCode::from(if exec { exec::FAILED } else { failure::USAGE })
}

fn run(cli: &Cli, ambient: &Ambient, terminal: &Terminal) -> u8 {
    if let Command::ExecChild(child) = &cli.command {
        return exec::become_child(child, terminal);
    }
    let is_exec = matches!(cli.command, Command::Exec(_));
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        terminal.error("the TLS provider was installed twice");
        return failure::FAILED;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&format!("cannot start: {error}"));
            return if is_exec { exec::FAILED } else { failure::FAILED };
        }
    };
    let context = Context { broker: &cli.broker, ambient, terminal };
    let result = runtime.block_on(dispatch(&cli.command, context));
    // A name lookup that hangs in its own thread must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                terminal.error(&failure.to_line());
            }
            failure.exit_code()
        }
    }
}

async fn dispatch(command: &Command, context: Context<'_>) -> Result<u8, Failure> {
    match command {
        Command::Agent(agent) => agent::run(agent, context).await,
        Command::Backend { command: BackendCommand::Rotate(rotate) } => {
            backend::rotate(rotate, context).await
        }
        Command::Credential(credential) => credential::give(credential, context).await,
        Command::Exec(exec) => Ok(exec::run(exec, context).await?),
        // It needs no runtime and was dealt with before there was one.
        Command::ExecChild(_) => Ok(exec::FAILED),
        Command::Lease { command: LeaseCommand::Abandon(abandon) } => {
            lease::abandon(abandon, context).await
        }
        Command::Lease { command: LeaseCommand::List(list) } => lease::list(list, context).await,
        Command::Lease { command: LeaseCommand::Revoke(revoke) } => {
            lease::revoke(revoke, context).await
        }
        Command::Lease { command: LeaseCommand::Show(show) } => lease::show(show, context).await,
        Command::Role { command: RoleCommand::List(list) } => role::list(list, context).await,
        Command::Standing(standing) => match &standing.command {
            Some(StandingCommand::Release(release)) => standing::release(release, context).await,
            None => standing::show(&standing.read, context).await,
        },
        Command::Task { command: TaskCommand::Complete(complete) } => {
            task::complete(complete, context).await
        }
        Command::Task { command: TaskCommand::Open(open) } => task::open(open, context).await,
        Command::Task { command: TaskCommand::Show(show) } => task::show(show, context).await,
        Command::Whoami(bearer) => whoami::show(bearer, context).await,
    }
}

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
mod completion;
mod config;
mod credential;
mod doctor;
mod exec;
mod failure;
mod identity;
mod lease;
mod login;
mod man;
mod mask;
mod output;
mod private;
mod proof;
mod role;
mod standing;
mod task;
mod version;
mod whoami;

use std::{env, ffi::OsString, pin::pin, process::ExitCode};

use clap::Parser as _;

use crate::{
    ambient::Ambient,
    args::{
        BackendCommand, Cli, Command, Context, ExecChildArgs, LeaseCommand, RoleCommand,
        StandingCommand, TaskCommand, profile,
    },
    config::{Config, Here},
    failure::Failure,
    output::{Terminal, When},
};

fn main() -> ExitCode {
    let ambient = Ambient::new(env::vars_os());
    let words: Vec<OsString> = env::args_os().collect();
    if words.get(1).is_some_and(|word| word == exec::CHILD) {
        return ExitCode::from(become_child(&words));
    }
    let words = profile::with_named(words, &ambient);
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(fault) => {
            let terminal = Terminal::standard(false).dressed(When::among(&words), &ambient);
            let code = usage(&fault, &terminal);
            terminal.finish();
            return ExitCode::from(code);
        }
    };
    let terminal = Terminal::standard(cli.quiet).dressed(cli.color, &ambient);
    let code = start(cli, &words, ambient, &terminal);
    terminal.finish();
    ExitCode::from(code)
}

/// What `exec` starts in its own stead.
fn become_child(words: &[OsString]) -> u8 {
    let terminal = Terminal::standard(false);
    let code = match ExecChildArgs::try_parse_from(words.iter().skip(1)) {
        Ok(args) => exec::become_child(&args, &terminal),
        Err(fault) => {
            terminal.usage(&fault);
            exec::FAILED
        }
    };
    terminal.finish();
    code
}

/// Help goes to stdout and is a success. A mistake is 2, except for `exec`: what fails before
/// the command starts is 125 there, so that it is not taken for the command's own answer.
fn usage(fault: &clap::Error, terminal: &Terminal) -> u8 {
    terminal.usage(fault);
    if !fault.use_stderr() {
        return failure::OK;
    }
    let commands = [
        "agent",
        "backend",
        "completion",
        "config",
        "credential",
        "doctor",
        "exec",
        "lease",
        "login",
        "logout",
        "man",
        "role",
        "standing",
        "task",
        "version",
        "whoami",
    ];
    let mut words = env::args_os().skip(1);
    let exec = words
        .find(|word| commands.iter().any(|name| word == name))
        .is_some_and(|word| word == "exec");
    if exec { exec::FAILED } else { failure::USAGE }
}

/// Reads the configuration and runs the command with it.
fn start(cli: Cli, words: &[OsString], ambient: Ambient, terminal: &Terminal) -> u8 {
    let is_exec = matches!(cli.command, Command::Exec(_));
    if cli.command.is_alone() {
        let config = Config::default();
        return run(
            &cli.command,
            Context { broker: &cli.broker, ambient: &ambient, config: &config, terminal },
        );
    }
    match configure(cli, words, ambient, terminal) {
        Ok((cli, ambient, config)) => run(
            &cli.command,
            Context { broker: &cli.broker, ambient: &ambient, config: &config, terminal },
        ),
        Err(Refusal::Config(error)) => {
            terminal.error(&Failure::from(error).to_line());
            if is_exec { exec::FAILED } else { failure::USAGE }
        }
        Err(Refusal::Usage(fault)) => usage(&fault, terminal),
    }
}

/// Why the command is not run.
enum Refusal {
    Config(config::Error),
    /// Its flags and those of its profile can't be had together.
    Usage(clap::Error),
}

impl From<config::Error> for Refusal {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

/// Adds what configuration files say, and the profile that is asked for.
fn configure(
    cli: Cli,
    words: &[OsString],
    ambient: Ambient,
    terminal: &Terminal,
) -> Result<(Cli, Ambient, Config), Refusal> {
    if matches!(cli.command, Command::Doctor(_)) {
        // It tells what others are refused for, and goes on with what is left.
        let (config, settings) = Config::load_leniently(&cli.broker, &ambient, &Here::of_process());
        return Ok((cli, ambient.with_settings(settings), config));
    }
    let config = Config::load(&ambient, &Here::of_process())?;
    if matches!(cli.command, Command::Config { .. }) {
        // It shows what others are refused for.
        return Ok((cli, ambient, config));
    }
    // What a helper says beside its answer some programs take for a part of it.
    let is_helper = matches!(cli.command, Command::Credential(_));
    if let Some(warning) = config.warning().filter(|_| !is_helper) {
        terminal.warn(&warning);
    }
    let settings = config.settings(&cli.broker, &ambient)?;
    let ambient = ambient.with_settings(settings);
    let named = if let Command::Exec(exec) = &cli.command { exec.profile.clone() } else { None };
    let Some(name) = named else { return Ok((cli, ambient, config)) };
    let profile = config.profile(&name)?;
    terminal.note(&format!("profile `{name}` of {}", profile.at));
    let cli = profile::applied(words, profile).map_err(|fault| {
        let faults = profile::faults(profile);
        if faults.is_empty() {
            Refusal::Usage(fault)
        } else {
            Refusal::Config(config::Error::Faults(faults))
        }
    })?;
    Ok((cli, ambient, config))
}

fn run(command: &Command, context: Context<'_>) -> u8 {
    let is_exec = matches!(command, Command::Exec(_));
    let terminal = context.terminal;
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
    let work = pin!(dispatch(command, context));
    let result = if command.is_question() {
        runtime.block_on(terminal.waiting("waiting for the broker", work))
    } else {
        runtime.block_on(work)
    };
    // A name lookup that hangs in its own thread must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                terminal.failure(&failure);
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
        Command::Completion(args) => completion::write(args, context.terminal),
        Command::Config { command } => config::command::run(command, context),
        Command::Credential(credential) => credential::give(credential, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Exec(exec) => Ok(exec::run(exec, context).await?),
        Command::Lease { command: LeaseCommand::Abandon(abandon) } => {
            lease::abandon(abandon, context).await
        }
        Command::Lease { command: LeaseCommand::List(list) } => lease::list(list, context).await,
        Command::Lease { command: LeaseCommand::Renew(renew) } => {
            lease::renew(renew, context).await
        }
        Command::Lease { command: LeaseCommand::Revoke(revoke) } => {
            lease::revoke(revoke, context).await
        }
        Command::Lease { command: LeaseCommand::Show(show) } => lease::show(show, context).await,
        Command::Login(args) => login::run(args, context).await,
        Command::Logout => login::end(context).await,
        Command::Man(args) => man::write(args, context.terminal),
        Command::Role { command: RoleCommand::Check(args) } => {
            role::check::run(args, context).await
        }
        Command::Role { command: RoleCommand::List(list) } => role::list(list, context).await,
        Command::Standing(standing) => match &standing.command {
            Some(StandingCommand::Release(release)) => standing::release(release, context).await,
            None => standing::show(&standing.read, context).await,
        },
        Command::Task { command: TaskCommand::Complete(complete) } => {
            task::complete(complete, context).await
        }
        Command::Task { command: TaskCommand::List(list) } => task::list(list, context).await,
        Command::Task { command: TaskCommand::Open(open) } => task::open(open, context).await,
        Command::Task { command: TaskCommand::Show(show) } => task::show(show, context).await,
        Command::Version(args) => version::show(args, context).await,
        Command::Whoami(bearer) => whoami::show(bearer, context).await,
    }
}

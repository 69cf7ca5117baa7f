//! The broker's program: the only place that reads the environment, prints and exits.
//!
//! Invariant: a bad configuration exits 2 with every fault and starts nothing.

use std::{
    io::{IsTerminal, Write, stderr, stdin, stdout},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use dayfly_lease::{Clock, Store, SystemClock, SystemEntropy, audit::Head};
use dayfly_server::{
    config::{self, Config, LogFormat},
    demo, fsck, http, identity,
    policy::{
        self,
        lint::{self, Finding, Report, Severity, Uses},
    },
    preflight, recover,
    serve::{self, ServeError},
    telemetry,
};

/// A just-in-time ephemeral secret broker.
#[derive(Parser)]
#[command(name = "dayfly-server", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Does the main job once on an embedded broker, and exits.
    Demo {
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Starts a broker for this machine, with its own issuer and nothing to install.
    Dev {
        /// Where to listen; loopback only.
        #[arg(long, default_value = "127.0.0.1:8420")]
        listen: SocketAddr,
        /// Where its database and tokens go; a temporary directory if not given.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
    /// Starts the broker.
    Serve {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
    },
    /// Says everything that is wrong with a configuration.
    Check {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
        /// Also really mints, uses, revokes and verifies each role, and asks each backend what
        /// should be changed there.
        #[arg(long)]
        canary: bool,
    },
    /// Prints what each backend of a configuration can, as a table.
    Backends {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
    },
    /// Holds rows, audit log and backends against every invariant; changes nothing.
    Fsck {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
        /// Leaves the backends out.
        #[arg(long)]
        no_backends: bool,
    },
    /// Compares the backends with a store that lost commits or was restored, mends what
    /// differs, and lets minting go on.
    Recover {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
        /// Goes on without asking.
        #[arg(long)]
        yes: bool,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
        /// Leaves a backend out that does not answer. May be given often.
        #[arg(long = "without", value_name = "BACKEND")]
        without: Vec<String>,
    },
    /// Works with policies.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Works with the audit log.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Prints the OpenAPI document.
    Openapi,
    /// Prints what is known of each platform's tokens, and their traps, as tables.
    Presets,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Looks for rules that are valid and say something else than was meant.
    Lint(LintArgs),
    /// Runs the cases that are kept beside the policies.
    Test {
        /// The directory of the policies.
        directory: PathBuf,
    },
}

#[derive(Args)]
struct LintArgs {
    /// The directory of the policies; the configuration's if not given.
    #[arg(required_unless_present = "config")]
    directory: Option<PathBuf>,
    /// The configuration whose issuers and roles the rules are held against.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Pages of `GET /api/v1/audit`, or records by themselves: rules that none of them names are
    /// found. May be given often.
    #[arg(long, value_name = "AUDIT")]
    used: Vec<PathBuf>,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// What is an error besides errors.
    #[arg(long, value_enum)]
    deny: Option<Deny>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

#[derive(Clone, Copy, ValueEnum)]
enum Deny {
    /// Warnings.
    Warnings,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Verifies every chain of the audit log.
    Verify {
        /// The configuration: a TOML file, or a directory of them.
        #[arg(long)]
        config: PathBuf,
        /// A head that was kept elsewhere, as `CHAIN:SEQ:HASH`. May be given often.
        #[arg(long = "expected-head", value_parser = head)]
        expected: Vec<Head>,
    },
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("no runtime").and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(code) => code,
        Err(error) => {
            let text = format!("dayfly-server: {error:#}\n");
            // If even this cannot be written there is nobody to tell.
            drop(stderr().write_all(text.as_bytes()));
            match error.downcast_ref::<ServeError>() {
                Some(ServeError::Config(_)) => ExitCode::from(2),
                Some(_) | None if error.is::<config::Faults>() => ExitCode::from(2),
                Some(_) | None => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    identity::install_crypto();
    arm_failpoints()?;
    match cli.command {
        Command::Demo { json } => run_demo(json).await,
        Command::Dev { listen, directory } => run_dev(listen, directory).await,
        Command::Serve { config } => run_serve(&config).await,
        Command::Check { config, canary } => check(&config, canary).await,
        Command::Backends { config } => {
            let (config, _) = serve::configure(&config, &environment)?;
            write!(stdout(), "{}", preflight::capabilities(&config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fsck { config, json, no_backends } => run_fsck(&config, json, no_backends).await,
        Command::Recover { config, yes, json, without } => {
            run_recover(&config, yes, json, without).await
        }
        Command::Policy { command } => match command {
            PolicyCommand::Lint(args) => lint_policies(&args),
            PolicyCommand::Test { directory } => test_policies(&directory),
        },
        Command::Audit { command: AuditCommand::Verify { config, expected } } => {
            verify_audit(&config, &expected).await
        }
        Command::Presets => {
            write!(stdout(), "{}", identity::preset_table())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi => {
            let document = serde_json::to_string_pretty(&http::openapi::document())?;
            writeln!(stdout(), "{document}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Only programs that were built for fault tests have failpoints to arm.
#[cfg(feature = "failpoints")]
fn arm_failpoints() -> anyhow::Result<()> {
    let points = environment("DAYFLY_FAILPOINTS").unwrap_or_default();
    dayfly_lease::failpoint::set(&points).map_err(anyhow::Error::msg)
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature with the feature on")]
fn arm_failpoints() -> anyhow::Result<()> {
    Ok(())
}

fn log(json: bool, filter: &str) -> anyhow::Result<()> {
    telemetry::start(json, filter).map_err(anyhow::Error::msg)
}

async fn run_demo(json: bool) -> anyhow::Result<ExitCode> {
    log(false, "error")?;
    if json {
        let outcome = demo::demo(&mut std::io::sink()).await?;
        writeln!(stdout(), "{}", outcome.json())?;
    } else {
        demo::demo(&mut stdout()).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_dev(listen: SocketAddr, directory: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    log(false, &environment("DAYFLY_LOG").unwrap_or_else(|| "warn".to_owned()))?;
    if let Some(directory) = directory {
        std::fs::create_dir_all(&directory).context("the directory cannot be made")?;
        demo::dev(&directory, listen, &mut stdout()).await?;
    } else {
        let directory = tempfile::tempdir()?;
        demo::dev(directory.path(), listen, &mut stdout()).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_serve(path: &Path) -> anyhow::Result<ExitCode> {
    let (config, policies) = serve::configure(path, &environment)?;
    let json = config.telemetry.log_format == LogFormat::Json;
    log(json, &config.telemetry.log_filter)?;
    serve::serve(path, config, policies, &environment).await?;
    Ok(ExitCode::SUCCESS)
}

async fn check(path: &Path, canary: bool) -> anyhow::Result<ExitCode> {
    log(false, "error")?;
    let (config, _) = serve::configure(path, &environment)?;
    let mut out = stdout();
    writeln!(
        out,
        "{}: {} issuer(s), {} backend(s), {} role(s): no fault",
        path.display(),
        config.issuers.len() + config.aws_identities.len(),
        config.backends.len(),
        config.roles.len()
    )?;
    // Of no weight for the exit status: `policy lint` is for that.
    for finding in worth_a_look(&config, path) {
        writeln!(out, "advice: {finding}")?;
    }
    if !canary {
        return Ok(ExitCode::SUCCESS);
    }
    let mut passed = true;
    let store = if config.seal.is_some() { look_into(&config).await? } else { None };
    let backends = preflight::signed_in(&config, store).await?;
    for (role, report) in preflight::canaries(&config, &backends).await? {
        passed &= report.passed();
        let lingers = report.lingers;
        for step in report.steps {
            match step.result {
                Ok(()) => writeln!(out, "{role}: {} ok", step.name)?,
                Err(error) => {
                    // With its causes, which the error's own text leaves out.
                    let error = anyhow::Error::new(error);
                    writeln!(out, "{role}: {} failed: {error:#}", step.name)?;
                }
            }
        }
        if lingers {
            writeln!(out, "{role}: its backend cannot revoke: it lives until its own expiry")?;
        }
    }
    // Of no weight for the exit status: it is for people to weigh.
    for (backend, advice) in preflight::advice(&backends).await {
        match advice {
            Ok(advice) => {
                for text in advice {
                    writeln!(out, "{backend}: advice: {text}")?;
                }
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                writeln!(out, "{backend}: it could not be asked for advice: {error:#}")?;
            }
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The store, for the passwords that Dayfly has given its own accounts. Before the first start
/// there is none.
async fn look_into(config: &Config) -> anyhow::Result<Option<Arc<dyn Store>>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match serve::open_for_reading(&config.store, &clock).await {
        Ok(store) => Ok(Some(store.engine_store())),
        Err(error) => {
            let error = anyhow::Error::new(error);
            writeln!(
                stderr(),
                "signing in as configured, since the store cannot be read: {error:#}"
            )?;
            Ok(None)
        }
    }
}

fn test_policies(directory: &Path) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    let report = match policy::cases::run(directory) {
        Ok(report) => report,
        Err(error) => {
            for fault in error.faults() {
                writeln!(stderr(), "{fault}")?;
            }
            return Err(error.into());
        }
    };
    for failed in report.failed() {
        writeln!(
            out,
            "{}: {}: expected {}, got {}",
            failed.file, failed.name, failed.expected, failed.got
        )?;
    }
    for rule in &report.untested {
        writeln!(out, "rule `{rule}` decides no case")?;
    }
    let failed = report.failed().count();
    writeln!(out, "{} passed, {failed} failed", report.outcomes.len() - failed)?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lint_policies(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let report = match look_at_policies(args) {
        Ok(report) => report,
        Err(error) => {
            writeln!(stderr(), "dayfly-server: {error:#}")?;
            return Ok(ExitCode::from(2));
        }
    };
    match args.output {
        Output::Json => writeln!(stdout(), "{}", report.json())?,
        Output::Text => write!(stdout(), "{}", report.text())?,
    }
    let deny_warnings = matches!(args.deny, Some(Deny::Warnings));
    Ok(if report.passed(deny_warnings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look_at_policies(args: &LintArgs) -> anyhow::Result<Report> {
    let config = match &args.config {
        Some(path) => Some((config::load(path, &environment)?, path)),
        None => None,
    };
    let facts = config.as_ref().map(|(config, path)| preflight::known(config, path));
    let configured = config.as_ref().map(|(config, _)| &config.policies.dir);
    let directory = args.directory.as_ref().or(configured).context("no directory of policies")?;
    let uses = Uses::read(&args.used)?;
    lint::lint(directory, facts.as_ref(), uses.as_ref()).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the policies cannot be loaded\n{}", faults.join("\n"))
    })
}

/// What the lints have to say of a configuration that was just found good, but for notes.
fn worth_a_look(config: &Config, path: &Path) -> Vec<Finding> {
    let facts = preflight::known(config, path);
    let report = lint::lint(&config.policies.dir, Some(&facts), None);
    let mut found = report.map(|report| report.findings).unwrap_or_default();
    found.retain(|finding| finding.code.severity() != Severity::Note);
    found
}

async fn verify_audit(path: &Path, expected: &[Head]) -> anyhow::Result<ExitCode> {
    log(false, "error")?;
    let config: Config = config::load(path, &environment)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let signer = serve::signer(&config, &SystemEntropy::new())?;
    let store = serve::open_for_reading(&config.store, &clock).await?;
    let report = dayfly_store::verify(&store, signer.public_key(), expected).await?;
    let mut out = stdout();
    for fault in &report.faults {
        writeln!(out, "{fault}")?;
    }
    writeln!(
        out,
        "{} chain(s), {} record(s), {} receipt(s): {}",
        report.chains,
        report.records,
        report.receipts,
        if report.holds() { "the audit log holds" } else { "the audit log does not hold" }
    )?;
    for head in &report.heads {
        writeln!(out, "head {}:{}:{}", head.chain, head.seq, HEXLOWER.encode(&head.hash))?;
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_fsck(path: &Path, json: bool, no_backends: bool) -> anyhow::Result<ExitCode> {
    log(false, "error")?;
    let config: Config = config::load(path, &environment)?;
    let options = fsck::Options { json, backends: !no_backends };
    let clean = fsck::fsck(&config, options, &mut stdout()).await?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_recover(
    path: &Path,
    yes: bool,
    json: bool,
    without: Vec<String>,
) -> anyhow::Result<ExitCode> {
    log(false, "error")?;
    let config: Config = config::load(path, &environment)?;
    let known = |name: &String| config.backends.iter().any(|backend| backend.name == *name);
    if let Some(unknown) = without.iter().find(|name| !known(name)) {
        writeln!(stderr(), "dayfly-server: no backend `{unknown}` is configured")?;
        return Ok(ExitCode::from(2));
    }
    if !yes && !stdin().is_terminal() {
        anyhow::bail!("it asks before it changes anything, and stdin is no terminal; give --yes");
    }
    let options = recover::Options { actor: operator(), yes, json, without };
    let resumed = recover::recover(&config, &options, &mut stdout(), &confirm).await?;
    Ok(if resumed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// On stderr, so that what a program reads has no question in it.
fn confirm() -> std::io::Result<bool> {
    let mut err = stderr();
    write!(err, "Go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Who runs this program, as the audit log will name them: the operating system's word, since
/// a variable of the environment can say anything.
fn operator() -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = std::fs::metadata("/proc/self") else { return "cli|unknown".to_owned() };
    let uid = own.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    format!("cli|{}", named.unwrap_or_else(|| format!("uid:{uid}")))
}

fn head(text: &str) -> Result<Head, String> {
    let mut parts = text.split(':');
    let mut parsed = || {
        let chain = parts.next()?.parse().ok()?;
        let seq = parts.next()?.parse().ok()?;
        let hash = HEXLOWER.decode(parts.next()?.as_bytes()).ok()?;
        Some(Head { chain, seq, hash: hash.try_into().ok()? })
    };
    parsed().ok_or_else(|| "expected CHAIN:SEQ:HASH".to_owned())
}

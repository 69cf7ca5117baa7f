//! What this machine is like: its configuration, and where secrets would be kept.
//!
//! Invariant: of variables only names are told.

use rustix::process::{Resource, getrlimit};

use crate::{
    agent::client::AgentClient,
    ambient::Ambient,
    args::Context,
    ci::Ci,
    doctor::Report,
    exec,
    failure::{self, Failure},
};

/// The files, and what would be refused in them.
pub(super) fn configuration(report: &mut Report, context: Context<'_>) {
    const NAME: &str = "configuration";
    let config = context.config;
    for fault in config.faults() {
        let advice = "mend it; `dayfly config show` tells what is in force";
        report.fail(NAME, fault.as_str(), advice, failure::USAGE);
    }
    if let Some(warning) = config.warning() {
        report.warn(NAME, warning, "without that nothing of it is used");
    }
    let paths: Vec<_> = config.paths().map(|path| path.display().to_string()).collect();
    match (paths.is_empty(), config.faults().is_empty()) {
        (true, true) => report.ok(NAME, "there are no files; flags and the environment count"),
        (false, true) => report.ok(NAME, paths.join(", ")),
        (_, false) => {}
    }
}

/// What becomes of secrets here.
pub(super) fn look(report: &mut Report, ambient: &Ambient) {
    let (base, in_memory) = exec::place_of_files(ambient);
    let shown = base.display();
    if in_memory {
        report.ok("files", format!("credentials in files are kept in memory, in {shown}"));
    } else {
        let detail =
            format!("credentials in files would be put into {shown}, and may reach a disk");
        report.warn("files", detail, "set XDG_RUNTIME_DIR to a tmpfs, or mount one at /dev/shm");
    }
    if getrlimit(Resource::Core).current == Some(0) {
        report.ok("core dumps", "off");
    } else {
        let detail = "a command that crashes may leave its credentials in a core dump";
        report.warn("core dumps", detail, "run `ulimit -c 0` before it");
    }
    let is_terminal = rustix::termios::isatty(std::io::stdin());
    report.ok("stdin", if is_terminal { "a terminal" } else { "no terminal" });
    report.ok(
        "CI",
        match Ci::of(ambient) {
            Some(Ci::Azure) => "Azure Pipelines",
            Some(Ci::Buildkite) => "Buildkite",
            Some(Ci::GitHub) => "GitHub Actions",
            Some(Ci::Other) => "a platform that has no ways of its own for us",
            None => "none",
        },
    );
    match AgentClient::find(ambient) {
        Ok(Some(_)) => report.ok("agent", "there is a socket of one"),
        Ok(None) => report.ok("agent", "none; `dayfly credential` opens tasks of its own"),
        Err(error) => {
            let advice = "start `dayfly agent`, or unset DAYFLY_AGENT_SOCKET";
            report.warn("agent", Failure::from(error).to_line(), advice);
        }
    }
}

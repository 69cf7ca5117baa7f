//! How platforms cancel what they run, signal by signal, around the real `dayfly`, a real broker and
//! PostgreSQL. Whether a credential is dead is told by a login with it.

mod first;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, eventually, program};
use tempfile::TempDir;

/// Leaves its credential to the test, and goes on for ever. What is put in front says what it does
/// with signals.
const WORK: &str = "printf %s \"$DATABASE_URL\" >url.new; mv url.new url\n\
                    while :; do sleep 0.1; done\n";

struct Scene {
    postgres: Postgres,
    broker: Broker,
    home: TempDir,
}

/// A process that ends with its test, and with it all of its group.
struct Running(Child);

impl Scene {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
        let home = tempfile::Builder::new().prefix("dfk").tempdir().unwrap();
        Self { postgres, broker, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The words that run what `script` does with a credential.
    fn exec(&self, options: &str, script: &str) -> String {
        fs::write(self.path("work"), script).unwrap();
        fs::write(self.path("token"), self.broker.issuer.token("job")).unwrap();
        drop(fs::remove_file(self.path("url")));
        format!("dayfly exec --token-file token --role reader {options} -- sh work")
    }

    /// Starts `words` at the head of a group of its own, without a terminal, and waits for the
    /// credential.
    async fn start(&self, words: &[&str], environment: &[(&str, &str)]) -> Running {
        // A terminal of who runs the tests would change what is shown here.
        let mut command = Command::new("setsid");
        let own = program("dayfly").parent().unwrap().display().to_string();
        let path = format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(words).env_clear().env("PATH", path).envs(environment.iter().copied());
        command.env("DAYFLY_URL", self.broker.client().url()).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running(command.spawn().unwrap());
        let url =
            eventually("the command has its credential", Duration::from_secs(20), async || {
                fs::read_to_string(self.path("url")).ok()
            })
            .await;
        assert!(self.postgres.lets_in(&url), "a login while the command runs");
        running
    }

    fn lets_in(&self) -> bool {
        self.postgres.lets_in(&fs::read_to_string(self.path("url")).unwrap())
    }

    async fn is_dead(&self, within: Duration) {
        eventually("no login with the credential", within, async || {
            (!self.lets_in()).then_some(())
        })
        .await;
    }

    /// How the newest task ended.
    async fn task(&self) -> String {
        let admin = self.broker.client().with(&self.broker.admin());
        let tasks = admin.get("/api/v1/tasks").await.unwrap().expect(200);
        tasks.text("/data/0/state")
    }
}

impl Running {
    fn id(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    async fn ended(&mut self, within: Duration) -> ExitStatus {
        eventually("it ends", within, async || self.0.try_wait().unwrap()).await
    }
}

/// A group that outlives who has started it.
struct Left(i32);

impl Drop for Left {
    fn drop(&mut self) {
        signal("KILL", -self.0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in descendants(self.id()) {
            signal("KILL", process);
        }
        signal("KILL", self.id());
        // It has usually been waited for.
        drop(self.0.wait());
    }
}

/// Sends a signal to a process, or to a group if `target` is negative. It may be gone.
fn signal(name: &str, target: i32) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, "--", &target.to_string()]).stderr(Stdio::null());
    drop(kill.status());
}

/// The processes that `process` has started, theirs after them.
fn descendants(process: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut pending = vec![process];
    while let Some(parent) = pending.pop() {
        let output =
            Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let children: Vec<i32> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
        found.extend(&children);
        pending.extend(children);
    }
    found
}

/// GitHub's runner signals the step's own process alone: INT, TERM after 7.5 s, KILL after 2.5 s more.
async fn github_cancels(running: &Running) {
    for (name, pause) in [("INT", 7_500), ("TERM", 2_500), ("KILL", 0)] {
        signal(name, running.id());
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

const GITHUB: [(&str, &str); 2] = [("CI", "true"), ("GITHUB_ACTIONS", "true")];

/// The shell of a plain `run:` tells its command nothing and dies of TERM. The command would go on
/// with its credential.
#[tokio::test(flavor = "multi_thread")]
async fn github_cancels_a_step_whose_shell_passes_nothing_on() {
    let scene = Scene::new().await;
    let trap = "trap 'echo told >told; exit 0' TERM\n";
    let line = scene.exec("", &format!("{trap}{WORK}"));
    fs::write(scene.path("step"), format!("{line}\necho not reached\n")).unwrap();
    let mut running = scene.start(&["bash", "-e", "step"], &GITHUB).await;
    github_cancels(&running).await;
    assert!(!running.ended(Duration::from_secs(1)).await.success());
    scene.is_dead(Duration::from_secs(5)).await;
    assert!(scene.path("told").exists(), "the command was asked to stop");
    assert_eq!(scene.task().await, "cancelled");

    // One that does not want to stop has its time, and not more.
    let line = scene.exec("--stop-timeout 2s", &format!("trap '' INT TERM\n{WORK}"));
    fs::write(scene.path("step"), format!("{line}\necho not reached\n")).unwrap();
    let running = scene.start(&["bash", "-e", "step"], &GITHUB).await;
    github_cancels(&running).await;
    scene.is_dead(Duration::from_secs(5)).await;
    assert_eq!(scene.task().await, "cancelled");
}

/// With `run: exec dayfly exec …` there is no shell in between: all is over before KILL comes.
#[tokio::test(flavor = "multi_thread")]
async fn github_cancels_a_step_that_is_the_injector_itself() {
    let scene = Scene::new().await;
    let line = scene.exec("", &format!("trap '' INT TERM\n{WORK}"));
    fs::write(scene.path("step"), format!("exec {line}\n")).unwrap();
    let mut running = scene.start(&["bash", "-e", "step"], &GITHUB).await;
    for (name, pause) in [("INT", 7_500), ("TERM", 2_500)] {
        assert!(scene.lets_in(), "the command has its time");
        signal(name, running.id());
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert!(!scene.lets_in());
    assert!(!running.ended(Duration::from_secs(1)).await.success());
    assert_eq!(scene.task().await, "cancelled");
}

/// GitLab's runner signals the job's group: TERM, and KILL much later.
#[tokio::test(flavor = "multi_thread")]
async fn gitlab_cancels_a_group() {
    let scene = Scene::new().await;
    let environment = [("CI", "true"), ("GITLAB_CI", "true")];
    let line = scene.exec("--stop-timeout 3s", &format!("trap '' TERM\n{WORK}"));
    fs::write(scene.path("job"), format!("{line}\necho not reached\n")).unwrap();
    let running = scene.start(&["bash", "-e", "job"], &environment).await;
    let injector = descendants(running.id())[0];
    signal("TERM", -running.id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.lets_in(), "the command has its time");
    scene.is_dead(Duration::from_secs(8)).await;
    assert_eq!(scene.task().await, "cancelled");
    eventually("the injector ends", Duration::from_secs(5), async || {
        (!PathBuf::from(format!("/proc/{injector}")).exists()).then_some(())
    })
    .await;

    // KILL comes before all is done: the command is in another group, and is told all the same.
    let options = "--stop-timeout 1m --heartbeat 10s --ttl 1h";
    let line = scene.exec(options, &format!("trap 'echo told >>told' TERM\n{WORK}"));
    fs::write(scene.path("job"), format!("{line}\necho not reached\n")).unwrap();
    let running = scene.start(&["bash", "-e", "job"], &environment).await;
    let _command = Left(descendants(running.id())[1]);
    signal("TERM", -running.id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal("KILL", -running.id());
    eventually("the command is told twice", Duration::from_secs(5), async || {
        let told = fs::read_to_string(scene.path("told")).unwrap_or_default();
        (told.lines().count() >= 2).then_some(())
    })
    .await;
    scene.is_dead(Duration::from_mins(1)).await;
    assert_eq!(scene.task().await, "lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_injector_leaves_nothing_that_works_beyond_its_heartbeat() {
    let scene = Scene::new().await;
    let line = scene.exec("--heartbeat 10s --ttl 1h", WORK);
    let words: Vec<&str> = line.split_whitespace().collect();
    let running = scene.start(&words, &[]).await;
    signal("KILL", running.id());
    scene.is_dead(Duration::from_mins(1)).await;
    assert_eq!(scene.task().await, "lost");
}

/// systemd, by its default, signals every process of a unit: the command is told by systemd and by
/// us, and none of that is a second request.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_stops_every_process_of_a_unit() {
    let scene = Scene::new().await;
    let trap = "trap 'sleep 2; exit 6' TERM\n";
    let line = scene.exec("", &format!("{trap}{WORK}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut running = scene.start(&words, &[]).await;
    let mut unit = vec![running.id()];
    unit.extend(descendants(running.id()));
    for process in &unit {
        signal("TERM", *process);
    }
    let status = running.ended(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(6), "the command's own answer, in its own time");
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "cancelled");
}

/// `KillMode=mixed`: the first process alone is told, and what is left when the time is up is killed.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_kills_what_is_left_of_a_unit() {
    let scene = Scene::new().await;
    let options = "--stop-timeout 1m --heartbeat 10s --ttl 1h";
    let line = scene.exec(options, &format!("trap 'echo told >told' TERM\n{WORK}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let running = scene.start(&words, &[]).await;
    let mut unit = vec![running.id()];
    unit.extend(descendants(running.id()));
    signal("TERM", running.id());
    eventually("the command is told", Duration::from_secs(5), async || {
        scene.path("told").exists().then_some(())
    })
    .await;
    assert!(scene.lets_in(), "the command has its time");
    for process in &unit {
        signal("KILL", *process);
    }
    scene.is_dead(Duration::from_mins(1)).await;
    assert_eq!(scene.task().await, "lost");
}

//! People sign in at a certified provider, as a browser and somebody before it do it.
//!
//! Invariant: what the browser does is done by curl, with its cookies and its redirects; the
//! command line is told nothing but the broker's address.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Provider, Store, Visitor, eventually, program};
use serde_json::Value;
use tempfile::TempDir;

const CLIENT: &str = "dayfly-cli";
const RULES: &str = r#"
@id("test/staff")
permit (
    principal is Dayfly::Human in Dayfly::Issuer::"corporate",
    action in [Dayfly::Action::"list_leases", Dayfly::Action::"read_lease"],
    resource
);
"#;

/// Somebody at a machine, with a broker and a provider that they may sign in at.
struct Desk {
    broker: Broker,
    provider: Provider,
    home: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let provider = Provider::start().await;
        let broker = Broker::start(config(&provider, true)).await;
        let home = tempfile::Builder::new().prefix("dfl").tempdir().unwrap();
        let browser = home.path().join("browser");
        fs::write(
            &browser,
            "#!/bin/sh\nprintf %s \"$1\" >\"$HOME/new\"; mv \"$HOME/new\" \"$HOME/url\"\n",
        )
        .unwrap();
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
        Self { broker, provider, home }
    }

    fn dayfly(&self, words: &[&str]) -> Command {
        self.dayfly_at(&self.broker, words)
    }

    fn dayfly_at(&self, broker: &Broker, words: &[&str]) -> Command {
        let mut command = Command::new(program("dayfly"));
        command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("HOME", self.home.path()).env("BROWSER", self.home.path().join("browser"));
        command
            .env("DAYFLY_URL", broker.client().url())
            .env("DAYFLY_CA_FILE", self.provider.ca_file());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn finish(&self, words: &[&str]) -> Finished {
        self.dayfly(words).output().unwrap().into()
    }

    /// The address that the browser was opened with.
    async fn opened(&self) -> String {
        let path = self.home.path().join("url");
        eventually("the browser is opened", Duration::from_secs(20), async || {
            let url = fs::read_to_string(&path).ok()?;
            fs::remove_file(&path).unwrap();
            Some(url)
        })
        .await
    }

    fn browser(&self) -> Visitor {
        Visitor::new(self.provider.ca_file())
    }

    /// What is kept.
    fn kept(&self) -> Vec<PathBuf> {
        let place = self.home.path().join(".local/state/dayfly/login");
        let files = fs::read_dir(place).into_iter().flatten();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect()
    }
}

fn config(provider: &Provider, offers: bool) -> BrokerConfig {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.policies.push_str(RULES);
    write!(
        config.more,
        "[[issuer]]\nname = \"corporate\"\nissuer = \"{}\"\naudience = \"{CLIENT}\"\n\
         kind = \"human\"\nsingle_use = false\nca_file = \"{}\"\n",
        provider.issuer(),
        provider.ca_file().display()
    )
    .unwrap();
    if offers {
        write!(
            config.more,
            "[login]\nissuer = \"corporate\"\nclient_id = \"{CLIENT}\"\n\
             scopes = [\"openid\", \"offline_access\"]\n"
        )
        .unwrap();
    }
    config
}

#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn finished(child: Child) -> Finished {
    child.wait_with_output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_in_with_a_browser_and_out_again() {
    let desk = Desk::new().await;
    let before = desk.finish(&["whoami"]);
    assert_eq!(before.code, Some(5), "{before:?}");
    assert!(before.err.contains("sign in by `dayfly login`"), "{}", before.err);

    let login = desk.dayfly(&["login"]).spawn().unwrap();
    let url = desk.opened().await;
    let browser = desk.browser();
    let page = browser.open(&url);
    // Meanwhile somebody else's answer arrives, and what is no answer at all.
    let (_, callback) = url.split_once("redirect_uri=").unwrap();
    let callback = callback.split('&').next().unwrap().replace("%3A", ":").replace("%2F", "/");
    let other = browser.open(&format!("{callback}?code=stolen&state=guessed"));
    assert!(other.html.contains("no answer to what was asked"), "{}", other.html);
    let nothing = browser.open(&callback.replace("/callback", "/"));
    assert!(nothing.html.contains("nothing here"), "{}", nothing.html);
    let page = browser.sign_in(&page, "ada");
    assert!(page.html.contains("go back to the terminal"), "{}: {}", page.url, page.html);
    let login = finished(login);
    assert_eq!((login.code, login.out.as_str()), (Some(0), ""), "{login:?}");
    assert!(login.err.contains("as corporate|ada (human)"), "{}", login.err);

    let [kept] = &desk.kept()[..] else { panic!("{:?}", desk.kept()) };
    assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);
    let me = desk.finish(&["whoami", "--output", "json"]);
    assert_eq!(me.code, Some(0), "{me:?}");
    let me: Value = serde_json::from_str(&me.out).unwrap();
    assert_eq!((&me["principal"], &me["kind"]), (&"corporate|ada".into(), &"human".into()));
    let leases = desk.finish(&["lease", "list"]);
    assert_eq!(leases.code, Some(0), "{leases:?}");
    // A job is not who once signed in on its machine, nor is a command that has credentials.
    for (name, value) in [("CI", "true"), ("DAYFLY_TASK", "tsk_1")] {
        let job = desk.dayfly(&["whoami"]).env(name, value).output().unwrap();
        assert_eq!(job.status.code(), Some(5), "{name}");
    }

    let out = desk.finish(&["logout"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(!out.err.contains("warning"), "{}", out.err);
    assert_eq!(desk.kept(), Vec::<PathBuf>::new());
    assert_eq!(desk.finish(&["whoami"]).code, Some(5));
    assert_eq!(desk.finish(&["logout"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_renewed_until_it_is_taken_back() {
    let desk = Desk::new().await;
    let login = desk.dayfly(&["login"]).spawn().unwrap();
    let browser = desk.browser();
    browser.sign_in(&browser.open(&desk.opened().await), "ada");
    assert_eq!(finished(login).code, Some(0));
    let path = desk.kept().remove(0);
    let read = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
    let ended = |mut login: Value| {
        login["expires_at"] = 1.into();
        fs::write(&path, login.to_string()).unwrap();
    };
    let first = read();
    ended(first.clone());
    // Several at once, of which one renews it: who shows a refresh token twice loses everything.
    let runs: Vec<_> = (0..4).map(|_| desk.dayfly(&["whoami"]).spawn().unwrap()).collect();
    for run in runs {
        let run = finished(run);
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let second = read();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert!(second["expires_at"].as_i64() >= first["expires_at"].as_i64(), "{second}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // A copy of it is worth nothing once somebody has signed out.
    assert_eq!(desk.finish(&["logout"]).code, Some(0));
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    ended(second);
    let late = desk.finish(&["whoami"]);
    assert_eq!(late.code, Some(5), "{late:?}");
    assert!(late.err.contains("has ended; run `dayfly login`"), "{}", late.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_in_with_a_code_at_another_device() {
    let desk = Desk::new().await;
    for agrees in [true, false] {
        let log = desk.home.path().join("log");
        let mut login = desk.dayfly(&["login", "--device"]);
        let login = login.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let url = eventually("a code is shown", Duration::from_secs(20), async || {
            let text = fs::read_to_string(&log).ok()?;
            Some(text.split_once("or open ")?.1.split_once('\n')?.0.to_owned())
        })
        .await;
        let browser = desk.browser();
        let confirm = browser.submit(&browser.open(&url), &[]);
        if agrees {
            let done = browser.sign_in(&browser.submit(&confirm, &[]), "ada");
            assert!(done.html.contains("Sign-in Success"), "{done:?}");
        } else {
            browser.submit(&confirm, &[("abort", "yes")]);
        }
        let login = finished(login);
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(login.code, Some(if agrees { 0 } else { 4 }), "{said}");
        let expected = if agrees { "as corporate|ada (human)" } else { "refused the login" };
        assert!(said.contains(expected), "{said}");
        assert_eq!(desk.finish(&["whoami"]).code, Some(if agrees { 0 } else { 5 }));
        assert_eq!(desk.finish(&["logout"]).code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_refused_and_kept_from_other_brokers() {
    let desk = Desk::new().await;
    let login = desk.dayfly(&["login"]).spawn().unwrap();
    let browser = desk.browser();
    let page = browser.open(&desk.opened().await);
    browser.open(&format!("{}/abort", page.url));
    let refused = finished(login);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("access_denied"), "{}", refused.err);
    assert_eq!(desk.kept(), Vec::<PathBuf>::new());

    let login = desk.dayfly(&["login"]).spawn().unwrap();
    let browser = desk.browser();
    browser.sign_in(&browser.open(&desk.opened().await), "ada");
    assert_eq!(finished(login).code, Some(0));
    let other = Broker::start(config(&desk.provider, false)).await;
    let nobody: Finished = desk.dayfly_at(&other, &["whoami"]).output().unwrap().into();
    assert_eq!(nobody.code, Some(5), "{nobody:?}");
    let unable: Finished = desk.dayfly_at(&other, &["login"]).output().unwrap().into();
    assert_eq!(unable.code, Some(3), "{unable:?}");
    assert!(unable.err.contains("has no `[login]`"), "{}", unable.err);
}

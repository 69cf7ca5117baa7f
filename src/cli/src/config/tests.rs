use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::args::{Cli, Command, profile::applied};

const BROKER: &str = "https://broker.example.com";
const EVIL: &str = "https://evil.example";

/// A home with a repository in it: `home/repository/src`.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home/repository/src")).unwrap();
        fs::create_dir(root.path().join("home/repository/.git")).unwrap();
        Self { root }
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    fn project(&self, text: &str) -> &Self {
        self.write("home/repository/.dayfly.toml", text)
    }

    fn user(&self, text: &str) -> &Self {
        self.write("home/.config/dayfly/config.toml", text)
    }

    fn system(&self, text: &str) -> &Self {
        self.write("system.toml", text)
    }

    fn here(&self, directory: &str) -> Here {
        Here {
            directory: Some(self.root.path().join(directory)),
            system_file: self.root.path().join("system.toml"),
            trusted: [rustix::process::geteuid().as_raw(), 0],
        }
    }

    fn ambient(&self, more: &[(&str, &str)]) -> Ambient {
        let home = self.root.path().join("home");
        let own = [("HOME", home.to_str().unwrap())];
        let all = own.iter().chain(more);
        Ambient::new(all.map(|(name, value)| ((*name).into(), (*value).into())))
    }

    fn load(&self) -> Result<Config, Error> {
        Config::load(&self.ambient(&[]), &self.here("home/repository/src"))
    }

    /// What `name` is in the end, with these flags and variables.
    fn setting(&self, name: &str, flag: Option<&str>, more: &[(&str, &str)]) -> Option<String> {
        let ambient = self.ambient(more);
        let config = Config::load(&ambient, &self.here("home/repository/src")).unwrap();
        let flags = BrokerArgs { url: flag.map(ToOwned::to_owned), ca_file: None };
        let settings = config.settings(&flags, &ambient).unwrap();
        ambient.with_settings(settings).text(name).map(ToOwned::to_owned)
    }

    fn is_refused(&self, flag: Option<&str>, more: &[(&str, &str)]) -> bool {
        let ambient = self.ambient(more);
        let config = Config::load(&ambient, &self.here("home/repository/src")).unwrap();
        let flags = BrokerArgs { url: flag.map(ToOwned::to_owned), ca_file: None };
        matches!(config.settings(&flags, &ambient), Err(Error::Url { .. }))
    }
}

fn message(text: &str, origin: Origin) -> String {
    let read = File::read(origin, Path::new("f.toml"), text);
    Error::Faults(read.err().unwrap_or_default()).to_string()
}

fn url(url: &str) -> String {
    format!("url = \"{url}\"\n")
}

#[test]
fn who_tells_what_is_wrong_is_not_stopped_by_it() {
    let lenient = |place: &Place| {
        let flags = BrokerArgs { url: None, ca_file: None };
        let here = place.here("home/repository/src");
        Config::load_leniently(&flags, &place.ambient(&[]), &here)
    };
    let place = Place::new();
    place.user(&url(BROKER));
    let (config, settings) = lenient(&place);
    assert!(config.faults().is_empty());
    assert_eq!((config.paths().count(), settings.len()), (1, 1));
    // A broker that only the checkout names stays unnamed.
    place.user("").project(&url(EVIL));
    let (config, settings) = lenient(&place);
    assert!(config.faults().concat().contains("allowed_urls"), "{:?}", config.faults());
    assert!(settings.is_empty(), "{settings:?}");
    place.project("ulr = 1\n");
    let (config, settings) = lenient(&place);
    assert!(config.faults().concat().contains("ulr"), "{:?}", config.faults());
    assert_eq!((config.paths().count(), settings.len()), (0, 0));
}

#[test]
fn the_nearest_file_up_to_the_repositorys_root_is_the_projects() {
    let place = Place::new();
    place.write("home/.dayfly.toml", "[profile.home]\nroles = [\"r\"]\n");
    let found = |directory: &str| {
        let config = Config::load(&place.ambient(&[]), &place.here(directory)).unwrap();
        config.files.first().map(|file| {
            file.path.strip_prefix(place.root.path()).unwrap().to_str().unwrap().to_owned()
        })
    };
    assert_eq!(found("home/repository/src"), None, "beyond the repository");
    place.project("");
    assert_eq!(found("home/repository/src").unwrap(), "home/repository/.dayfly.toml");
    place.write("home/repository/src/.dayfly.toml", "");
    assert_eq!(found("home/repository/src").unwrap(), "home/repository/src/.dayfly.toml");
    fs::create_dir_all(place.root.path().join("home/notes/old")).unwrap();
    assert_eq!(found("home/notes/old").unwrap(), "home/.dayfly.toml");
    place.write(".dayfly.toml", "").write("home/plain/x", "");
    fs::remove_file(place.root.path().join("home/.dayfly.toml")).unwrap();
    assert_eq!(found("home/plain"), None, "beyond the home directory");
}

#[test]
fn a_file_of_another_user_is_not_read_but_by_its_name() {
    let place = Place::new();
    place.project("[profile.p]\nroles = [\"r\"]\n");
    let stranger = Here { trusted: [u32::MAX, u32::MAX], ..place.here("home/repository") };
    let config = Config::load(&place.ambient(&[]), &stranger).unwrap();
    assert!(config.files.is_empty());
    assert!(config.warning().unwrap().contains("DAYFLY_PROJECT_FILE="));
    assert!(config.profile("p").is_err());
    let path = place.root.path().join("home/repository/.dayfly.toml");
    let named = place.ambient(&[("DAYFLY_PROJECT_FILE", path.to_str().unwrap())]);
    let config = Config::load(&named, &stranger).unwrap();
    assert!(config.warning().is_none() && config.profile("p").is_ok());
}

#[test]
fn a_named_project_file_counts_instead_of_the_one_that_is_found() {
    let place = Place::new();
    place.project("[profile.found]\nroles = [\"r\"]\n");
    let load = |path: &str| {
        let ambient = place.ambient(&[("DAYFLY_PROJECT_FILE", path)]);
        Config::load(&ambient, &place.here("home/repository"))
    };
    assert!(load("/dev/null").unwrap().files.is_empty());
    assert!(matches!(load("/no/such/file"), Err(Error::Unreadable { .. })));
    assert!(matches!(load("/"), Err(Error::Unfit { .. })));
}

#[test]
fn what_is_no_file_of_its_own_is_refused() {
    let place = Place::new();
    place.write("elsewhere.toml", "");
    let path = place.root.path().join("home/repository/.dayfly.toml");
    symlink(place.root.path().join("elsewhere.toml"), &path).unwrap();
    assert!(matches!(place.load(), Err(Error::Unfit { .. })));
    fs::remove_file(&path).unwrap();
    symlink("/no/such/file", &path).unwrap();
    assert!(matches!(place.load(), Err(Error::Unfit { .. })));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(place.load(), Err(Error::Unfit { .. })));
    fs::remove_dir(&path).unwrap();
    place.project(&format!("#{}", "x".repeat(300_000)));
    assert!(matches!(place.load(), Err(Error::Unfit { .. })));
}

#[test]
fn ones_own_file_must_be_ones_own() {
    let place = Place::new();
    place.user(&format!("allowed_urls = [\"{BROKER}\"]\n"));
    let load = |here: Here| Config::load(&place.ambient(&[]), &here);
    assert!(load(place.here("home")).is_ok());
    let stranger = Here { trusted: [u32::MAX, u32::MAX], ..place.here("home") };
    assert!(matches!(load(stranger), Err(Error::Unfit { .. })));
    let path = place.root.path().join("home/.config/dayfly/config.toml");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(load(place.here("home")), Err(Error::Unfit { .. })));
}

#[test]
fn flags_count_before_the_environment_and_that_before_project_user_and_system() {
    let place = Place::new();
    let broker = |host: &str| format!("https://{host}.example");
    let own = |host: &str| {
        format!(
            "url = \"https://{host}.example\"\nca_file = \"{host}.pem\"\naudience = \"{host}\"\n\
             allowed_urls = [\"https://project.example/\"]\n"
        )
    };
    assert_eq!(place.setting("DAYFLY_URL", None, &[]), None);
    place.system(&own("system"));
    assert_eq!(place.setting("DAYFLY_URL", None, &[]), Some(broker("system")));
    assert_eq!(place.setting("DAYFLY_AUDIENCE", None, &[]).unwrap(), "system");
    place.user(&own("user"));
    assert_eq!(place.setting("DAYFLY_URL", None, &[]), Some(broker("user")));
    assert_eq!(place.setting("DAYFLY_AUDIENCE", None, &[]).unwrap(), "user");
    let pem = place.setting("DAYFLY_CA_FILE", None, &[]).unwrap();
    assert!(pem.ends_with("home/.config/dayfly/user.pem"), "{pem}");
    place.project(&url(&broker("project")));
    assert_eq!(place.setting("DAYFLY_URL", None, &[]), Some(broker("project")));
    let set = [("DAYFLY_URL", "https://set.example"), ("DAYFLY_AUDIENCE", "set")];
    assert_eq!(place.setting("DAYFLY_URL", None, &set), Some(broker("set")));
    assert_eq!(place.setting("DAYFLY_AUDIENCE", None, &set).unwrap(), "set");
}

#[test]
fn a_files_identity_gives_way_to_a_token_of_the_environment() {
    let place = Place::new();
    place.user("identity = \"aws\"\n");
    assert_eq!(place.setting("DAYFLY_IDENTITY", None, &[]).unwrap(), "aws");
    assert_eq!(place.setting("DAYFLY_IDENTITY", None, &[("DAYFLY_ID_TOKEN", "jwt")]), None);
    assert!(message("identity = \"azure\"\n", Origin::User).contains("expected aws"));
}

#[test]
fn a_broker_that_only_the_checkout_names_is_refused() {
    let place = Place::new();
    place.project(&url(EVIL));
    assert!(place.is_refused(None, &[]));
    assert!(place.is_refused(Some(BROKER), &[]));
    assert!(place.is_refused(None, &[("DAYFLY_URL", BROKER)]));
    place.user(&url(BROKER)).system(&format!("allowed_urls = [\"{EVIL}/path\", \"{BROKER}\"]\n"));
    assert!(place.is_refused(None, &[]));
    let flags = BrokerArgs { url: None, ca_file: None };
    let error = place.load().unwrap().settings(&flags, &place.ambient(&[])).unwrap_err();
    let text = error.to_string();
    let user = place.root.path().join("home/.config/dayfly/config.toml");
    assert!(text.contains(".dayfly.toml:1 ") && text.contains(user.to_str().unwrap()), "{text}");
    assert!(text.contains(&format!("allowed_urls = [\"{EVIL}\"]")), "{text}");
}

#[test]
fn a_broker_that_somebody_else_names_or_allows_is_taken_from_the_checkout() {
    let place = Place::new();
    place.project(&url(BROKER));
    assert!(!place.is_refused(Some("https://BROKER.example.com:443/"), &[]));
    assert!(!place.is_refused(None, &[("DAYFLY_URL", BROKER)]));
    for text in [url(BROKER), format!("allowed_urls = [\"{EVIL}\", \"{BROKER}\"]\n")] {
        let user = Place::new();
        user.project(&url(BROKER)).user(&text);
        assert_eq!(user.setting("DAYFLY_URL", None, &[]).unwrap(), BROKER);
        let system = Place::new();
        system.project(&url(BROKER)).system(&text);
        assert_eq!(system.setting("DAYFLY_URL", None, &[]).unwrap(), BROKER);
    }
}

#[test]
fn a_checkout_says_nothing_of_tokens_and_trust() {
    for key in ["allowed_urls", "audience", "ca_file", "identity", "proof_key_file", "token_file"] {
        let text = message(&format!("\n{key} = \"x\"\n"), Origin::Project);
        assert!(text.starts_with(&format!("f.toml:2: {key}: is not for a project file")), "{text}");
    }
}

#[test]
fn faults_name_their_line_and_what_was_meant() {
    for (text, expected) in [
        ("ulr = \"x\"", "f.toml:1: ulr: unknown key (did you mean `url`?)"),
        ("token = \"x\"", "f.toml:1: token: unknown key"),
        ("url = 1", "f.toml:1: url: expected text"),
        (
            "url = \"http://broker.example.com\"",
            "f.toml:1: url: `http://broker.example.com/` would",
        ),
        ("url = ", "f.toml:1: this is not TOML: "),
        ("[profile]\np = 1", "f.toml:2: profile.p: expected a section: [profile.p]"),
        ("[profile.p]\nroles = \"r\"", "f.toml:2: profile.p.roles: expected a list"),
        ("[profile.p]\nroles = [\"r\",\n  \"\"]", "f.toml:3: profile.p.roles: must not be empty"),
        (
            "[profile.p]\nroles = [\"r\"]\nstop-timeout = \"1s\"",
            "f.toml:3: profile.p.stop-timeout: unknown key (did you mean `stop_timeout`?)",
        ),
        ("[profile.p.env]\nA = \"r\"", "f.toml:2: profile.p.env.A: expected \"ROLE/FIELD\""),
        ("[profile.p.env]\n\"A B\" = \"r/f\"", "f.toml:2: profile.p.env.A B: a variable's name"),
        ("[profile.p.env]\nLD_PRELOAD = \"r/f\"", "f.toml:2: profile.p.env.LD_PRELOAD: this"),
        ("[profile.p.file]\n\"../x\" = \"r/f\"", "f.toml:2: profile.p.file.../x: a file's name"),
        ("[profile.p.file]\nx = { form = \"r\" }", "f.toml:2: profile.p.file.x: expected either"),
        (
            "[profile.p.file]\nx = { from = \"r\", env = \"BASH_ENV\" }",
            "f.toml:2: profile.p.file.x.env: this variable is reserved",
        ),
        (
            "[profile.p]\nroles = [\"r\"]\n[profile.p.rotate]\nactoin = \"none\"",
            "f.toml:4: profile.p.rotate.actoin: unknown key (did you mean `action`?)",
        ),
    ] {
        let text = message(text, Origin::User);
        assert!(text.starts_with(expected), "{text}");
    }
    let text = message("a = 1\nb = 2\nc = 3\n", Origin::User);
    assert!(text.starts_with("f.toml:1: a: ") && text.ends_with("; and 2 more"), "{text}");
}

#[test]
fn no_value_is_repeated_by_a_fault() {
    for text in ["password = \"hunter2\"", "[profile.p.env]\nA = \"hunter2\"", "url = \"hunter2\""]
    {
        let text = message(text, Origin::Project);
        assert!(!text.is_empty() && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_checkout_chooses_no_command_that_runs_at_a_rotation() {
    let text = |action: &str| {
        format!("[profile.p]\nroles = [\"r\"]\n[profile.p.rotate]\naction = \"{action}\"\n")
    };
    for action in ["exec:./hook", "exec", "EXEC:x", "run:x", " exec:x"] {
        let refused = message(&text(action), Origin::Project);
        assert!(refused.starts_with("f.toml:4: profile.p.rotate.action: "), "{action}: {refused}");
    }
    for action in ["none", "restart", "signal:HUP"] {
        assert!(File::read(Origin::Project, Path::new("f"), &text(action)).is_ok(), "{action}");
    }
    assert!(File::read(Origin::User, Path::new("f"), &text("exec:./hook")).is_ok());
}

#[test]
fn a_profile_is_the_flags_that_would_be_typed() {
    let text = r#"
[profile.p]
roles = ["a", "X=b"]
ttl = "30m"
purpose = "--now"
clean_env = ["LANG", "LC_*"]
[profile.p.env]
USER_NAME = "a/username"
[profile.p.file]
pgpass = { from = ["a", "b"], format = "pgpass", env = "PGPASSFILE" }
key = "a/key"
"app.conf" = { template = "app.conf.in" }
[profile.p.fifo]
token = "a/token"
[profile.p.rotate]
action = "signal:HUP"
overlap = "2m"
"#;
    let file = File::read(Origin::Project, Path::new("/work/.dayfly.toml"), text).unwrap();
    let flags = file.profiles.get("p").unwrap().flags.iter();
    let mut words: Vec<_> = flags.map(|flag| flag.word.to_str().unwrap()).collect();
    words.sort_unstable();
    assert_eq!(
        words,
        [
            "--clean-env=LANG,LC_*",
            "--env=USER_NAME=a/username",
            "--fifo=token=a/token",
            "--file=app.conf=@/work/app.conf.in",
            "--file=key=a/key",
            "--file=pgpass@PGPASSFILE=a,b:pgpass",
            "--on-rotate=signal:HUP",
            "--overlap=2m",
            "--purpose=--now",
            "--role=X=b",
            "--role=a",
            "--ttl=30m",
        ]
    );
}

#[test]
fn what_is_typed_counts_before_the_profile_and_roles_add_to_it() {
    let text = "[profile.p]\nroles = [\"a\"]\nttl = \"30m\"\nstop_timeout = \"7s\"\n";
    let file = File::read(Origin::Project, Path::new("f"), text).unwrap();
    let profile = file.profiles.get("p").unwrap();
    let exec = |text: &str| {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let Command::Exec(exec) = applied(&words, profile).unwrap().command else {
            panic!("not exec");
        };
        exec
    };
    let plain = exec("dayfly exec --profile p -- true");
    assert_eq!((plain.roles.len(), plain.ttl.as_secs()), (1, 1800));
    let typed = exec("dayfly exec --profile p --role a --role N=b --ttl 5m -- true --ttl 1m");
    let roles: Vec<_> = typed.roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(roles, ["a", "b"]);
    assert_eq!((typed.ttl.as_secs(), typed.stop_timeout.as_secs()), (300, 7));
    assert_eq!(typed.command, ["true", "--ttl", "1m"]);
}

#[test]
fn a_value_that_its_flag_refuses_is_a_fault_of_its_line() {
    let text = "[profile.p]\nroles = [\"a\", \"two words\"]\nttl = \"900\"\n";
    let file = File::read(Origin::Project, Path::new("f.toml"), text).unwrap();
    let profile = file.profiles.get("p").unwrap();
    let words = ["dayfly", "exec", "--profile=p", "--", "true"].map(OsString::from);
    assert!(applied(&words, profile).is_err());
    let faults = crate::args::profile::faults(profile);
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "f.toml:2: profile.p.roles: expected ROLE or NAME=ROLE",
            "f.toml:3: profile.p.ttl: expected a time like 90s, 15m or 1h30m",
        ]
    );
}

#[test]
fn a_profile_comes_whole_from_the_first_file_that_has_it() {
    let place = Place::new();
    place.project("[profile.both]\nroles = [\"project\"]\n");
    place
        .user("[profile.both]\nroles = [\"user\"]\nttl = \"1m\"\n[profile.own]\nroles = [\"x\"]\n");
    let config = place.load().unwrap();
    let words = |name: &str| -> Vec<OsString> {
        config.profile(name).unwrap().flags.iter().map(|flag| flag.word.clone()).collect()
    };
    assert_eq!(words("both"), ["--role=project"]);
    assert_eq!(words("own"), ["--role=x"]);
    let error = config.profile("owm").unwrap_err().to_string();
    assert_eq!(error, "there is no profile `owm`; did you mean `own`?");
}

#[test]
fn the_file_that_init_writes_means_nothing_yet_and_is_right_without_its_marks() {
    let text = include_str!("example.toml");
    let file = File::read(Origin::Project, Path::new("f"), text).unwrap();
    assert!(file.url.is_none() && file.profiles.is_empty());
    let is_code = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or_default();
        line.starts_with('[') || line.split(' ').nth(1) == Some("=")
    };
    let bare: Vec<&str> = text
        .lines()
        .filter(|line| is_code(line))
        .map(|line| line.trim_start_matches("# "))
        .collect();
    let file = File::read(Origin::Project, Path::new("f"), &bare.join("\n"))
        .unwrap_or_else(|faults| panic!("{faults:?}"));
    assert!(file.url.is_some());
    let profile = file.profiles.get("migrate").unwrap();
    assert_eq!(profile.flags.len(), bare.len() - 5, "{bare:?}");
    assert!(Cli::try_parse_from(["dayfly", "config", "init"]).is_ok());
}

use std::fs;

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::{
    ambient::Ambient,
    args::{Cli, Command, ExecArgs, process::EnvironmentArgs},
};

const PASSWORD: &str = "hunter2-secret";

/// A run's arguments, the environment that it inherits, and where it may put files.
struct Run {
    args: ExecArgs,
    ambient: Ambient,
    home: TempDir,
}

fn run(words: &[&str], inherited: &[(&str, &str)]) -> Run {
    let cli = Cli::try_parse_from([&["dayfly", "exec"], words, &["--", "true"]].concat());
    let Command::Exec(args) = cli.unwrap().command else { panic!("not exec") };
    let pairs = inherited.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Run { args: *args, ambient: Ambient::new(pairs), home: tempfile::tempdir().unwrap() }
}

fn plain(ambient: &Ambient) -> Inheritance<'_> {
    static PLAIN: EnvironmentArgs =
        EnvironmentArgs { preserve_env: None, clean_env: None, keep_ci_identity: false };
    Inheritance::new(ambient, &PLAIN)
}

impl Run {
    fn plan(&self) -> Result<Plan, Error> {
        Plan::new(&self.args, &self.ambient)
    }

    fn terminal() -> Terminal {
        Terminal::standard(true)
    }

    /// What `look` sees once `credentials` have been delivered.
    fn delivered<T>(
        &self,
        credentials: Vec<(&str, Credential)>,
        look: impl FnOnce(&mut Delivered<'_>) -> T,
    ) -> Result<T, Error> {
        let plan = self.plan()?;
        let files = self.home.path().join("files");
        let mut delivered =
            Delivered::prepare(&plan, Some(&files), plain(&self.ambient), &Self::terminal())?;
        delivered.fill(credentials.into_iter().map(|(role, it)| (role.to_owned(), it)))?;
        Ok(look(&mut delivered))
    }
}

fn refused(words: &[&str], inherited: &[(&str, &str)]) -> String {
    run(words, inherited).plan().map(|_| ()).unwrap_err().to_string()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn postgres(user: &str) -> Credential {
    let url = format!("postgresql://{user}:{PASSWORD}@db/shop");
    let mut fields = map(&[("database", "shop"), ("host", "db"), ("port", "5432")]);
    fields.extend(map(&[("password", PASSWORD), ("url", &url), ("username", user)]));
    let environment = map(&[
        ("DATABASE_URL", "url"),
        ("PGDATABASE", "database"),
        ("PGHOST", "host"),
        ("PGPASSWORD", "password"),
        ("PGPORT", "port"),
        ("PGUSER", "username"),
    ]);
    Credential { fields, environment }
}

fn key(value: &str) -> Credential {
    Credential { fields: map(&[("key", value)]), environment: map(&[("DAYFLY_API_KEY", "key")]) }
}

fn variables(delivered: &Delivered<'_>) -> BTreeMap<OsString, OsString> {
    delivered.environment().unwrap().variables.into_iter().collect()
}

/// The names of the variables that the command gets.
fn names(delivered: &Delivered<'_>) -> Vec<String> {
    variables(delivered).into_keys().map(|name| name.into_string().unwrap()).collect()
}

fn value(delivered: &Delivered<'_>, name: &str) -> String {
    variables(delivered)[&OsString::from(name)].clone().into_string().unwrap()
}

#[test]
fn roles_that_anything_names_are_asked_for() {
    let words = ["--role", "a", "--env", "X=b/key", "--file", "db.json=c", "--fifo", "k=d/key"];
    let words = [&words[..], &["--resolve-env", "MORE,URL"]].concat();
    let title = ("CI_COMMIT_MESSAGE", "see dayfly://production/password and dayfly:// itself");
    let inherited = [("URL", "http://dayfly://e/username@h"), ("OTHER", "plain"), title];
    let plan = run(&words, &inherited).plan().unwrap();
    assert_eq!(plan.unresolved(), ["CI_COMMIT_MESSAGE"], "a stranger's words name no role");
    assert_eq!(plan.roles(), ["a", "e", "b", "c", "d"]);
    assert!(matches!(run(&[], &[]).plan(), Err(Error::NoRole)));
}

#[test]
fn what_is_wrong_is_found_before_anything_is_minted() {
    let cases: &[(&[&str], &str)] = &[
        (&["--env", "PATH=r/x"], "the variable PATH is reserved: it could run code"),
        (&["--env", "X=r/a", "--env", "X=r/b"], "--env X is given twice"),
        (&["--file", "a.json=r", "--file", "a.json=r"], "the file `a.json` is given twice"),
        (&["--file", "a=r/x", "--file", "A=r/x"], "the variable DAYFLY_FILE_A is given twice"),
        (&["--file", "a@X=r/x", "--env", "X=r/x"], "the variable X is given twice"),
        (&["--file", "a@LD_PRELOAD=r/x"], "the variable LD_PRELOAD is reserved: it could run code"),
        (&["--file", "pgpass=r", "--file", "b.pgpass=r"], "the variable PGPASSFILE is given twice"),
        (&["--fifo", "pgpass=r"], "a FIFO can't be in the format pgpass"),
        (&["--role", "r", "--on-rotate", "signal:HUP"], "--on-rotate signal needs a file"),
        (&["--file", "pgpass=r", "--on-rotate", "signal:HUP"], "--on-rotate signal needs a file"),
        (&["--file", "a=@/nowhere/x"], "cannot read `/nowhere/x`"),
        (&["--env-file", "/nowhere/x"], "cannot read `/nowhere/x`"),
    ];
    for (words, expected) in cases {
        let error = refused(words, &[]);
        assert!(error.starts_with(expected), "{words:?}: {error}");
    }
    let error = refused(&["--role", "r", "--resolve-env=X"], &[("X", "a dayfly://r of hunter2")]);
    assert_eq!(error, "the variable X has a dayfly:// that is not dayfly://ROLE/FIELD");
    let error = refused(&["--resolve-env=LD_PRELOAD"], &[("LD_PRELOAD", "dayfly://r/x")]);
    assert!(error.contains("LD_PRELOAD is reserved"), "{error}");
    assert!(run(&["--role", "r"], &[("DAYFLY_ID_TOKEN", "dayfly://x")]).plan().is_ok());
}

#[test]
fn references_are_replaced_wherever_variables_come_from() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("env");
    fs::write(&file, "FROM_FILE='u=dayfly://pg/username'\nPLAIN=x\nPGUSER=dayfly://api/key\n")
        .unwrap();
    let words =
        ["--role", "pg", "--env", "DIRECT=pg/password", "--env-file", file.to_str().unwrap()];
    let words = [&words[..], &["--resolve-env=FROM_PARENT"]].concat();
    let inherited = [("FROM_PARENT", "x dayfly://pg/host!"), ("PLAIN", "old")];
    let credentials = vec![("pg", postgres("df_1")), ("api", key("k"))];
    run(&words, &inherited)
        .delivered(credentials, |delivered| {
            for (name, expected) in [
                ("DIRECT", PASSWORD),
                ("FROM_FILE", "u=df_1"),
                ("FROM_PARENT", "x db!"),
                ("PLAIN", "x"),
                ("PGUSER", "k"),
                ("PGPASSWORD", PASSWORD),
            ] {
                assert_eq!(value(delivered, name), expected, "{name}");
            }
            assert!(!names(delivered).contains(&"DAYFLY_API_KEY".to_owned()), "not asked for");
            assert_eq!(delivered.environment().unwrap().replaced, ["FROM_PARENT", "PLAIN"]);
        })
        .unwrap();
}

#[test]
fn a_field_that_is_not_there_is_told_with_those_that_are_and_no_value() {
    let run = run(&["--env", "X=pg/user"], &[]);
    let plan = run.plan().unwrap();
    let mut delivered =
        Delivered::prepare(&plan, None, plain(&run.ambient), &Run::terminal()).unwrap();
    delivered.fill([("pg".to_owned(), postgres("df_1"))].into_iter()).unwrap();
    let error = delivered.environment().err().unwrap().to_string();
    assert_eq!(
        error,
        "the variable X can't be made: role `pg` has no field `user`, which it needs; \
         it has database, host, password, port, url, username"
    );
}

#[test]
fn beside_a_password_file_the_environment_has_the_rest() {
    let run = run(&["--file", "pgpass=pg"], &[("PGPASSWORD", "old"), ("PGSERVICE", "old")]);
    run.delivered(vec![("pg", postgres("df_1"))], |delivered| {
        let expected =
            ["DAYFLY_FILE_PGPASS", "PGDATABASE", "PGHOST", "PGPASSFILE", "PGPORT", "PGUSER"];
        assert_eq!(names(delivered), expected);
        let text = fs::read_to_string(value(delivered, "PGPASSFILE")).unwrap();
        assert_eq!(text, format!("db:5432:*:df_1:{PASSWORD}\n"));
        assert!(!delivered.can_replace("pg"), "libpq would go on with the old user");
    })
    .unwrap();
}

/// A variable of a running command does not change, so it must not hold what a file will change.
#[test]
fn what_a_file_carries_is_not_in_the_environment_as_well() {
    let cases: &[(&[&str], &str, bool)] = &[
        (
            &["--file", "pg_service.conf=pg"],
            "DAYFLY_FILE_PG_SERVICE_CONF PGDATABASE PGHOST PGPORT PGSERVICE PGSERVICEFILE",
            true,
        ),
        (&["--file", "db.json=pg"], "DAYFLY_FILE_DB_JSON PGDATABASE PGHOST PGPORT", true),
        (&["--file", "pw@PW_FILE=pg/password"], "PGDATABASE PGHOST PGPORT PGUSER PW_FILE", false),
        (
            &["--file", "u=pg/username", "--file", "p=pg/password"],
            "DAYFLY_FILE_P DAYFLY_FILE_U PGDATABASE PGHOST PGPORT",
            true,
        ),
        (&["--fifo", "url=pg/url"], "DAYFLY_FILE_URL PGDATABASE PGHOST PGPORT PGUSER", true),
        (
            &["--file", "pw=pg/password", "--on-rotate", "restart"],
            "DAYFLY_FILE_PW PGDATABASE PGHOST PGPORT PGUSER",
            true,
        ),
        (
            &["--on-rotate", "exec:true"],
            "DATABASE_URL PGDATABASE PGHOST PGPASSWORD PGPORT PGUSER",
            true,
        ),
        (
            &["--env", "PW=pg/password"],
            "DATABASE_URL PGDATABASE PGHOST PGPASSWORD PGPORT PGUSER PW",
            false,
        ),
    ];
    for (words, expected, replaceable) in cases {
        run(&[&["--role", "pg"], *words].concat(), &[])
            .delivered(vec![("pg", postgres("df_1"))], |delivered| {
                assert_eq!(names(delivered).join(" "), *expected, "{words:?}");
                assert_eq!(delivered.can_replace("pg"), *replaceable, "{words:?}");
            })
            .unwrap();
    }
}

#[test]
fn all_files_of_a_role_are_replaced_or_none() {
    let home = tempfile::tempdir().unwrap();
    let template = home.path().join("in");
    fs::write(&template, "key={{ api.key }}\n").unwrap();
    let template = format!("t=@{}", template.display());
    let words = ["--file", "k=api/key", "--file", &template, "--file", "db.json=pg"];
    let credentials = vec![("pg", postgres("df_1")), ("api", key("one"))];
    run(&words, &[])
        .delivered(credentials, |delivered| {
            let read = |delivered: &Delivered<'_>, name: &str| {
                fs::read_to_string(delivered.path(name)).unwrap()
            };
            assert_eq!(read(delivered, "k"), "one");
            assert!(delivered.replace("api", key("two")).unwrap());
            assert_eq!(
                (read(delivered, "k"), read(delivered, "t")),
                ("two".into(), "key=two\n".into())
            );
            assert!(!delivered.replace("api", key("two")).unwrap(), "nothing has changed");

            let error = delivered.replace("api", key("hun\0ter")).unwrap_err().to_string();
            assert!(error.contains("NUL") && !error.contains("hun"), "{error}");
            let other = Credential { fields: map(&[("other", "x")]), environment: map(&[]) };
            assert!(delivered.replace("api", other).is_err());
            assert_eq!(
                (read(delivered, "k"), read(delivered, "t")),
                ("two".into(), "key=two\n".into())
            );

            let path = delivered.path("k");
            delivered.remove().unwrap();
            assert!(!path.parent().unwrap().exists());
        })
        .unwrap();
}

#[test]
fn a_templates_mistakes_have_their_place() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.in");
    let shown = path.display();
    let spec = format!("app=@{shown}");
    fs::write(&path, "a\n  {{ pg.password | upper }}\n").unwrap();
    let error = refused(&["--file", &spec], &[]);
    let expected = "line 2, column 3: the filters are json, properties, shell and url";
    assert_eq!(error, format!("`{shown}`, {expected}"));

    fs::write(&path, "{{ pg.pasword }}\n").unwrap();
    let error = run(&["--file", &spec], &[]).delivered(vec![("pg", postgres("u"))], |_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("`{shown}`, line 1, column 1: role `pg` has no field")),
        "{error}"
    );
    assert!(error.contains("password, port") && !error.contains(PASSWORD), "{error}");
}

#[test]
fn a_directory_is_made_only_for_files() {
    let run = run(&["--role", "pg"], &[]);
    run.delivered(vec![("pg", postgres("u"))], |delivered| {
        assert!(delivered.directory.is_none() && delivered.places().is_empty());
        delivered.remove().unwrap();
    })
    .unwrap();
    assert!(!run.home.path().join("files").exists());
}

mod fifos {
    use std::{
        cell::RefCell,
        io::{self, Read as _},
        sync::mpsc,
        thread,
        time::Duration,
    };

    use super::*;

    /// Reads the FIFO as often as `turns`, in a thread, as a command would.
    fn reader(path: PathBuf, turns: usize) -> mpsc::Receiver<io::Result<String>> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for _ in 0..turns {
                let read = fs::File::open(&path).and_then(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| text)
                });
                sender.send(read).unwrap();
            }
        });
        receiver
    }

    async fn next(receiver: &mpsc::Receiver<io::Result<String>>) -> io::Result<String> {
        loop {
            match receiver.try_recv() {
                Ok(read) => return read,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// What `look` says while the FIFO `k` is served.
    async fn served<T>(words: &[&str], look: impl AsyncFnOnce(&RefCell<Delivered<'_>>) -> T) -> T {
        let run = run(&[&["--fifo", "k=api/key"], words].concat(), &[]);
        let plan = run.plan().unwrap();
        let files = run.home.path().join("files");
        let terminal = Run::terminal();
        let mut delivered =
            Delivered::prepare(&plan, Some(&files), plain(&run.ambient), &terminal).unwrap();
        delivered.fill([("api".to_owned(), key("one"))].into_iter()).unwrap();
        let delivered = RefCell::new(delivered);
        let serving = async {
            fifo::serve(&delivered, &terminal).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            seen = look(&delivered) => seen,
            () = serving => panic!("it can't end"),
        }
    }

    #[tokio::test]
    async fn each_reader_gets_what_is_valid_then() {
        served(&[], async |delivered| {
            let path = delivered.borrow().path("k");
            let reads = reader(path.clone(), 3);
            for _ in 0..3 {
                assert_eq!(next(&reads).await.unwrap(), "one");
            }
            delivered.borrow_mut().replace("api", key("two")).unwrap();
            let reads = reader(path, 2);
            for _ in 0..2 {
                assert_eq!(next(&reads).await.unwrap(), "two");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_does_no_harm() {
        served(&[], async |delivered| {
            let large = "x".repeat(300_000);
            delivered.borrow_mut().replace("api", key(&large)).unwrap();
            let path = delivered.borrow().path("k");
            let gone = path.clone();
            thread::spawn(move || {
                let mut byte = [0];
                fs::File::open(gone).unwrap().read_exact(&mut byte).unwrap();
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            let reads = reader(path, 1);
            assert_eq!(next(&reads).await.unwrap(), large);
        })
        .await;
    }

    #[tokio::test]
    async fn after_so_many_reads_it_is_gone() {
        served(&["--fifo-reads", "2"], async |delivered| {
            let path = delivered.borrow().path("k");
            let reads = reader(path.clone(), 3);
            assert_eq!(next(&reads).await.unwrap(), "one");
            assert_eq!(next(&reads).await.unwrap(), "one");
            let third = next(&reads).await.unwrap_err();
            assert_eq!(third.kind(), io::ErrorKind::NotFound);
            assert!(!path.exists());
        })
        .await;
    }
}

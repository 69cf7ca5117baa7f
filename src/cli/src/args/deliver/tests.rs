use super::*;

fn file(text: &str) -> Result<FileSpec, String> {
    text.parse()
}

fn source(text: &str) -> FileSource {
    file(text).unwrap().source
}

fn of(roles: &[&str], format: FileFormat) -> FileSource {
    FileSource::Roles { roles: roles.iter().map(|role| (*role).to_owned()).collect(), format }
}

#[test]
fn a_files_name_says_its_format() {
    for (name, format) in [
        ("pgpass", FileFormat::Pgpass),
        ("my.pgpass", FileFormat::Pgpass),
        ("pg_service.conf", FileFormat::PgService),
        ("my.cnf", FileFormat::MyCnf),
        ("credentials", FileFormat::Aws),
        ("aws", FileFormat::Aws),
        ("db.json", FileFormat::Json),
        ("db.properties", FileFormat::Properties),
        ("app.env", FileFormat::Dotenv),
    ] {
        assert_eq!(source(&format!("{name}=pg-read")), of(&["pg-read"], format), "{name}");
    }
    assert!(file("secret=pg-read").unwrap_err().contains("secret=ROLE:json"));
    assert_eq!(source("secret=pg-read:json"), of(&["pg-read"], FileFormat::Json));
    assert_eq!(source("x.json=a:properties"), of(&["a"], FileFormat::Properties));
}

#[test]
fn a_file_is_of_a_field_of_roles_or_of_a_template() {
    let field = FieldName { role: "pg-read".into(), field: "password".into() };
    assert_eq!(source("key=pg-read/password"), FileSource::Field(field));
    assert_eq!(source("c=@conf/app.in"), FileSource::Template("conf/app.in".into()));
    assert_eq!(source("pgpass=a,b"), of(&["a", "b"], FileFormat::Pgpass));
    assert!(file("x.json=a,b").unwrap_err().contains("more than one role"));
    let named = file("key@API_KEY_FILE=r/key").unwrap();
    assert_eq!((named.name.as_str(), named.variable.as_deref()), ("key", Some("API_KEY_FILE")));
}

#[test]
fn files_that_cannot_be_meant_are_refused() {
    for bad in [
        "",
        "x",
        "=r",
        "x=",
        "x=:json",
        "a/b=r/f",
        "..=r/f",
        ".x=r/f",
        "x=r/",
        "x=/f",
        "x=r/f/g",
        "x=r:yaml",
        "x=@",
        "x@=r/f",
        "x@1A=r/f",
        "x.json=a,",
        "x y=r/f",
        "x=r/f g",
    ] {
        assert!(file(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_variable_is_one_field() {
    let spec: VariableSpec = "PW=pg-read/password".parse().unwrap();
    let field = FieldName { role: "pg-read".into(), field: "password".into() };
    assert_eq!(spec, VariableSpec { name: "PW".into(), field });
    for bad in ["PW", "PW=r", "=r/f", "1P=r/f", "P-W=r/f", "PW=r/", "PW=r/f g", "PW=dayfly://r/f"] {
        assert!(bad.parse::<VariableSpec>().is_err(), "{bad}");
    }
}

#[test]
fn what_follows_a_replacement_is_one_of_four() {
    let parse = |text: &str| text.parse::<OnRotate>();
    assert_eq!(parse("none"), Ok(OnRotate::None));
    assert_eq!(parse("restart"), Ok(OnRotate::Restart));
    assert_eq!(parse("signal:HUP"), Ok(OnRotate::Signal(Signal::HUP)));
    assert_eq!(parse("signal:SIGUSR1"), Ok(OnRotate::Signal(Signal::USR1)));
    assert_eq!(parse("exec:kill -HUP 1:2"), Ok(OnRotate::Exec("kill -HUP 1:2".into())));
    for bad in ["", "signal", "signal:", "signal:KILL", "signal:9", "exec:", "exec: ", "stop"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

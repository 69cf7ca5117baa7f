//! A throwaway PostgreSQL server.
//!
//! Invariant: the administrator comes by the socket only; over TCP everybody needs a
//! password, so that a login that works proves one.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{free_port, is_root, run};

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    bin: PathBuf,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
}

impl Postgres {
    /// Starts one, with a database `app` in which the group role `readers` can read the
    /// table `app.notes`, and an account `dayfly_admin` that may make roles.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dfi").tempdir_in("/tmp").unwrap();
        let server = Self { directory, bin: newest(), port: free_port() };
        let path = server.directory.path();
        if is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(path));
        }
        // The tests' own processes reach the socket, whoever runs them.
        run(Command::new("chmod").arg("755").arg(path));
        let data = server.data();
        run(server.command("initdb").arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]));
        let hba = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             log_statement = 'all'\nlog_min_duration_statement = 0\nmax_connections = 800\n",
            server.port,
            path.display()
        );
        server.write("pg_hba.conf", hba);
        server.append("postgresql.conf", &settings);
        server.resume();
        server.sql(
            "postgres",
            "CREATE ROLE dayfly_admin LOGIN CREATEROLE PASSWORD 'admin-password';
             CREATE ROLE readers NOLOGIN; GRANT readers TO dayfly_admin WITH ADMIN OPTION;
             GRANT pg_signal_backend TO dayfly_admin;
             CREATE DATABASE app; CREATE DATABASE dayfly",
        );
        server.sql(
            "app",
            "CREATE SCHEMA app; CREATE TABLE app.notes (text text);
             INSERT INTO app.notes VALUES ('hello');
             GRANT USAGE ON SCHEMA app TO readers; GRANT SELECT ON app.notes TO readers",
        );
        server
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where its programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of a database for the administrator, by the socket.
    pub fn url(&self, database: &str) -> String {
        let host = self.directory.path().display();
        format!("postgres://postgres@localhost:{}/{database}?host={host}", self.port)
    }

    /// What it has logged: every statement.
    pub fn log(&self) -> String {
        run(as_owner("cat").arg(self.data().join("log")))
    }

    /// Runs SQL as the administrator; gives the rows, one a line.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        command.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string()]);
        // Several statements in one string are one transaction, which CREATE DATABASE refuses.
        for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
            command.args(["-c", statement]);
        }
        run(command.args(["-d", database])).trim().to_owned()
    }

    /// `psql` as a client of a credential: `url` and what to run.
    pub fn psql(&self, url: &str, sql: &str) -> Output {
        let mut command = self.client(url);
        command.args(["-c", sql]).output().unwrap()
    }

    /// The `psql` command of a credential's URL, without what to run.
    pub fn client(&self, url: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-t", "-A", url]).env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// Whether a login with `url` works now.
    pub fn lets_in(&self, url: &str) -> bool {
        self.psql(url, "SELECT 1").status.success()
    }

    /// The roles whose names begin with `prefix`, but for the marker of whose prefix it is.
    pub fn roles(&self, prefix: &str) -> Vec<String> {
        let sql = format!(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{prefix}')
             AND rolname <> '{prefix}marker'"
        );
        self.sql("postgres", &sql).lines().map(str::to_owned).collect()
    }

    /// Lets another installation have `prefix`.
    pub fn disown(&self, prefix: &str) {
        self.sql("postgres", &format!("DROP ROLE IF EXISTS {prefix}marker"));
    }

    /// The comment of the marker: which installation, and how many sweeps.
    pub fn marker(&self, prefix: &str) -> String {
        let sql = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname =";
        self.sql("postgres", &format!("{sql} '{prefix}marker'"))
    }

    /// An asynchronous standby of it, streaming.
    #[must_use]
    pub fn standby(&self) -> Self {
        let directory = tempfile::Builder::new().prefix("dfi").tempdir_in("/tmp").unwrap();
        let standby = Self { directory, bin: self.bin.clone(), port: free_port() };
        let path = standby.directory.path();
        if is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(path));
        }
        run(Command::new("chmod").arg("755").arg(path));
        let mut copy = self.command("pg_basebackup");
        copy.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
        copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(standby.data());
        run(&mut copy);
        standby.append("postgresql.conf", &standby.place());
        standby.resume();
        standby
    }

    /// Waits until `standby` has all that was committed here so far.
    pub fn replicated_to(&self, standby: &Self) {
        let at = self.sql("postgres", "SELECT pg_current_wal_lsn()");
        for _ in 0..500 {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
            if standby.sql("postgres", &sql) == "t" {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the standby does not follow");
    }

    /// Becomes the primary, at the place of one that is gone.
    pub fn take_over(&mut self, gone: &Self) {
        self.resume();
        run(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-w", "promote"]));
        run(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", "fast", "stop"]));
        self.port = gone.port;
        self.append("postgresql.conf", &self.place());
        self.resume();
    }

    /// The settings of where it is found; the last ones in the file hold.
    fn place(&self) -> String {
        let socket = self.directory.path().display();
        format!("port = {}\nunix_socket_directories = '{socket}'\n", self.port)
    }

    /// A dump of `database`.
    pub fn dump(&self, database: &str) -> String {
        let mut command = Command::new(self.bin.join("pg_dump"));
        command.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string()]);
        run(command.args(["-U", "postgres", "-d", database]))
    }

    /// Runs a dump in `database`.
    pub fn load(&self, database: &str, dump: &str) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dump.sql");
        std::fs::write(&file, dump).unwrap();
        let mut command = Command::new(self.bin.join("psql"));
        command.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string()]);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
        run(command.arg("-f").arg(file));
    }

    /// A copy of all its files, as a backup of a server that is down.
    pub fn backup(&self) -> TempDir {
        let copy = tempfile::Builder::new().prefix("dfi").tempdir_in("/tmp").unwrap();
        run(Command::new("cp").arg("-a").arg(self.data()).arg(copy.path()));
        copy
    }

    /// Puts a backup in the place of its files. It must be down.
    pub fn restore(&self, backup: &TempDir) {
        run(Command::new("rm").arg("-rf").arg(self.data()));
        run(Command::new("cp").arg("-a").arg(backup.path().join("data")).arg(self.data()));
    }

    /// Stops it at once, as a crash would.
    pub fn crash(&self) {
        run(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]));
    }

    /// Starts it again.
    pub fn resume(&self) {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).arg("-l").arg(self.data().join("log"));
        // pg_ctl's child keeps what it inherits, so it gets no pipe of ours.
        let command = command.args(["-w", "-s", "start"]).stdout(Stdio::null());
        assert!(command.stderr(Stdio::null()).status().unwrap().success(), "pg_ctl start");
    }

    fn command(&self, program: &str) -> Command {
        as_owner(self.bin.join(program).to_str().unwrap())
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.data().join(file), text).unwrap();
    }

    fn append(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        let mut all = std::fs::read_to_string(&path).unwrap();
        all.push_str(text);
        std::fs::write(&path, all).unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", "immediate", "-s", "stop"]);
        // It may have been stopped by the test.
        drop(stop.output());
    }
}

/// PostgreSQL refuses to run as root.
fn as_owner(program: &str) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn newest() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (Debian: postgresql)");
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let newest: u32 = versions.max().expect("PostgreSQL is installed (Debian: postgresql)");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

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
        let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             log_statement = 'all'\nlog_min_duration_statement = 0\nmax_connections = 200\n",
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

    /// The roles with the prefix that a lease can have; a prefix's marker is none of them.
    pub fn roles(&self, prefix: &str) -> Vec<String> {
        let sql =
            format!("SELECT rolname FROM pg_roles WHERE rolname ~ '^{prefix}[a-z2-7]{{26}}$'");
        self.sql("postgres", &sql).lines().map(str::to_owned).collect()
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

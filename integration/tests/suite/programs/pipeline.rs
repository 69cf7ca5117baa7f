//! A command between others of a shell: what it reads and writes is not touched.

use std::process::Command;

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, program};
use tempfile::TempDir;

use crate::injector::{Finished, finished};

/// Rows in which each byte and each length of text occurs.
const ROWS: &str = "SELECT i, decode(repeat(md5(i::text), i % 5), 'hex') AS bytes, \
                    repeat(chr(i % 1000 + 1), i % 3) AS text FROM generate_series(1, 100000) AS i";

struct Shell {
    postgres: Postgres,
    broker: Broker,
    home: TempDir,
}

impl Shell {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let broker = Broker::start(BrokerConfig::new(Store::Sqlite, Some(&postgres))).await;
        Self { postgres, broker, home: tempfile::tempdir().unwrap() }
    }

    /// Runs `script`, in which `run` is `dayfly exec` with the role `reader`, outside of CI.
    fn play(&self, script: &str, arguments: &[&str]) -> Finished {
        let function = "set -euo pipefail\nrun() { dayfly exec --role reader \"$@\"; }\n";
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{function}{script}"), "bash"]).args(arguments).env_clear();
        let own = program("dayfly").parent().unwrap().display().to_string();
        let path = format!("{own}:{}:/usr/local/bin:/usr/bin:/bin", self.postgres.bin().display());
        command.env("PATH", path).env("HOME", self.home.path()).current_dir(self.home.path());
        command.env("DAYFLY_ID_TOKEN", self.broker.issuer.token("shell"));
        command.env("DAYFLY_URL", self.broker.client().url());
        finished(command)
    }

    /// That every line that `script` prints is the same sum.
    fn sums_are_equal(&self, script: &str, arguments: &[&str], lines: usize) {
        let ran = self.play(script, arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("completed: 1 credential verified dead"), "{}", ran.err);
        let sums: Vec<&str> = ran.out.lines().collect();
        assert_eq!(sums.len(), lines, "{ran:?}");
        assert!(sums.iter().all(|sum| *sum == sums[0] && sum.len() > 64), "{ran:?}");
        assert_eq!(self.postgres.roles("df_"), Vec::<String>::new());
    }
}

/// Bytes without any order, the same ones each time.
const NOISE: &str = "noise() { head -c \"$1\" /dev/zero |
    openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000; }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_through_the_injector_carries_every_byte() {
    let shell = Shell::new().await;
    let script = "noise $((50 * 1024 * 1024)) | tee >(sha256sum >&3) |
        run -- cat | gzip -1 | gzip -d | sha256sum";
    shell.sums_are_equal(&format!("{NOISE}exec 3>&1\n{script}"), &[], 2);
    // Also through the filter that looks for secrets.
    let script = "noise $((5 * 1024 * 1024 + 1)) | tee >(sha256sum >&3) |
        run --mask always -- cat | sha256sum";
    shell.sums_are_equal(&format!("{NOISE}exec 3>&1\n{script}"), &[], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_copy_goes_out_and_in_again_byte_by_byte() {
    let shell = Shell::new().await;
    let port = shell.postgres.port.to_string();
    let out = format!("COPY ({ROWS}) TO STDOUT (FORMAT binary)");
    // The administrator's copy, by the socket, is what it should be.
    let script = "psql -h \"$1\" -p \"$2\" -U postgres -d app -XqAtc \"$3\" | sha256sum
        run -- sh -c 'psql -wXqc \"$1\" | gzip -1' sh \"$3\" >out.gz
        gzip -d <out.gz >out
        sha256sum <out";
    let socket = shell.postgres.socket().to_str().unwrap();
    shell.sums_are_equal(script, &[socket, &port, &out], 2);

    let script = "sha256sum <out
        gzip -d <out.gz | run -- psql -wXq -v ON_ERROR_STOP=1 \\
            -c 'CREATE TEMP TABLE copy (i int, bytes bytea, text text)' \\
            -c 'COPY copy FROM STDIN (FORMAT binary)' \\
            -c 'COPY (SELECT * FROM copy ORDER BY i) TO STDOUT (FORMAT binary)' | sha256sum";
    shell.sums_are_equal(script, &[], 2);
    let size = std::fs::metadata(shell.home.path().join("out")).unwrap().len();
    assert!(size > 1_000_000, "{size}");
}

//! AWS's own command line, by the two ways in which it asks for credentials itself.

use std::{fs, path::PathBuf, process::Output};

use dayfly_integration::{Account, program, python};
use serde_json::Value;

use crate::helpers::{Desk, text};

/// Says who it is, and keeps what it was given. `$2` asks for that once more.
const SCRIPT: &str = r#"test -z "$AWS_ACCESS_KEY_ID$AWS_SECRET_ACCESS_KEY" || exit 90
    aws --endpoint-url "$1" sts get-caller-identity --query Arn --output text || exit 91
    aws --endpoint-url "$1" iam list-users --query Users[].UserName --output text || exit 92
    eval "$2" >"$HOME/kept" || exit 93"#;

/// The endpoint of a container, as any HTTP client sees it.
const FROM_ENDPOINT: &str = r#"curl -sSf -H "Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN" \
    "$AWS_CONTAINER_CREDENTIALS_FULL_URI""#;

struct Terminal {
    account: Account,
    desk: Desk,
}

impl Terminal {
    async fn new() -> Self {
        let account = Account::start().await;
        let desk = Desk::aws(&account).await;
        Self { account, desk }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.account.port)
    }

    /// `dayfly` with `words` around the script.
    fn run(&self, words: &[&str], again: &str) -> Output {
        let identity = self.desk.identity();
        let url = self.url();
        let script = ["--token-file", &identity, "--", "sh", "-c", SCRIPT, "sh", &url, again];
        let mut command = self.desk.dayfly(&[words, &script].concat());
        command.env("PATH", path()).env("AWS_DEFAULT_REGION", "eu-central-1");
        command.env("AWS_CONFIG_FILE", self.desk.path("aws-config"));
        command.output().unwrap()
    }

    /// That the account knows the credential no more that was kept.
    fn refuses_what_was_kept(&self) {
        let kept = fs::read_to_string(self.desk.path("kept")).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        let mut command = self.desk.command(program_of_aws());
        command.args(["--endpoint-url", &self.url(), "sts", "get-caller-identity"]);
        command.env("AWS_DEFAULT_REGION", "eu-central-1");
        let field = |name: &str| kept[name].as_str().filter(|value| !value.is_empty());
        command.env("AWS_ACCESS_KEY_ID", field("AccessKeyId").unwrap());
        command.env("AWS_SECRET_ACCESS_KEY", field("SecretAccessKey").unwrap());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("InvalidClientTokenId"), "{output:?}\n{}", self.account.log());
    }
}

/// Beside the Python that it runs in.
fn program_of_aws() -> PathBuf {
    let aws = python().with_file_name("aws");
    assert!(aws.exists(), "AWS's command line is not installed; run integration/test once");
    aws
}

/// Where it and what the script needs is found.
fn path() -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", program_of_aws().parent().unwrap().display())
}

/// That it worked as one user of ours, and as nobody else.
fn was_one_of_ours(output: &Output) {
    let said = text(output);
    let arn = said.lines().next().unwrap();
    assert!(arn.contains(":user/dayfly/da/da_"), "{said}");
    assert!(said.lines().nth(1).unwrap().contains(arn.rsplit('/').next().unwrap()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_of_aws_asks_the_container_endpoint() {
    let terminal = Terminal::new().await;
    fs::write(terminal.desk.path("aws-config"), "").unwrap();
    let output = terminal.run(&["exec", "--aws-endpoint", "deploy"], FROM_ENDPOINT);
    was_one_of_ours(&output);
    terminal.refuses_what_was_kept();
    assert_eq!(terminal.desk.states("deploy").await, ["revoked"]);
}

/// The process asks an agent, which ends the credential when the script has ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_of_aws_runs_the_credential_process() {
    let terminal = Terminal::new().await;
    let process = format!("{} credential aws --role deploy", program("dayfly").display());
    let config = format!("[default]\ncredential_process = {process}\n");
    fs::write(terminal.desk.path("aws-config"), config).unwrap();
    let output = terminal.run(&["agent", "--role", "deploy"], &process);
    was_one_of_ours(&output);
    terminal.refuses_what_was_kept();
    assert_eq!(terminal.desk.states("deploy").await, ["revoked"]);
}

//! How commands at a terminal are told to end, and what comes after.

use super::*;

const QUIT: &str = "\u{1c}";

/// What a person does who has had enough, whatever the command makes of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_third_interrupt_kills() {
    let desk = Desk::new().await;
    let script = "n=0; trap 'n=$((n+1)); echo int:$n' INT; echo re''ady\n\
                  while :; do sleep 0.05; done";
    let line = desk.line("stubborn", script);
    desk.play(&[
        send(&line),
        expect("ready"),
        send(INTERRUPT),
        expect("int:1"),
        send(INTERRUPT),
        expect("int:2"),
        send(INTERRUPT),
        expect("Killed"),
        expect("$ "),
        send("echo code:$?\n"),
        expect("code:137"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quit_reaches_the_command_once() {
    let desk = Desk::new().await;
    let script = "n=0; trap 'n=$((n+1))' QUIT; echo re''ady\n\
                  i=0; while [ $i -lt 30 ]; do sleep 0.05; i=$((i+1)); done; echo quits:$n";
    let line = desk.line("count", script);
    let shown = desk.play(&[
        send(&format!("ulimit -c 0; {line}")),
        expect("ready"),
        send(QUIT),
        expect("quits:1"),
        expect("$ "),
        send(END),
    ]);
    assert!(!shown.contains("quits:2"), "{shown}");
    assert_eq!(desk.outcome().await, "completed");
}

/// One that wants to read stops until it is in front, and we with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_the_background_stops_at_its_first_question() {
    let desk = Desk::new().await;
    let line = desk.line("ask", "echo re''ady; read answer; echo got:$answer");
    desk.play(&[
        send(&format!("{} &\n", line.trim())),
        expect("ready"),
        // The shell tells of it before its next prompt.
        json!({ "pause": 0.5 }),
        send("\n"),
        expect("Stopped"),
        expect("$ "),
        send("fg\n"),
        expect("./ask"),
        send("hello\n"),
        expect("got:hello"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "completed");
}

/// The window is closed, the line is dead.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_terminal_is_gone() {
    let desk = Desk::new().await;
    let line = desk.line("wait", "echo $$ >pid; echo re''ady; exec sleep 60");
    desk.play_until(&[send(&line), expect("ready"), json!({ "hangup": true })]);
    eventually("the task is over", Duration::from_secs(20), async || {
        (desk.outcome().await == "cancelled").then_some(())
    })
    .await;
    let pid = fs::read_to_string(desk.home.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

/// What is started again has the terminal as the first had it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_started_again_reads_from_the_terminal() {
    let desk = Desk::with(
        "[[role]]\nname = \"brief\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"6s\"\n\
         ttl_max = \"8s\"\n",
    )
    .await;
    let script = "test -e mark || { touch mark; echo fi''rst; exec sleep 60; }\n\
                  echo sec''ond; read answer; echo got:$answer";
    let line = desk.line("again", script);
    let line = line.replace("--role greeter", "--role brief --on-rotate restart");
    desk.play(&[
        send(&line),
        expect("first"),
        expect("second"),
        send("hello\n"),
        expect("got:hello"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "completed");
}

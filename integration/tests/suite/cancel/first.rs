//! As the first process of a container.

use super::*;

/// The first process of a container, as Kubernetes and Docker start it.
fn container(line: &str) -> Vec<&str> {
    // As another user than root, it takes a user namespace as well.
    let unshare = "unshare --user --map-root-user --pid --fork --mount-proc --kill-child --";
    unshare.split_whitespace().chain(line.split_whitespace()).collect()
}

/// The injector within a container.
fn first(running: &Running) -> i32 {
    descendants(running.id())[0]
}

/// Kubernetes: TERM, and KILL when the grace is over. By then nothing is left to kill.
#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_stops_a_container() {
    let scene = Scene::new().await;
    let line = scene.exec("", &format!("trap 'exit 7' TERM\n{WORK}"));
    let mut running = scene.start(&container(&line), &[]).await;
    signal("TERM", first(&running));
    let status = running.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(7), "a first process answers signals");
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "cancelled");

    let line = scene.exec("--stop-timeout 2s", &format!("trap '' TERM\n{WORK}"));
    let mut running = scene.start(&container(&line), &[]).await;
    signal("TERM", first(&running));
    let status = running.ended(Duration::from_secs(15)).await;
    // A first process can't die of a signal of its own.
    assert_eq!(status.code(), Some(137));
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "cancelled");
}

/// Docker gives 10 s by default, of which these flags leave one.
#[tokio::test(flavor = "multi_thread")]
async fn docker_stops_a_container() {
    let scene = Scene::new().await;
    let options = "--stop-timeout 7s --revoke-timeout 2s";
    let line = scene.exec(options, &format!("trap '' TERM\n{WORK}"));
    let mut running = scene.start(&container(&line), &[]).await;
    signal("TERM", first(&running));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(scene.lets_in(), "the command has its time");
    // Less than 5 s are left of the ten; the test's own steps take their time as well.
    let status = running.ended(Duration::from_secs(8)).await;
    assert_eq!(status.code(), Some(137));
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "cancelled");
}

/// A first process has no default actions: what it does not pass on or answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_process_passes_signals_on_and_hears_the_second_request() {
    let scene = Scene::new().await;
    let names = ["USR1", "USR2", "QUIT", "INT", "TERM"];
    let traps = names.map(|name| format!("trap 'echo {name} >>heard' {name}\n")).concat();
    let line = scene.exec("--stop-timeout 1m", &format!("{traps}{WORK}"));
    let mut running = scene.start(&container(&line), &[]).await;
    let heard = async |name: &str| {
        eventually(&format!("{name} is heard"), Duration::from_secs(10), async || {
            let heard = fs::read_to_string(scene.path("heard")).unwrap_or_default();
            heard.lines().any(|line| line == name).then_some(())
        })
        .await;
    };
    for name in ["USR1", "USR2", "QUIT", "INT"] {
        signal(name, first(&running));
        heard(name).await;
    }
    assert!(scene.lets_in());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    signal("TERM", first(&running));
    let status = running.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(137));
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "cancelled");
}

/// Memory runs out, say: the whole container is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_leaves_nothing_that_works_beyond_its_heartbeat() {
    let scene = Scene::new().await;
    let line = scene.exec("--heartbeat 10s --ttl 1h", WORK);
    let running = scene.start(&container(&line), &[]).await;
    signal("KILL", first(&running));
    scene.is_dead(Duration::from_mins(1)).await;
    assert_eq!(scene.task().await, "lost");
}

/// Nobody else does it in a container; there would soon be no room for processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_process_reaps_what_is_left_to_it() {
    let scene = Scene::new().await;
    let orphans = "printf %s \"$DATABASE_URL\" >url.new; mv url.new url\n\
        for i in 1 2 3 4 5; do (sleep 0.2 & exec true); done\n\
        sleep 4\n\
        for stat in /proc/[0-9]*/stat; do\n\
            read -r id name state parent rest <$stat || continue\n\
            [ \"$parent $state\" = '1 Z' ] && echo \"$id $name\" >>zombies\n\
            [ $parent = 1 ] && echo \"$id $name\" >>children\n\
        done 2>/dev/null\n\
        exit 0\n";
    let line = scene.exec("", orphans);
    let mut running = scene.start(&container(&line), &[]).await;
    assert_eq!(running.ended(Duration::from_secs(20)).await.code(), Some(0));
    let zombies = fs::read_to_string(scene.path("zombies")).unwrap_or_default();
    let children = fs::read_to_string(scene.path("children")).unwrap();
    assert_eq!((zombies.as_str(), children.lines().count()), ("", 1), "{children}");
    assert!(!scene.lets_in());
    assert_eq!(scene.task().await, "completed");
}

//! Says that the command still runs.
//!
//! Invariant: silence on our side ends the task and its credentials, and nothing here ever ends
//! the command.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    client::{Client, Error, jittered},
    exec::Session,
    failure::Failure,
};

/// Beats in each interval, so that two may be lost.
const BEATS: u32 = 3;
/// Waits for an answer in each interval: one that does not come must not be the last one.
const WAITS: u32 = 6;
/// Beats in each interval while they fail.
const URGENT_BEATS: u32 = 12;

/// Says so until there is no more hope that the broker hears it. `every` is how long the broker lets us be silent.
pub(super) async fn beat(session: &Session<'_>, every: Duration) {
    let (mut warned, mut pause) = (false, every / BEATS);
    let mut apart: Option<Client> = None;
    loop {
        sleep(jittered(pause)).await;
        let client = apart.as_ref().unwrap_or(session.client);
        let beat = client.beat(&session.token, &session.task.id, every / WAITS);
        let Err(error) = beat.await else {
            (warned, pause) = (false, every / BEATS);
            continue;
        };
        pause = every / if error.is_temporary() { URGENT_BEATS } else { BEATS };
        let hopeless = is_hopeless(&error);
        if hopeless || !warned {
            warned = true;
            session.terminal.warn(&format!(
                "cannot tell the broker that task {} goes on: {}",
                session.task.id,
                Failure::from(error).to_line()
            ));
        }
        if hopeless {
            return;
        }
        // The connection may be dead, or the replica behind it unable to hear us or to tell the
        // others that it was.
        apart = session.client.apart().ok();
    }
}

/// Whether the broker has said that it will never hear this task again. Anything else may pass:
/// a replica of a version before heartbeats answers 404, and so does a proxy without a broker.
fn is_hopeless(error: &Error) -> bool {
    let Error::Refused { problem, .. } = error else { return false };
    ["no_heartbeat", "task_closed", "unauthenticated"].contains(&problem.code.as_str())
}

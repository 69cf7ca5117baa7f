//! Says that the command still runs.
//!
//! Invariant: silence on our side ends the task and its credentials, and nothing here ever ends
//! the command.

use std::time::Duration;

use tokio::time::sleep;

use crate::{client::jittered, exec::Session, failure::Failure};

/// Beats in each interval, so that two may be lost.
const BEATS: u32 = 3;

/// Says so until the task has ended. `every` is how long the broker lets us be silent.
pub(super) async fn beat(session: &Session<'_>, every: Duration) {
    let mut warned = false;
    loop {
        sleep(jittered(every / BEATS)).await;
        let Err(error) = session.client.beat(&session.token, &session.task.id).await else {
            warned = false;
            continue;
        };
        let hopeless = !error.is_temporary();
        if hopeless || !warned {
            warned = true;
            session.terminal.warn(&format!(
                "cannot tell the broker that task {} goes on: {}",
                session.task.id,
                Failure::from(error).to_line()
            ));
        }
        if hopeless {
            session.terminal.warn("the command goes on, and its credentials end");
            return;
        }
    }
}

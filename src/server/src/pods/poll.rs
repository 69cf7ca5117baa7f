//! The pods of open tasks, asked for one by one.
//!
//! Invariant: one that cannot be asked for, or whose answer cannot be read, holds up no other,
//! and ends nobody.

use std::time::Duration;

use dayfly_lease::TaskEnd;
use futures_util::future::join_all;

use super::{
    PodId, about,
    follower::{FollowError, Follower},
    pod,
};
use crate::identity::{ApiError, read_any};

const EVERY: Duration = Duration::from_secs(15);
/// Questions at a time.
const AT_A_TIME: usize = 8;
const ANSWER_LEN_MAX: usize = 4 * 1_024 * 1_024;
const WITHIN: Duration = Duration::from_secs(10);

/// Follows, without an end.
pub(super) async fn run(follower: Follower) {
    loop {
        match round(&follower).await {
            Ok(()) => follower.note_followed(true),
            Err(error) => follower.failed(&error),
        }
        follower.sleep(about(EVERY, follower.random())).await;
    }
}

/// Looks at each pod once.
async fn round(follower: &Follower) -> Result<(), FollowError> {
    let open = follower.open().await?;
    let mut failed = None;
    for some in open.chunks(AT_A_TIME) {
        let found = join_all(some.iter().map(|pod| look(follower, pod))).await;
        for (pod, found) in some.iter().zip(found) {
            match found {
                Ok(Some(end)) => follower.tell(pod, end).await?,
                Ok(None) => {}
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn look(follower: &Follower, wanted: &PodId) -> Result<Option<TaskEnd>, FollowError> {
    let PodId { namespace, name, .. } = wanted;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let exchange = async {
        let answer = follower.cluster.api.get(&path).await?;
        let status = answer.status().as_u16();
        if ![200, 404].contains(&status) {
            return Err(ApiError::Status(status));
        }
        Ok((status, read_any(answer, ANSWER_LEN_MAX).await?))
    };
    let answer = tokio::time::timeout(WITHIN, exchange).await;
    let (status, body) = answer.unwrap_or(Err(ApiError::Timeout))?;
    Ok(pod::look(wanted, status, &body)?)
}

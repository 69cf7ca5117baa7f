//! A list, then a watch from there, and again where the watch cannot go on.
//!
//! Invariant: what a list leaves out is gone only for tasks that were open before it was asked
//! for, and only once all of its pages are there. A watch goes on behind the last version that
//! was dealt with, so that nothing is skipped; where it cannot, or nobody knows, a list follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dayfly_lease::TaskEnd;
use url::form_urlencoded;

use super::{
    follower::{FollowError, Follower},
    lines::Lines,
    pause,
    pod::{Event, GONE, Page, PodId},
};
use crate::identity::{ApiError, read};

/// Pods in one page.
const PAGE_LIMIT: u32 = 200;
const PAGE_LEN_MAX: usize = 64 * 1_024 * 1_024;
const PAGE_WITHIN: Duration = Duration::from_secs(30);
/// Pages of one list: more pods than any cluster has.
const PAGES_MAX: u32 = 5_000;
/// An object is no longer than a mebibyte and a half at the API server, written more tersely.
const LINE_LEN_MAX: usize = 4 * 1_024 * 1_024;
/// After so long the API server ends a watch.
const WATCH_FOR: Duration = Duration::from_mins(5);
/// API servers send a bookmark a minute; a connection without any is taken to be dead.
const SILENT_MAX: Duration = Duration::from_secs(90);
/// So often everything is listed all the same: a task may be opened with the token of a pod that
/// was gone before the first list.
const LIST_EVERY: Duration = Duration::from_hours(1);
/// A watch that lasted for so long makes up for what failed before it.
const SETTLED: Duration = Duration::from_secs(10);
/// After so many failures in a row no watch is tried again without a list: an API server that
/// breaks off before it has said that the version is too old would never let one begin.
const WATCH_FAILURES_MAX: u32 = 3;
/// Pods that are known to have been told of.
const TOLD_MAX: usize = 100_000;

/// Follows, without an end.
pub(super) async fn run(follower: Follower) {
    let mut stream = Stream { follower, told: BTreeSet::new() };
    let (mut version, mut listed_at) = (None, Duration::ZERO);
    // A version that is too old says that the API server works; how often it was in a row is
    // counted apart from failures, or each outage would be followed by a further wait.
    let (mut failures, mut expiries) = (0_u32, 0_u32);
    loop {
        let began = stream.follower.running();
        let is_due = began.saturating_sub(listed_at) >= LIST_EVERY;
        let step = match version.take().filter(|_| !is_due) {
            None => stream.list().await.inspect(|_| listed_at = began),
            Some(after) => stream.watch(after).await,
        };
        if stream.follower.running().saturating_sub(began) >= SETTLED {
            (failures, expiries) = (0, 0);
        }
        let in_a_row = match step {
            Ok(reached) => {
                version = Some(reached);
                failures = 0;
                0
            }
            Err((error, reached)) => {
                stream.follower.failed(&error);
                let is_expiry = matches!(error, FollowError::Expired);
                let count = if is_expiry { &mut expiries } else { &mut failures };
                *count = count.saturating_add(1);
                let goes_on = error.lost_nothing() && *count < WATCH_FAILURES_MAX;
                version = reached.filter(|_| goes_on);
                *count
            }
        };
        let random = stream.follower.random();
        stream.follower.sleep(pause(in_a_row, random)).await;
    }
}

/// The version that was reached, or why it does not go on, with the version if there is one.
type Step = Result<String, (FollowError, Option<String>)>;

struct Stream {
    follower: Follower,
    /// The uids of pods whose end was told, so that it is not written at each event and list.
    told: BTreeSet<String>,
}

impl Stream {
    /// Lists everything, and ends what ended; answers with the version of the list.
    async fn list(&mut self) -> Step {
        let listed = self.list_all().await.map_err(|error| (error, None));
        listed.inspect(|_| self.follower.note_followed(true))
    }

    async fn list_all(&mut self) -> Result<String, FollowError> {
        // Before the list is asked for: whatever is open by now and not in it is gone.
        let open = self.follower.open().await?;
        let mut missing: BTreeMap<String, PodId> =
            open.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        // Told or not, there is a task again.
        self.told.retain(|uid| !missing.contains_key(uid));
        let (mut ended, mut next): (Vec<_>, Option<String>) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self.page(next.as_deref()).await?;
            for pod in page.pods {
                let id = pod.id().ok_or(super::pod::Unreadable)?;
                missing.remove(&id.uid);
                let fresh = !self.told.contains(&id.uid);
                ended.extend(pod.end().filter(|_| fresh).map(|end| (id, end)));
            }
            let Some(more) = page.next else {
                for (pod, end) in ended {
                    self.tell(&pod, end).await?;
                }
                for pod in missing.values() {
                    self.tell(pod, TaskEnd::Cancelled).await?;
                }
                return Ok(page.version);
            };
            next = Some(more);
        }
        Err(FollowError::TooMany)
    }

    async fn page(&self, next: Option<&str>) -> Result<Page, FollowError> {
        let path = self.page_path(next);
        let exchange = async {
            let answer = self.follower.cluster.api.get(&path).await?;
            read(answer, PAGE_LEN_MAX).await
        };
        let body = tokio::time::timeout(PAGE_WITHIN, exchange).await;
        let body = body.unwrap_or(Err(ApiError::Timeout)).map_err(expired)?;
        Ok(Page::parse(&body)?)
    }

    fn page_path(&self, next: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &PAGE_LIMIT.to_string());
        if let Some(next) = next {
            query.append_pair("continue", next);
        }
        format!("{}?{}", self.path(), query.finish())
    }

    /// Watches until the API server ends it.
    async fn watch(&mut self, mut after: String) -> Step {
        match self.watch_on(&mut after).await {
            Ok(()) => Ok(after),
            Err(error) => Err((error, Some(after))),
        }
    }

    async fn watch_on(&mut self, after: &mut String) -> Result<(), FollowError> {
        let seconds = WATCH_FOR.as_secs();
        let path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={after}",
            self.path()
        );
        let mut answer = self.follower.cluster.api.get(&path).await?;
        if !answer.status().is_success() {
            return Err(expired(ApiError::Status(answer.status().as_u16())));
        }
        self.follower.note_followed(true);
        let mut lines = Lines::new(LINE_LEN_MAX);
        loop {
            let chunk = tokio::time::timeout(SILENT_MAX, answer.chunk()).await;
            let chunk = chunk.map_err(|_| FollowError::Silent)?.map_err(ApiError::Transport)?;
            // A line without an end comes again, since its version was not reached.
            let Some(chunk) = chunk else { return Ok(()) };
            lines.push(&chunk);
            while let Some(line) = lines.take_line()? {
                *after = self.hear(&line).await?;
            }
        }
    }

    /// Deals with one event; answers with its version.
    async fn hear(&mut self, line: &[u8]) -> Result<String, FollowError> {
        match Event::parse(line)? {
            Event::Bookmark { version } => Ok(version),
            Event::Error(GONE) => Err(FollowError::Expired),
            Event::Error(code) => Err(FollowError::Ended(code)),
            Event::Pod { pod, end, version } => {
                if let Some(end) = end.filter(|_| !self.told.contains(&pod.uid)) {
                    self.tell(&pod, end).await?;
                }
                Ok(version)
            }
        }
    }

    async fn tell(&mut self, pod: &PodId, end: TaskEnd) -> Result<(), FollowError> {
        self.follower.tell(pod, end).await?;
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(pod.uid.clone());
        Ok(())
    }

    fn path(&self) -> String {
        match &self.follower.scope {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
            None => "/api/v1/pods".to_owned(),
        }
    }
}

/// Status 410, of a watch or of a further page, is that its version is too old.
fn expired(error: ApiError) -> FollowError {
    if matches!(error, ApiError::Status(GONE)) {
        return FollowError::Expired;
    }
    FollowError::Api(error)
}

//! Pods as an API server writes them, and what it says of them.
//!
//! Invariant: of a pod only what cannot come back is taken for its end: a final phase, or a
//! deletion after which no container runs any more. What is not a pod, a list of pods or an event
//! of one to the letter ends nobody.

use std::collections::BTreeMap;

use dayfly_lease::{JobKey, TaskEnd};
use serde::{Deserialize, de::IgnoredAny};

use crate::identity::ClaimValue;

/// The longest name of a pod.
const NAME_LEN_MAX: usize = 253;
/// The `code` of an event, and the status of an answer, by which a version is too old.
pub(super) const GONE: u16 = 410;

/// Which pod: what it is called and what tells it from the next one of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodId {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl PodId {
    /// Of these parts, if they are what an API server calls a pod. They then stand in paths and
    /// in keys as they are.
    fn new(namespace: &str, name: &str, uid: &str) -> Option<Self> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.';
        let is_part = |text: &str| {
            (1..=NAME_LEN_MAX).contains(&text.len())
                && text.bytes().all(legal)
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        let own = |text: &str| is_part(text).then(|| text.to_owned());
        Some(Self { namespace: own(namespace)?, name: own(name)?, uid: own(uid)? })
    }

    /// The pod that verified claims are bound to, if they are to one.
    pub(super) fn of_claims(claims: &BTreeMap<String, ClaimValue>) -> Option<Self> {
        let text = |name: &str| match claims.get(name)? {
            ClaimValue::Text(text) => Some(text.as_str()),
            ClaimValue::List(_) => None,
        };
        Self::new(
            text("kubernetes.io.namespace")?,
            text("kubernetes.io.pod.name")?,
            text("kubernetes.io.pod.uid")?,
        )
    }

    /// The key of its tasks. The parts have no `/`.
    pub(super) fn key(&self, issuer: &str) -> Option<JobKey> {
        let Self { namespace, name, uid } = self;
        JobKey::parse(format!("{issuer}|kubernetes/{namespace}/{name}/{uid}"))
    }

    /// The pod whose tasks have this key, if it is one of this issuer's.
    pub(super) fn of_key(issuer: &str, key: &JobKey) -> Option<Self> {
        let rest = key.as_str().strip_prefix(issuer)?.strip_prefix("|kubernetes/")?;
        let mut parts = rest.split('/');
        let pod = Self::new(parts.next()?, parts.next()?, parts.next()?)?;
        parts.next().is_none().then_some(pod)
    }
}

/// A pod as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    container_statuses: Vec<Container>,
    #[serde(default)]
    init_container_statuses: Vec<Container>,
    #[serde(default)]
    ephemeral_container_statuses: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
struct ContainerState {
    running: Option<IgnoredAny>,
    terminated: Option<IgnoredAny>,
}

impl Pod {
    pub(super) fn id(&self) -> Option<PodId> {
        let Metadata { namespace, name, uid, .. } = &self.metadata;
        PodId::new(namespace, name, uid)
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<TaskEnd> {
        match self.status.phase.as_str() {
            "Succeeded" => Some(TaskEnd::Completed),
            "Failed" => Some(TaskEnd::Failed),
            _ => (self.metadata.deletion_timestamp.is_some() && self.has_stopped())
                .then_some(TaskEnd::Cancelled),
        }
    }

    /// How it ended, given that it is gone.
    fn end_when_gone(&self) -> TaskEnd {
        self.end().unwrap_or(TaskEnd::Cancelled)
    }

    /// Whether each container has run and none does. Of one that is deleted, none is started
    /// again.
    fn has_stopped(&self) -> bool {
        let PodStatus {
            container_statuses: containers,
            init_container_statuses: before,
            ephemeral_container_statuses: beside,
            ..
        } = &self.status;
        let runs = |container: &Container| container.state.running.is_some();
        !containers.is_empty()
            && containers.iter().all(|container| container.state.terminated.is_some())
            && !before.iter().chain(beside).any(runs)
    }
}

/// What came is not what an API server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not what was asked for")]
pub(super) struct Unreadable;

impl From<serde_json::Error> for Unreadable {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// A page of all pods.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) pods: Vec<Pod>,
    /// Where to go on, if there are more.
    pub(super) next: Option<String>,
    /// What a watch begins after.
    pub(super) version: String,
}

impl Page {
    /// Of an answer. One that does not say itself that it is a list of pods is none: a list
    /// without any would end all tasks.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct List {
            kind: String,
            api_version: String,
            metadata: ListMetadata,
            items: Option<Vec<Pod>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMetadata {
            resource_version: String,
            #[serde(default, rename = "continue")]
            next: String,
        }
        let List { kind, api_version, metadata, items } = serde_json::from_slice(body)?;
        let ListMetadata { resource_version: version, next } = metadata;
        if kind != "PodList" || api_version != "v1" || !is_version(&version) {
            return Err(Unreadable);
        }
        let next = Some(next).filter(|next| !next.is_empty());
        Ok(Self { pods: items.unwrap_or_default(), next, version })
    }
}

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// All that was up to a version has been told.
    Bookmark {
        /// Which version.
        version: String,
    },
    /// The watch cannot go on, for the reason of this code.
    Error(u16),
    /// A pod changed, began or ended.
    Pod {
        /// Which one.
        pod: PodId,
        /// How it ended, if it has.
        end: Option<TaskEnd>,
        /// After this version a watch goes on.
        version: String,
    },
}

impl Event {
    /// Of one line of a watch.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
        }
        #[derive(Deserialize)]
        struct Of<T> {
            object: T,
        }
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            code: u16,
        }
        let Kind { r#type } = serde_json::from_slice(line)?;
        if r#type == "ERROR" {
            let Of { object: Status { code } } = serde_json::from_slice(line)?;
            return Ok(Self::Error(code));
        }
        let Of::<Pod> { object: pod } = serde_json::from_slice(line)?;
        let version = pod.metadata.resource_version.clone();
        if !is_version(&version) {
            return Err(Unreadable);
        }
        let end = match r#type.as_str() {
            "BOOKMARK" => return Ok(Self::Bookmark { version }),
            "ADDED" | "MODIFIED" => pod.end(),
            "DELETED" => Some(pod.end_when_gone()),
            _ => return Err(Unreadable),
        };
        Ok(Self::Pod { pod: pod.id().ok_or(Unreadable)?, end, version })
    }
}

/// What is said of one pod that was asked for.
pub(super) fn look(
    wanted: &PodId,
    status: u16,
    body: &[u8],
) -> Result<Option<TaskEnd>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        kind: String,
        api_version: String,
    }
    #[derive(Deserialize)]
    struct Missing {
        reason: String,
        details: Details,
    }
    #[derive(Deserialize)]
    struct Details {
        name: String,
        kind: String,
    }
    let Kind { kind, api_version } = serde_json::from_slice(body)?;
    match (status, kind.as_str(), api_version.as_str()) {
        (200, "Pod", "v1") => {
            let pod: Pod = serde_json::from_slice(body)?;
            let id = pod.id().filter(|id| id.namespace == wanted.namespace);
            let id = id.filter(|id| id.name == wanted.name).ok_or(Unreadable)?;
            // Another has its name by now.
            let is_another = id.uid != wanted.uid;
            Ok(if is_another { Some(TaskEnd::Cancelled) } else { pod.end() })
        }
        (404, "Status", "v1") => {
            // Something on the way that knows no such path says 404 as well.
            let Missing { reason, details } = serde_json::from_slice(body)?;
            let is_it = details.kind == "pods" && details.name == wanted.name;
            (reason == "NotFound" && is_it).then_some(Some(TaskEnd::Cancelled)).ok_or(Unreadable)
        }
        _ => Err(Unreadable),
    }
}

/// Whether it can stand in a query as it is. Otherwise nobody may read anything into it.
fn is_version(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

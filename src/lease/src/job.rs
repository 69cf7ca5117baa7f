//! The job that a task runs in, as whoever runs the job calls it.
//!
//! Invariant: the engine reads nothing out of a key, it only compares. Two jobs of two issuers
//! never have one key; whoever makes the keys sees to that.

use std::time::Duration;

use crate::TaskEnd;

/// The name of a job, or of a run of jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey(String);

impl JobKey {
    /// The longest one, in bytes.
    pub const LEN_MAX: usize = 512;

    /// A key; none if `text` is empty, too long, or has what is not printable ASCII.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (!text.is_empty() && text.len() <= Self::LEN_MAX && printable).then_some(Self(text))
    }

    /// The key as it stands in rows.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a task runs, as far as its identity tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobKeys {
    /// The run of jobs: when all of it is over, so is the task.
    pub run: Option<JobKey>,
    /// The job itself.
    pub job: Option<JobKey>,
}

impl JobKeys {
    /// Those that there are, always in the same order.
    pub fn all(&self) -> impl Iterator<Item = &JobKey> {
        self.run.iter().chain(&self.job)
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &JobKey) -> bool {
        self.all().any(|own| own == key)
    }
}

/// A job, or a whole run of jobs, that ended.
#[derive(Clone, Debug)]
pub struct JobEnd {
    /// Which one.
    pub key: JobKey,
    /// How its tasks end.
    pub end: TaskEnd,
    /// Who says so.
    pub actor: String,
    /// For how long the end is remembered, so that no task of it is opened any more.
    pub keep: Duration,
    /// At most so many ends are remembered that `actor` told; its oldest are forgotten first, and
    /// nobody else's.
    pub remembered_max: u32,
    /// At most so many tasks are ended in one transaction. At least one.
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_printable() {
        for text in ["", "a b", "a\n", "a\0", "schlüssel"] {
            assert_eq!(JobKey::parse(text), None, "{text:?}");
        }
        assert_eq!(JobKey::parse("x".repeat(JobKey::LEN_MAX + 1)), None);
        let key = JobKey::parse("x".repeat(JobKey::LEN_MAX)).unwrap();
        assert_eq!(key.as_str().len(), JobKey::LEN_MAX);
    }

    #[test]
    fn a_task_without_keys_is_of_no_job() {
        let key = JobKey::parse("ci|1").unwrap();
        assert!(!JobKeys::default().contains(&key));
        let keys = JobKeys { run: Some(key.clone()), job: None };
        assert!(keys.contains(&key));
    }
}

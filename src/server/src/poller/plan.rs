//! What is to be asked in one round.
//!
//! Invariant: a question is asked once, however many tasks its job has; and a round has a bound.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_lease::{JobKey, TaskId};

use super::place::Place;

/// A question, and whose answer it is.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) place: Place,
    pub(super) keys: BTreeSet<JobKey>,
    /// The first task that it is asked for.
    pub(super) task: TaskId,
}

/// The questions of a round, in the order of their tasks.
#[derive(Debug)]
pub(super) struct Plan {
    questions: Vec<Question>,
    by_place: BTreeMap<Place, usize>,
    max: usize,
}

impl Plan {
    /// Of at most `max` questions.
    pub(super) fn of(max: usize) -> Self {
        Self { questions: Vec::new(), by_place: BTreeMap::new(), max }
    }

    /// Adds what is to be asked for a task; false if it must wait for another round.
    pub(super) fn add(&mut self, place: Place, key: JobKey, task: TaskId) -> bool {
        if let Some(at) = self.by_place.get(&place) {
            if let Some(question) = self.questions.get_mut(*at) {
                question.keys.insert(key);
            }
            return true;
        }
        if self.questions.len() >= self.max {
            return false;
        }
        self.by_place.insert(place.clone(), self.questions.len());
        self.questions.push(Question { place, keys: BTreeSet::from([key]), task });
        true
    }

    pub(super) fn into_questions(self) -> Vec<Question> {
        self.questions
    }
}

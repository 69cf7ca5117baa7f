//! Which mints go to the server next, and which of them together.
//!
//! Invariant: a message has mints of one key alone, so that a lock in its way is in the way of
//! all that are in it. No group's role is in the messages of more than half of the lines, and
//! mints with statements of their own are in that of one line: what is stuck leaves the others a
//! way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::quote::Ident;

/// The most that wait: more come in only where mints are asked for faster than they are made.
pub(crate) const WAITING_MAX: usize = 4_096;
/// The most roles of one message: at 4,096 iterations the server is busy for some 150 ms with
/// these, and all of them wait for the last.
const GROUP_MAX: usize = 32;
/// Iterations that the server hashes in some 300 µs, as long as a commit takes.
const CHEAP: u32 = 256;

/// The locks that a mint needs at the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The roles whose rights it has: from PostgreSQL 16 on a grant locks each of them.
    pub(crate) groups: BTreeSet<Ident>,
    /// It has statements of its own, which run under a lock of ours.
    pub(crate) is_unusual: bool,
}

/// What waits, by its key, and where the lines are.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    lines: usize,
    waiting: BTreeMap<Key, VecDeque<Entry<T>>>,
    /// All that wait.
    count: usize,
    arrivals: u64,
    /// How many lines have a message with this group's role.
    busy: BTreeMap<Ident, usize>,
    /// A line has a mint with statements.
    unusual_is_busy: bool,
}

#[derive(Debug)]
struct Entry<T> {
    arrival: u64,
    iterations: u32,
    item: T,
}

impl<T> Queue<T> {
    /// For so many lines.
    pub(crate) fn new(lines: u32) -> Self {
        Self {
            lines: usize::try_from(lines).unwrap_or(usize::MAX),
            waiting: BTreeMap::new(),
            count: 0,
            arrivals: 0,
            busy: BTreeMap::new(),
            unusual_is_busy: false,
        }
    }

    /// Whether there was room for it. The server repeats its `iterations`.
    pub(crate) fn push(&mut self, key: Key, iterations: u32, item: T) -> bool {
        if self.count >= WAITING_MAX {
            return false;
        }
        self.count += 1;
        self.arrivals += 1;
        let entry = Entry { arrival: self.arrivals, iterations, item };
        self.waiting.entry(key).or_default().push_back(entry);
        true
    }

    /// What one line sends next, until [`Queue::done`]; none where nothing waits that may go.
    pub(crate) fn take(&mut self) -> Option<(Key, Vec<T>)> {
        let key = self.first()?.clone();
        let lines = self.lines_of(&key);
        let entries = self.waiting.get_mut(&key)?;
        let share = entries.len().div_ceil(lines);
        let most = if key.is_unusual { 1 } else { GROUP_MAX };
        let (mut items, mut hashing) = (Vec::new(), 0_u32);
        // Its share, and what costs the server hardly more than the commit that it saves.
        while items.len() < most
            && (items.len() < share || hashing < CHEAP)
            && let Some(entry) = entries.pop_front()
        {
            hashing = hashing.saturating_add(entry.iterations);
            items.push(entry.item);
        }
        if entries.is_empty() {
            self.waiting.remove(&key);
        }
        self.count = self.count.saturating_sub(items.len());
        for group in &key.groups {
            *self.busy.entry(group.clone()).or_default() += 1;
        }
        self.unusual_is_busy |= key.is_unusual;
        Some((key, items))
    }

    /// Whether another line would have something to send.
    pub(crate) fn has_more(&self) -> bool {
        self.first().is_some()
    }

    /// The line that had taken of `key` is free again.
    pub(crate) fn done(&mut self, key: &Key) {
        for group in &key.groups {
            let left = self.busy.get(group).map_or(0, |busy| busy.saturating_sub(1));
            if left == 0 {
                self.busy.remove(group);
            } else {
                self.busy.insert(group.clone(), left);
            }
        }
        if key.is_unusual {
            self.unusual_is_busy = false;
        }
    }

    /// Of the keys that may go, the one whose first has waited longest.
    fn first(&self) -> Option<&Key> {
        let free = self.waiting.iter().filter(|(key, _)| self.may_go(key));
        let first = free.min_by_key(|(_, entries)| entries.front().map(|entry| entry.arrival));
        first.map(|(key, _)| key)
    }

    fn may_go(&self, key: &Key) -> bool {
        let half = self.half();
        let has_line = |group: &Ident| self.busy.get(group).is_none_or(|busy| *busy < half);
        !(key.is_unusual && self.unusual_is_busy) && key.groups.iter().all(has_line)
    }

    /// How many lines share what waits under `key`.
    fn lines_of(&self, key: &Key) -> usize {
        if key.is_unusual {
            1
        } else if key.groups.is_empty() {
            self.lines.max(1)
        } else {
            self.half()
        }
    }

    fn half(&self) -> usize {
        (self.lines / 2).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(groups: &[&str], is_unusual: bool) -> Key {
        let groups = groups.iter().map(|group| Ident::new(group).unwrap()).collect();
        Key { groups, is_unusual }
    }

    /// Costly ones, so that each message has its share and no more.
    fn with(lines: u32, waiting: &[(&Key, usize)]) -> Queue<usize> {
        let mut queue = Queue::new(lines);
        for (key, count) in waiting {
            for item in 0..*count {
                assert!(queue.push((*key).clone(), 4_096, item));
            }
        }
        queue
    }

    fn taken(queue: &mut Queue<usize>) -> Vec<(Key, usize)> {
        std::iter::from_fn(|| queue.take()).map(|(key, items)| (key, items.len())).collect()
    }

    #[test]
    fn a_message_has_mints_of_one_key_alone() {
        let (a, b) = (key(&["a"], false), key(&["b"], false));
        let mut queue = with(2, &[(&a, 3), (&b, 3)]);
        assert_eq!(taken(&mut queue), [(a.clone(), 3), (b, 3)]);
        assert!(!queue.has_more());
        queue.done(&a);
        assert!(queue.busy.keys().eq([&Ident::new("b").unwrap()]));
    }

    #[test]
    fn a_group_has_half_of_the_lines_and_the_others_go_on() {
        let (a, both) = (key(&["a"], false), key(&["a", "b"], false));
        let (b, none) = (key(&["b"], false), key(&[], false));
        let mut queue = with(8, &[(&a, 200), (&both, 10), (&b, 2), (&none, 1)]);
        let first = taken(&mut queue);
        let of = |key: &Key| first.iter().filter(|(taken, _)| taken == key).count();
        assert_eq!((of(&a), of(&both), of(&b), of(&none)), (4, 0, 2, 1));
        assert!(!queue.has_more());
        // What needs both waits for both.
        queue.done(&a);
        assert_eq!(queue.take().unwrap().0, a);
        queue.done(&b);
        assert!(!queue.has_more());
    }

    #[test]
    fn mints_with_statements_have_one_line_and_go_alone() {
        let (one, two) = (key(&["a"], true), key(&[], true));
        let plain = key(&["b"], false);
        let mut queue = with(8, &[(&one, 64), (&two, 64), (&plain, 1)]);
        assert_eq!(taken(&mut queue), [(one.clone(), 1), (plain, 1)]);
        queue.done(&one);
        assert_eq!(queue.take(), Some((one, vec![1])));
    }

    #[test]
    fn who_waits_longest_goes_first_and_one_line_serves_all() {
        let (a, b) = (key(&["a"], false), key(&["b"], true));
        let mut queue = with(1, &[(&b, 1), (&a, 40)]);
        let (first, _) = queue.take().unwrap();
        assert_eq!(first, b);
        queue.done(&first);
        assert_eq!(queue.take().unwrap().1.len(), GROUP_MAX);
        queue.done(&a);
        assert_eq!(queue.take().unwrap().1, (32..40).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let plain = key(&[], false);
        let mut queue = with(4, &[(&plain, WAITING_MAX)]);
        assert!(!queue.push(plain.clone(), 1, 0));
        assert_eq!(queue.take().unwrap().1.len(), GROUP_MAX);
        assert!(queue.push(plain, 1, 0));
        assert_eq!(queue.count, WAITING_MAX - GROUP_MAX + 1);
    }
}

//! Strangers' bodies while they come.
//!
//! Invariant: a new one is always let in, and at most so many are read at a time: the one that
//! has been coming for longest makes room. Who means it sends all of it at once; whoever opens
//! many and sends nothing turns away himself.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// All that are being read.
pub(super) struct Readers {
    most: usize,
    coming: Mutex<Coming>,
}

#[derive(Default)]
struct Coming {
    /// How many have come.
    count: u64,
    /// Those that are still read, in the order in which they came. The end of a sender is the
    /// word to its reader.
    all: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Room to read one body, for as long as it is kept.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    number: u64,
    word: oneshot::Receiver<()>,
}

impl Readers {
    /// Room for `most` at a time; at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most, coming: Mutex::default() }
    }

    /// Room for one more.
    pub(super) fn enter(&self) -> Reader<'_> {
        let (sender, word) = oneshot::channel();
        let mut coming = self.coming();
        if coming.all.len() >= self.most {
            drop(coming.all.pop_first());
        }
        let number = coming.count;
        coming.count += 1;
        coming.all.insert(number, sender);
        Reader { readers: self, number, word }
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader<'_> {
    /// Comes back when this one must make room.
    pub(super) async fn turned_away(&mut self) {
        (&mut self.word).await.ok();
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.coming().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_one_that_has_been_coming_for_longest_makes_room() {
        let readers = Readers::new(2);
        let (mut first, mut second) = (readers.enter(), readers.enter());
        assert!(first.turned_away().now_or_never().is_none(), "there is room for two");
        let mut third = readers.enter();
        assert!(first.turned_away().now_or_never().is_some());
        assert!(second.turned_away().now_or_never().is_none());
        assert!(third.turned_away().now_or_never().is_none());
        drop(third);
        let _fourth = readers.enter();
        assert!(second.turned_away().now_or_never().is_none(), "the third has left");
    }
}

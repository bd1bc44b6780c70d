//! What was written, what each writer had been shown, and what the cluster said; held in the end against what is there.
//!
//! A write is *accounted for* if its value is there, or if a write that is accounted for covers it, which only a write can whose client
//! had been shown that value. An acknowledged write that is not accounted for is lost. A value that is there although an applied write covers it
//! has come back from the dead; only one that was sent more than once may, when it left the window of retries. Coverage is taken from the
//! values that were shown, never from contexts: a context that covers too much would excuse its own losses.

use quorate_client::{Error, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One write or delete.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    key: String,
    delete: bool,
    /// Ids that its client had been shown.
    covers: Vec<String>,
    acknowledged: bool,
    /// Certainly not applied, as the cluster said.
    refused: bool,
    /// Sent once and no more.
    sent_once: bool,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// Where all of it was written.
    pub(crate) bucket: &'static str,
    writes: BTreeMap<String, Write>,
    reads: usize,
    /// What clients were told that was not a success.
    pub(crate) failures: Vec<String>,
    /// The longest that one operation took.
    slowest: Duration,
}

/// The id that a value stands for.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Write {
    pub(crate) fn new(key: &str, delete: bool, covers: Vec<String>) -> Write {
        Write {
            key: key.to_owned(),
            delete,
            covers,
            acknowledged: false,
            refused: false,
            sent_once: false,
        }
    }
}

impl Books {
    /// New ones, of a bucket.
    pub(crate) fn of(bucket: &'static str) -> Books {
        Books {
            bucket,
            ..Books::default()
        }
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.writes.values().filter(|write| write.acknowledged).count()
    }

    /// A read has ended and found these.
    pub(crate) fn read(&mut self, key: &str, shown: &Vec<String>, took: Duration) {
        self.reads += 1;
        self.slowest = self.slowest.max(took);
        for shown in shown {
            if self
                .writes
                .get(shown)
                .is_none_or(|write| write.key != key || write.refused)
            {
                self.failed(format!("{key} held {shown:?}, which nobody wrote there"));
            }
        }
    }

    /// A write is about to be sent.
    pub(crate) fn begin(&mut self, id: &str, write: Write) {
        self.writes.insert(id.to_owned(), write);
    }

    /// It has ended; if well, it is known whether it was sent only once.
    pub(crate) fn end(&mut self, id: &str, result: Result<bool, Error>, took: Duration) {
        self.slowest = self.slowest.max(took);
        let write = self.writes.get_mut(id).expect("it has begun");
        write.acknowledged = result.is_ok();
        match result {
            Ok(sent_once) => write.sent_once = sent_once,
            Err(error) => {
                write.refused = error.outcome() == Outcome::NotApplied;
                let key = write.key.clone();
                self.failed(format!("write {id} to {key}: {error}"));
            }
        }
    }

    /// A client was told something that is not a success.
    pub(crate) fn failed(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Holds what was found, keys and ids, against the books.
    pub(crate) fn check(&self, found: Vec<(String, String)>) {
        println!(
            "{} reads, {} writes acknowledged of {}, {} values there, {} failures, slowest {:?}",
            self.reads,
            self.acknowledged(),
            self.writes.len(),
            found.len(),
            self.failures.len(),
            self.slowest
        );
        for (key, id) in &found {
            let write = self
                .writes
                .get(id)
                .unwrap_or_else(|| panic!("{key} holds {id:?}, which nobody wrote"));
            assert_eq!(&write.key, key, "{id:?} was written elsewhere");
            assert!(!write.refused, "{id:?} was said to be not applied, and is there");
        }
        let there: BTreeSet<String> = found.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(there.len(), found.len(), "something is there twice: {found:?}");
        self.assert_none_lost(&there);
        self.assert_none_back(&there);
    }

    /// Ids that are accounted for, given those that are surely applied.
    fn closure(&self, applied: impl Iterator<Item = String>) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<String> = applied.collect();
        while let Some(id) = ahead.pop() {
            ahead.extend(self.writes[&id].covers.iter().filter(|id| !seen.contains(*id)).cloned());
            seen.insert(id);
        }
        seen
    }

    fn assert_none_lost(&self, there: &BTreeSet<String>) {
        // A delete leaves nothing to be found; one that was not refused may have been applied.
        let deletes = self
            .writes
            .iter()
            .filter(|(_, write)| write.delete && !write.refused)
            .map(|(id, _)| id.clone());
        let accounted = self.closure(there.iter().cloned().chain(deletes));
        let is_lost = |(id, write): &(&String, &Write)| write.acknowledged && !accounted.contains(*id);
        let lost: Vec<_> = self.writes.iter().filter(is_lost).collect();
        assert!(
            lost.is_empty(),
            "{} acknowledged writes are lost: {lost:#?}",
            lost.len()
        );
    }

    fn assert_none_back(&self, there: &BTreeSet<String>) {
        let acknowledged = self
            .writes
            .iter()
            .filter(|(_, write)| write.acknowledged)
            .map(|(id, _)| id.clone());
        let applied = self.closure(there.iter().cloned().chain(acknowledged));
        let covered: BTreeSet<&String> = applied.iter().flat_map(|id| &self.writes[id].covers).collect();
        let is_back = |id: &&String| covered.contains(id) && self.writes[*id].sent_once;
        let back: Vec<&String> = there.iter().filter(is_back).collect();
        assert!(back.is_empty(), "overwritten, and there: {back:?}");
    }
}

//! The contexts that the generator has seen, one for each record.
//!
//! An update without a context leaves a sibling behind; a million of them would measure siblings instead of writes. So
//! each read and each write leaves its context here, and an update sends the newest.
//!
//! Two updates of one record that are under way together both send the same context and leave two siblings, in every
//! store that keeps them; and the context of either write covers only that write. Such a record is *stale*: its next
//! update asks for the whole record in the reply (`return=representation`), whose context covers both. So a hot record
//! holds a few siblings for a moment, as it would in production, and never a pile. Rejected: not choosing a record that
//! is being written, which would cool down exactly the hot records.

/// A context of the target's own form, or none.
pub type Seen<C> = Option<C>;

struct Entry<C> {
    context: Seen<C>,
    /// Grows with each write that begins.
    writes: u32,
    /// Writes under way.
    writing: u16,
    stale: bool,
}

/// What a write begins with; given back at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteTicket<C> {
    /// To send.
    pub context: Seen<C>,
    /// Whether to ask for the whole record.
    pub want_record: bool,
    /// No other write was under way at the beginning.
    alone: bool,
    at: u32,
}

/// What a read begins with; given back at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTicket {
    quiet: bool,
    at: u32,
}

/// The newest context of each record.
pub struct Contexts<C> {
    entries: Vec<Entry<C>>,
}

impl<C: Clone> Contexts<C> {
    /// For records 0 .. n, nothing seen yet.
    pub fn new(n: u32) -> Contexts<C> {
        let empty = || Entry {
            context: None,
            writes: 0,
            writing: 0,
            stale: false,
        };
        Contexts {
            entries: (0..n).map(|_| empty()).collect(),
        }
    }

    /// A write of `record` begins.
    pub fn begin_write(&mut self, record: u32) -> WriteTicket<C> {
        let entry = &mut self.entries[record as usize];
        let alone = entry.writing == 0;
        entry.writing += 1;
        entry.writes = entry.writes.wrapping_add(1);
        entry.stale |= !alone;
        WriteTicket {
            context: entry.context.clone(),
            want_record: entry.stale,
            alone,
            at: entry.writes,
        }
    }

    /// A write ended with the writer's context and, if it was asked for, that of the whole record. No context: its
    /// outcome is unknown, or it was not applied.
    pub fn end_write(&mut self, record: u32, ticket: &WriteTicket<C>, context: Seen<C>, whole: Seen<C>) {
        let entry = &mut self.entries[record as usize];
        entry.writing -= 1;
        let undisturbed = ticket.alone && entry.writes == ticket.at;
        match (context, whole) {
            (Some(_), Some(whole)) => {
                entry.context = Some(whole);
                entry.stale = !undisturbed;
            }
            (Some(context), None) => {
                entry.context = Some(context);
                entry.stale |= !undisturbed;
            }
            (None, _) => entry.stale = true,
        }
    }

    /// A read of `record` begins.
    pub fn begin_read(&self, record: u32) -> ReadTicket {
        let entry = &self.entries[record as usize];
        ReadTicket {
            quiet: entry.writing == 0,
            at: entry.writes,
        }
    }

    /// A read ended with the record's context. It is kept if no write was under way meanwhile: an older context must
    /// not replace that of a newer write.
    pub fn end_read(&mut self, record: u32, ticket: ReadTicket, context: Seen<C>) {
        let entry = &mut self.entries[record as usize];
        if ticket.quiet && entry.writes == ticket.at && context.is_some() {
            entry.context = context;
            entry.stale = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_one_after_another_chain_their_contexts() {
        let mut contexts = Contexts::new(1);
        let first = contexts.begin_write(0);
        assert_eq!((first.context, first.want_record), (None, false));
        contexts.end_write(0, &WriteTicket { context: None, ..first }, Some("a"), None);
        let second = contexts.begin_write(0);
        assert_eq!((second.context, second.want_record), (Some("a"), false));
    }

    #[test]
    fn overlapping_writes_are_resolved_by_the_next_one() {
        let mut contexts = Contexts::new(1);
        let (a, b) = (contexts.begin_write(0), contexts.begin_write(0));
        contexts.end_write(0, &a, Some("a"), None);
        contexts.end_write(0, &b, Some("b"), None);
        let next = contexts.begin_write(0);
        assert!(next.want_record);
        contexts.end_write(0, &next, Some("c"), Some("whole"));
        let after = contexts.begin_write(0);
        assert_eq!((after.context, after.want_record), (Some("whole"), false));
    }

    #[test]
    fn a_read_resolves_too_unless_a_write_was_under_way() {
        let mut contexts = Contexts::new(1);
        let read = contexts.begin_read(0);
        let write = contexts.begin_write(0);
        contexts.end_write(0, &write, None, None);
        contexts.end_read(0, read, Some("old"));
        assert!(
            contexts.begin_write(0).want_record,
            "a write of unknown outcome may have left a sibling"
        );

        let mut contexts = Contexts::new(1);
        let read = contexts.begin_read(0);
        contexts.end_read(0, read, Some("seen"));
        assert_eq!(contexts.begin_write(0).context, Some("seen"));
    }
}

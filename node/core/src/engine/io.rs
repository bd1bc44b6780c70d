//! What goes into the engine and what comes out: its whole contract with the shell.
//!
//! The shell hands in an [`Input`] with the time, then takes [`Effect`]s until there are none and carries them out *in order*. Order
//! matters in one place: a [`Effect::Store`] must be applied before any later [`Effect::Load`] or [`Effect::Scan`] is served, so that a read
//! sees what was written. Nothing else may be assumed by either side; loads and scans may be answered late and in any order.
//!
//! All stores that come out between two inputs are one batch: either all of them are on disk after a crash or none. With them go the
//! leaves of the Merkle trees that they changed, which [`Engine::write_leaves`](super::Engine::write_leaves) hands out when the batch is made up.

use crate::key::Key;
use crate::message::PeerMessage;
use crate::place::{Place, RowName, Shelf};
use crate::request::{Operation, Response};
use bytes::Bytes;
use quorate_ring::{NodeId, NodeIndex, Token};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The shell's name for a request that it handed in. The engine replies to each exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHandle(pub u64);

/// The engine's name for one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// The engine's number for one store. Rises by one with each; the shell applies stores in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTicket(pub u64);

/// Up to which stores something waits to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncWanted {
    /// Now: a client waits, here or behind another coordinator.
    pub now: StoreTicket,
    /// Within some milliseconds: healing waits, and can share the sync of a client's write.
    pub soon: StoreTicket,
}

/// The disk could not say what it holds. This is not "nothing there".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFailed {
    /// It gave an error. What it holds may be readable later.
    Unreadable,
    /// What it holds does not fit its checksum: it is gone, whatever it was. It can be set aside.
    Corrupt,
    /// A file is damaged under it: it is gone, and so are others that nobody can name. It can be written over, and not set aside. A scan fails
    /// there for ever.
    Damaged,
}

/// The engine's name for one scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanId(pub u64);

/// Rows to be read in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Which ones.
    pub rows: ScanRows,
    /// Only those behind this key.
    pub after: Option<Key>,
    /// Rows at most; at least one is returned if there is one.
    pub rows_max: usize,
    /// Bytes of payloads at most, with the row that reaches it.
    pub bytes_max: usize,
}

impl Scan {
    /// Where these rows are: on which shelf, under which tokens, and behind the row of which name.
    pub fn bounds(&self) -> (Shelf, RangeInclusive<u64>, Option<RowName>) {
        let after = self.after.clone();
        match &self.rows {
            ScanRows::Records(tokens) => (Shelf::Record, tokens.clone(), after.map(|key| Place::Record(key).row())),
            ScanRows::Settle(tokens) => (Shelf::Settle, tokens.clone(), after.map(|key| Place::Settle(key).row())),
            &ScanRows::Hints(target, from) => {
                let first = Place::hints_from(target, from);
                let after = after.map_or(first, |key| Place::Hint(target, key).row());
                (Shelf::Hint, after.token..=after.token, Some(after))
            }
        }
    }
}

/// Which rows a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanRows {
    /// The records of a range of tokens, in the order of their tokens.
    Records(RangeInclusive<u64>),
    /// The hints for an owner, of keys with this token or a later one, in the order of their tokens.
    Hints(NodeId, Token),
    /// The keys that wait to be settled, in a range of tokens, in the order of their tokens.
    Settle(RangeInclusive<u64>),
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Keys and payloads, in order; a row that is damaged has its key and why it cannot be read.
    pub rows: Vec<(Key, Result<Bytes, LoadFailed>)>,
    /// Nothing follows. If false, go on behind the last key.
    pub done: bool,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's request, by a local gateway or from a client's connection.
    Request {
        /// To reply to.
        handle: RequestHandle,
        /// What is wanted.
        operation: Operation,
        /// How long the client waits from now. The reply comes a little earlier.
        timeout: Duration,
    },
    /// A message from another node, over the present connection to it.
    Message {
        /// Who sent it; the shell has checked its certificate.
        from: NodeIndex,
        /// What it says.
        message: PeerMessage,
    },
    /// A connection to a node is ready. Nothing sent before is still under way.
    PeerUp(NodeIndex),
    /// The connection to a node is gone, and with it everything that was under way on it.
    PeerDown(NodeIndex),
    /// A load has ended.
    Loaded {
        /// Which.
        load: LoadId,
        /// The stored bytes, `None` if there are none under the key.
        result: Result<Option<Bytes>, LoadFailed>,
    },
    /// A scan has ended.
    Scanned {
        /// Which.
        scan: ScanId,
        /// What it found. An error says that the range cannot be read now, or not at all: nothing of it is known.
        result: Result<ScanPage, LoadFailed>,
    },
    /// Every store up to this one, but for those that were refused, is applied and handed to the system: it survives the end of the process, if
    /// not a power cut. Buckets of relaxed durability wait for this; it may be left out for batches without a record of one.
    Applied(StoreTicket),
    /// Every store up to this one is on disk and survives a power cut, but for those that were refused.
    Durable(StoreTicket),
    /// This store was refused (disk full, write stall) and nothing of it is on disk, nor will be. If the disk failed in any
    /// other way the process has to stop instead. Comes before any [`Input::Durable`] that passes it, and before the answer to any
    /// later load.
    StoreFailed(StoreTicket),
    /// The store has met a damaged file, and takes no writes any more: it refuses them, and nothing becomes durable. What can be read may be
    /// read. The engine asks for [`Effect::Rebuild`] when nothing is lost by that.
    Damaged,
    /// Nothing but the time: a timer is due.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message to a node. If there is no connection the message is dropped; if there is one, it arrives once, or the
    /// connection is lost and [`Input::PeerDown`] says so.
    Send {
        /// To whom.
        to: NodeIndex,
        /// What.
        message: PeerMessage,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        handle: RequestHandle,
        /// Its end.
        response: Response,
    },
    /// Read the bytes stored at a place, and hand in [`Input::Loaded`].
    Load {
        /// To be named in the answer.
        load: LoadId,
        /// Where.
        place: Place,
    },
    /// Read rows in order, and hand in [`Input::Scanned`].
    Scan {
        /// To be named in the answer.
        scan: ScanId,
        /// Which rows.
        what: Scan,
    },
    /// The data in this node's directory must not be used: end the process without answering anything more, set the directory aside, and
    /// start with an empty one. This engine stays silent.
    Rebuild {
        /// Why, in a sentence, for the log.
        reason: String,
    },
    /// Move the bytes of a corrupt record to where nothing reads them but people, in the batch with the next store. Nothing is there afterwards.
    SetAside {
        /// Where they are.
        place: Place,
    },
    /// Write bytes at a place, to be visible to later loads at once, and hand in [`Input::Durable`] when they are synced. A whole
    /// burst of stores may share one write and one sync.
    Store {
        /// Its number.
        ticket: StoreTicket,
        /// Where.
        place: Place,
        /// The bytes; `None` removes what is there.
        payload: Option<Bytes>,
    },
}

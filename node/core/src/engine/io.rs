//! What goes into the engine and what comes out: its whole contract with the shell.
//!
//! The shell hands in an [`Input`] with the time, then takes [`Effect`]s until there are none and carries them out *in order*. Order
//! matters in one place: a [`Effect::Store`] must be applied before any later [`Effect::Load`] is served, so that a read
//! sees what was written. Nothing else may be assumed by either side; loads may be answered late and in any order.

use crate::message::PeerMessage;
use crate::request::{Operation, Response};
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::time::Duration;

use crate::key::Key;

/// The shell's name for a request that it handed in. The engine replies to each exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHandle(pub u64);

/// The engine's name for one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// The engine's number for one store. Rises by one with each; the shell applies stores in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTicket(pub u64);

/// The disk could not say what it holds (an I/O error, a failed checksum). This is not "nothing there".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadFailed;

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
    /// Every store up to this one is on disk and survives a power cut, but for those that were refused.
    Durable(StoreTicket),
    /// This store was refused (disk full, write stall) and nothing of it is on disk, nor will be. If the disk failed in any
    /// other way the process has to stop instead. Comes before any [`Input::Durable`] that passes it, and before the answer to any
    /// later load.
    StoreFailed(StoreTicket),
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
    /// Read the bytes stored under a key, and hand in [`Input::Loaded`].
    Load {
        /// To be named in the answer.
        load: LoadId,
        /// Which key.
        key: Key,
    },
    /// Write bytes under a key, to be visible to later loads at once, and hand in [`Input::Durable`] when they are synced. A whole
    /// burst of stores may share one write and one sync.
    Store {
        /// Its number.
        ticket: StoreTicket,
        /// Which key.
        key: Key,
        /// The bytes.
        payload: Bytes,
    },
}

//! What a request may ask for, and what a write may leave behind.
//!
//! Everything here is checked before anything happens, so each refusal is certain: nothing was applied. Limits on siblings and bytes bind whoever
//! coordinates a write that does not resolve. They are no part of merging: nothing acknowledged is dropped to keep a bound, so several
//! coordinators at once may leave a record over its limits, and the next write has to resolve it.

use super::Engine;
use super::settle::SKEW_MS;
use super::tally::Tally;
use crate::bucket::{BlindWrites, BucketProperties};
use crate::key::Key;
use crate::record::{Content, MalformedRecord, Record, Sibling};
use crate::request::{
    Code, Failure, Outcome, QuorumKind, ReadOptions, ReplicaReport, ReplicaState, Role, WriteOptions,
};
use crate::seen::Seen;
use quorate_ring::NodeIndex;

/// Longest content type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

impl Engine {
    /// Opens a context that a client sent.
    pub(super) fn open(&self, sealed: Option<&[u8]>, key: &Key) -> Result<Option<Seen>, Failure> {
        let Some(sealed) = sealed else { return Ok(None) };
        let max = self.config.limits.context_bytes_max;
        if sealed.len() > max {
            let detail = format!(
                "this node takes contexts of at most {max} bytes, this one has {}",
                sealed.len()
            );
            return Err(Failure::not_applied(Code::BadRequest, detail));
        }
        match self.config.context_keys.open(sealed, key) {
            Ok(seen) => Ok(Some(seen)),
            Err(forged) => Err(Failure::not_applied(Code::ForgedContext, forged.to_string())),
        }
    }

    /// Fails at once, before anything is sent, if too few owners are connected.
    pub(super) fn check_available(&self, what: &str, key: &Key, tally: &Tally) -> Result<(), Failure> {
        let here = |node: NodeIndex| node == self.me || self.peers.is_up(node);
        let owners = self.owners(key);
        if owners.iter().filter(|&&node| here(node)).count() >= usize::from(tally.need()) {
            return Ok(());
        }
        let state = |node| {
            if here(node) {
                ReplicaState::NotAsked
            } else {
                ReplicaState::Down
            }
        };
        let report = |&node| ReplicaReport {
            node,
            role: Role::Primary,
            state: state(node),
            elapsed_us: 0,
        };
        let replicas: Vec<_> = owners.iter().map(report).collect();
        let down: Vec<_> = replicas
            .iter()
            .filter(|r| r.state == ReplicaState::Down)
            .copied()
            .collect();
        let names: Vec<_> = down
            .iter()
            .map(|r| format!("{} is down", self.config.ring.member(r.node).name))
            .collect();
        let up = owners.len() - down.len();
        let detail = format!(
            "{} {what} needed, {up} of the key's {} owners {} up{}{}; nothing was sent",
            tally.need(),
            owners.len(),
            if up == 1 { "is" } else { "are" },
            if names.is_empty() { "" } else { ": " },
            names.join(", "),
        );
        Err(Failure {
            code: Code::Unavailable,
            outcome: Outcome::NotApplied,
            detail,
            replicas,
        })
    }
}

/// The answer to a write while the [gate](super::gate) is closed.
pub(super) fn disk_refuses() -> Failure {
    let detail = "this node's disk takes no writes for now (it is full, or behind with its work); nothing was written, ask another node";
    Failure::not_applied(Code::Unavailable, detail)
}

/// Why a record was not written to.
pub(super) enum Refused {
    /// The stored bytes do not parse.
    Unreadable,
    /// The client has to do something first.
    Because(Failure),
}

impl From<MalformedRecord> for Refused {
    fn from(_: MalformedRecord) -> Refused {
        Refused::Unreadable
    }
}

/// What the write replaces: what its client has seen or, for a blind write, what the bucket's policy says. And what has surely expired, as it replaces
/// deletes: by more than clocks may differ, since a node whose clock is ahead must not replace what others still show.
pub(super) fn covered(
    properties: &BucketProperties,
    seen: Option<&Seen>,
    retry: bool,
    record: &Record,
    wall_ms: u64,
) -> Result<Seen, Refused> {
    let mut covered = match (seen, properties.blind_writes) {
        (Some(seen), _) => seen.clone(),
        (None, BlindWrites::Require) if record.siblings().iter().any(|s| s.is_live(wall_ms)) => {
            let detail =
                "the key holds a value and this bucket takes no blind writes: read it, and send back its context";
            return Err(Refused::Because(Failure::not_applied(Code::ContextRequired, detail)));
        }
        // A retry may come long after its first try, and must not cover what was written in between.
        (None, BlindWrites::Replace) if !retry => Seen::all_of(record),
        (None, _) => Seen::default(),
    };
    let expired = |s: &&Sibling| s.expires_ms > 0 && s.expires_ms.saturating_add(SKEW_MS) <= wall_ms;
    for sibling in record.siblings().iter().filter(expired) {
        covered.context.insert(sibling.dot);
    }
    Ok(covered)
}

/// When a value that is written now expires, in milliseconds since 1970; 0 for never.
pub(super) fn expires_ms(properties: &BucketProperties, content: &Content, wall_ms: u64) -> u64 {
    match properties.ttl_seconds {
        Some(seconds) if !content.is_tombstone() => wall_ms.saturating_add(1000 * u64::from(seconds)),
        _ => 0,
    }
}

/// Refuses a write that leaves too many siblings or too many bytes, unless it leaves no more than there were. One that leaves nothing
/// but itself resolves, and is never refused.
pub(super) fn check_room(
    properties: &BucketProperties,
    record: &Record,
    covered: &Seen,
    content: &Content,
) -> Result<(), Refused> {
    let left: Vec<usize> = record.left_by(covered).map(|s| s.content.bytes()).collect();
    if left.is_empty() {
        return Ok(());
    }
    let refused = |detail| Err(Refused::Because(Failure::not_applied(Code::TooManySiblings, detail)));
    let (before, max) = (record.siblings().len(), usize::from(properties.siblings_max));
    if left.len() + 1 > before.max(max) {
        return refused(format!(
            "the key has {before} siblings and the bucket allows {max}: read it, resolve, and write with its context"
        ));
    }
    let (before, max) = (record.value_bytes(), properties.record_bytes_max as usize);
    let bytes = left.iter().sum::<usize>() + content.bytes();
    if bytes > before.max(max) {
        return refused(format!(
            "the key would hold {bytes} bytes in {} siblings, and the bucket allows {max}: read it, resolve, and write with its context",
            left.len() + 1
        ));
    }
    Ok(())
}

pub(super) fn check_size(properties: &BucketProperties, content: &Content) -> Result<(), Failure> {
    let Content::Value(value) = content else { return Ok(()) };
    let max = properties.value_bytes_max as usize;
    if value.body.len() > max {
        let detail = format!(
            "a value in this bucket has at most {max} bytes, this one has {}",
            value.body.len()
        );
        return Err(Failure::not_applied(Code::TooLarge, detail));
    }
    if value.content_type.len() > CONTENT_TYPE_BYTES_MAX {
        let detail = format!("a content type has at most {CONTENT_TYPE_BYTES_MAX} bytes");
        return Err(Failure::not_applied(Code::BadRequest, detail));
    }
    Ok(())
}

/// How many answers a read waits for.
pub(super) fn read_quorum(properties: &BucketProperties, options: &ReadOptions) -> Result<u8, Failure> {
    refuse_sloppy(options.quorum, options.pr.map(|_| "pr"))?;
    Ok(checked("r", options.r, properties)?
        .or(properties.r)
        .unwrap_or(properties.majority()))
}

/// How many acks a write waits for.
pub(super) fn write_quorum(properties: &BucketProperties, options: &WriteOptions) -> Result<u8, Failure> {
    refuse_sloppy(options.quorum, options.pw.map(|_| "pw"))?;
    let w = checked("w", options.w, properties)?
        .or(properties.w)
        .unwrap_or(properties.majority());
    let dw = checked("dw", options.dw, properties)?.or(if options.w.is_some() { None } else { properties.dw });
    Ok(w.max(dw.unwrap_or(w)))
}

/// Checks one quorum parameter of a request.
fn checked(name: &str, value: Option<u8>, properties: &BucketProperties) -> Result<Option<u8>, Failure> {
    match value {
        Some(got) if got == 0 || got > properties.n => {
            let detail = format!(
                "{name} is {got}; it must be 1 to n, and this bucket's n is {}",
                properties.n
            );
            Err(Failure::not_applied(Code::BadRequest, detail))
        }
        _ => Ok(value),
    }
}

/// Refuses what comes with healing and is not there yet, rather than quietly giving something else.
fn refuse_sloppy(quorum: Option<QuorumKind>, primary: Option<&str>) -> Result<(), Failure> {
    let what = match (quorum, primary) {
        (Some(QuorumKind::Sloppy), _) => "sloppy quorums are",
        (_, Some(name)) => return Err(unsupported(&format!("{name} is"))),
        _ => return Ok(()),
    };
    Err(unsupported(what))
}

fn unsupported(what: &str) -> Failure {
    let detail = format!("{what} not served by this version: every quorum is strict, and counts the key's owners only");
    Failure::not_applied(Code::Unsupported, detail)
}

//! What a request may ask for, and what a write may leave behind.
//!
//! Everything here is checked before anything happens, so each refusal is certain: nothing was applied. Limits on siblings and bytes bind whoever
//! coordinates a write that does not resolve. They are no part of merging: nothing acknowledged is dropped to keep a bound, so several
//! coordinators at once may leave a record over its limits, and the next write has to resolve it.

use super::Engine;
use super::settle::SKEW_MS;
use super::tally::{Quorum, Tally};
use crate::bucket::{BlindWrites, BucketProperties, Durability};
use crate::key::Key;
use crate::record::{Content, MalformedRecord, Record, Sibling};
use crate::request::{
    Code, Failure, Outcome, QuorumKind, ReadOptions, ReplicaReport, ReplicaState, Role, WriteOptions,
};
use crate::seen::Seen;
use crate::time::Instant;
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

    /// Fails at once, before anything is sent, if too few nodes are connected.
    pub(super) fn check_available(&self, what: &str, key: &Key, tally: &Tally) -> Result<(), Failure> {
        let quorum = tally.quorum();
        let owners = self.owners(key);
        let here = |nodes: &[NodeIndex]| nodes.iter().filter(|&&node| self.is_here(node)).count();
        let up = here(owners);
        if up >= usize::from(quorum.need) {
            return Ok(());
        }
        let fallbacks = match quorum.takes_fallbacks() && self.config.limits.hints {
            true => self.fallbacks(key),
            false => &[],
        };
        if up + here(fallbacks) >= usize::from(quorum.need) && up >= usize::from(quorum.primary) {
            return Ok(());
        }
        let state = |node| match self.is_here(node) {
            true => ReplicaState::NotAsked,
            false => ReplicaState::Down,
        };
        let report = |&node, role| ReplicaReport {
            node,
            role,
            state: state(node),
            elapsed_us: 0,
        };
        let replicas: Vec<_> = (owners.iter().map(|node| report(node, Role::Primary)))
            .chain(fallbacks.iter().map(|node| report(node, Role::Fallback)))
            .collect();
        Err(Failure {
            code: Code::Unavailable,
            outcome: Outcome::NotApplied,
            detail: self.say_unavailable(&quorum.in_words(what), owners.len(), &replicas),
            replicas,
        })
    }

    /// `2 acks needed, 1 of the key's 3 owners is up: n2 is down, n3 is down; nothing was sent`.
    fn say_unavailable(&self, needed: &str, owners: usize, replicas: &[ReplicaReport]) -> String {
        let is_up = |r: &&ReplicaReport| r.state != ReplicaState::Down;
        let up = replicas[..owners].iter().filter(is_up).count();
        let fallbacks = replicas[owners..].iter().filter(is_up).count();
        let names: Vec<_> = replicas
            .iter()
            .filter(|r| r.state == ReplicaState::Down)
            .map(|r| format!("{} is down", self.config.ring.member(r.node).name))
            .collect();
        format!(
            "{needed} needed, {up} of the key's {owners} owners {} up{}{}{}; nothing was sent",
            if up == 1 { "is" } else { "are" },
            match fallbacks {
                0 => String::new(),
                1 => " and 1 fallback".into(),
                more => format!(" and {more} fallbacks"),
            },
            if names.is_empty() { "" } else { ": " },
            names.join(", "),
        )
    }

    /// Whether the node is this one, or connected.
    fn is_here(&self, node: NodeIndex) -> bool {
        node == self.me || self.peers.is_up(node)
    }
}

impl Engine {
    /// Whether this node leaves writes to other owners, and takes none if none of those is connected.
    pub(super) fn leaves_writes(&self, now: Instant) -> bool {
        self.gate.is_closed(now) || self.memory.is_unknown(now) || self.start_over.is_leaving()
    }

    /// Why it does.
    pub(super) fn why_writes_are_left(&self, now: Instant) -> &'static str {
        match self.gate.is_closed(now) {
            true => DISK_REFUSES,
            false if self.start_over.is_leaving() => {
                "a file of this node is damaged, and it is about to start over; nothing was written, ask another node"
            }
            false => {
                "this node has just started, and has not met another node yet; nothing was written, ask another node"
            }
        }
    }
}

const DISK_REFUSES: &str = "this node's disk takes no writes for now (it is full, or behind with its work) and no other owner was asked; nothing was written, ask another node";

/// The answer to a write while the [gate](super::gate) is closed.
pub(super) fn disk_refuses() -> Failure {
    Failure::not_applied(Code::Unavailable, DISK_REFUSES)
}

/// The answer of a node that has fallen silent.
pub(super) fn is_silent(reason: &str) -> Failure {
    let detail = format!("{reason}; the directory is being set aside and rebuilt, ask another node");
    Failure::not_applied(Code::Unavailable, detail)
}

/// The answer to a write that this node would have to keep for others, when it keeps as much for others as it takes.
pub(super) fn hints_full() -> Failure {
    let detail = "no owner of the key is connected, and this node keeps as many hints for others as it takes; nothing was written, ask another node";
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

/// What a read waits for.
pub(super) fn read_quorum(properties: &BucketProperties, options: &ReadOptions) -> Result<Quorum, Failure> {
    let kind = options.quorum.unwrap_or(properties.quorum);
    let r = checked("r", options.r, properties)?
        .or(properties.r)
        .unwrap_or(properties.majority());
    let pr = checked("pr", options.pr, properties)?.or(properties.pr);
    Ok(quorum(kind, r, pr, 0))
}

/// What a write waits for. `dw` is more than the durable acks that it asks for: a write that names it waits for the sync everywhere.
pub(super) fn write_quorum(properties: &BucketProperties, options: &WriteOptions) -> Result<Quorum, Failure> {
    let kind = options.quorum.unwrap_or(properties.quorum);
    let w = checked("w", options.w, properties)?
        .or(properties.w)
        .unwrap_or(properties.majority());
    let dw = checked("dw", options.dw, properties)?.or(if options.w.is_some() { None } else { properties.dw });
    let pw = checked("pw", options.pw, properties)?.or(properties.pw);
    let durable = dw.unwrap_or(match properties.durability {
        Durability::Durable => w,
        Durability::Relaxed => 0,
    });
    Ok(quorum(kind, w, pw, durable))
}

fn quorum(kind: QuorumKind, need: u8, primary: Option<u8>, durable: u8) -> Quorum {
    let need = need.max(primary.unwrap_or(0)).max(durable);
    let primary = match kind {
        QuorumKind::Strict => need,
        QuorumKind::Sloppy => primary.unwrap_or(0),
    };
    Quorum {
        kind,
        need,
        primary,
        durable,
    }
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

//! Situations that the simulator must have been in, counted.
//!
//! A checker that passes says nothing about what never happened. So each rare situation that the protocol has an answer for has a
//! probe, and CI fails if one was not reached ("sometimes assertions", as Antithesis calls them).

use std::fmt;

macro_rules! probes {
    ($($name:ident => $text:literal),* $(,)?) => {
        /// A situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Probe { $(#[doc = $text] $name),* }

        impl Probe {
            /// Every one of them.
            pub const ALL: &[Probe] = &[$(Probe::$name),*];

            /// What it is called in reports.
            pub fn text(self) -> &'static str {
                match self { $(Probe::$name => $text),* }
            }
        }
    };
}

probes! {
    Hedged => "hedged read",
    Forwarded => "request forwarded to an owner",
    Siblings => "read returned siblings",
    ReplicasDiffered => "replicas differed in a read",
    DuplicateMetLive => "duplicate request met its live sibling",
    DuplicateMetOverwritten => "retry after overwrite",
    IdReused => "request id reused for another payload, and refused",
    StoreFailedAfterMint => "store failed after mint",
    ReadFailed => "local read failed",
    PutLostConnection => "coordinator lost its connection while the put was pending",
    CrashLostTail => "crash lost unsynced writes",
    LostRecordWritten => "key written again after a crash lost its tail",
    ForgottenRecordWritten => "key coordinated again after its record was forgotten",
    WipedNodeReturned => "node came back with an empty disk",
    PowerCut => "power cut of all nodes",
    CutAtAck => "power cut the moment after an acknowledgement",
    CrashedBetweenEffects => "node crashed between two effects",
    PausedBeyondPatience => "pause outlasted the connections",
    PartitionBeyondPatience => "partition outlasted the connections",
    OneWayPartition => "one-way partition",
    StaleFrame => "frame of an old connection dropped",
    DuplicateFrame => "frame delivered twice",
    LostFrame => "frame lost on a connection that stayed up",
    DiskFull => "disk full",
    Forged => "forged context refused",
    ContextRequired => "write without a context refused",
    TooManySiblings => "write refused for too many siblings",
    TooLarge => "value or record refused for its size",
    BadRequest => "request that makes no sense refused",
    Unavailable => "too few owners up, and nothing sent",
    QuorumNotMet => "too few owners answered",
    MinimumUnmet => "read did not cover the minimum",
    Overloaded => "queue full",
    UnknownOutcome => "unknown outcome",
    NotApplied => "write certainly not applied",
    LateReply => "reply after the client gave up",
    Representation => "write returned the record",
    DeleteAcked => "delete acknowledged",
    BlindReplace => "blind write in a bucket that replaces",
    SharedSync => "one sync for several stores",
    LazySync => "a sync of what nobody waited for",
    RolledBack => "node came back over an older copy of its disk",
    SetAside => "corrupt record set aside",
    HealedRecord => "lost record read again from other owners",
    LeafCorrected => "scrub corrected a leaf",
    HintsFull => "hint store full",
    ExchangeDiffered => "exchange found a difference",
    SettleRefused => "settling refused",
    ReadRepaired => "owner that was behind repaired after a read",
    BreakerOpened => "slow peer routed round",
    Rebuilt => "node read again all that it had lost",
    RollbackRecognised => "older copy of a disk recognised",
    RottenRecord => "record rotted",
    RottenHint => "hint rotted",
    RottenLeaf => "leaf of a Merkle tree rotted",
    Damaged => "file damaged under records",
    StartedOver => "node with a damaged file started over",
    SlowNode => "node answered late",
    StaysAway => "node went away for good",
    Converged => "replicas became equal",
    SyncFailed => "sync failed, and the process stopped",
    ScanFailed => "scan failed",
    Reaped => "record reaped",
    Trimmed => "context trimmed",
    FallbackCoordinated => "fallback coordinated a write",
    HintStored => "hint stored",
    FallbackCounted => "fallback counted in a quorum",
    HintWentHome => "hint removed after its owner had merged it",
    SlowLoad => "load answered after a later store",
    RelaxedAck => "write acknowledged before it was on disk",
    RelaxedLost => "power cut took what was acknowledged before it was on disk",
}

/// Counts of all probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes(Vec<u64>);

impl Default for Probes {
    fn default() -> Probes {
        Probes(vec![0; Probe::ALL.len()])
    }
}

impl Probes {
    pub(crate) fn hit(&mut self, probe: Probe) {
        self.0[probe as usize] += 1;
    }

    pub(crate) fn hit_if(&mut self, reached: bool, probe: Probe) {
        if reached {
            self.hit(probe);
        }
    }

    /// How often it was reached.
    pub fn count(&self, probe: Probe) -> u64 {
        self.0[probe as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Probes) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Those that were never reached.
    pub fn missing(&self) -> Vec<Probe> {
        Probe::ALL.iter().copied().filter(|&p| self.count(p) == 0).collect()
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &probe in Probe::ALL {
            writeln!(f, "{:>10}  {}", self.count(probe), probe.text())?;
        }
        Ok(())
    }
}

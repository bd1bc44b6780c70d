//! What an operation does: the mixes of YCSB (Cooper et al. 2010, section 4, and the constants of its core workloads).
//!
//! An *update* writes a value under a key that exists, with the context that the generator last saw for it; see
//! [`crate::contexts`]. YCSB's stores have no contexts; there, an update just overwrites. A *read-modify-write* reads
//! and writes with the context of that read; its latency is that of both together.

use crate::args::WorkloadKind;
use rand::Rng;
use serde::Serialize;

/// One kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read.
    Get,
    /// Update.
    Put,
    /// Read, then write with the context of the read.
    Rmw,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub const ALL: [Kind; 3] = [Kind::Get, Kind::Put, Kind::Rmw];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Rmw => "rmw",
        }
    }
}

impl WorkloadKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            WorkloadKind::A => "a",
            WorkloadKind::B => "b",
            WorkloadKind::C => "c",
            WorkloadKind::F => "f",
            WorkloadKind::Get => "get",
            WorkloadKind::Put => "put",
        }
    }

    /// What share of the operations are reads, and what the others are.
    fn mix(self) -> (f64, Kind) {
        match self {
            WorkloadKind::A => (0.5, Kind::Put),
            WorkloadKind::B => (0.95, Kind::Put),
            WorkloadKind::C | WorkloadKind::Get => (1.0, Kind::Get),
            WorkloadKind::F => (0.5, Kind::Rmw),
            WorkloadKind::Put => (0.0, Kind::Put),
        }
    }

    /// Whether it has updates, which need contexts to begin with.
    pub fn updates(self) -> bool {
        self.mix().1 == Kind::Put
    }

    /// The kind of the next operation.
    pub fn next(self, rng: &mut impl Rng) -> Kind {
        let (reads, other) = self.mix();
        if rng.random::<f64>() < reads { Kind::Get } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_mixes_are_those_of_ycsb() {
        let table = [
            (WorkloadKind::A, 0.5, Kind::Put),
            (WorkloadKind::B, 0.05, Kind::Put),
            (WorkloadKind::C, 0.0, Kind::Put),
            (WorkloadKind::F, 0.5, Kind::Rmw),
            (WorkloadKind::Get, 1.0, Kind::Get),
            (WorkloadKind::Put, 1.0, Kind::Put),
        ];
        for (workload, share, kind) in table {
            let mut rng = StdRng::seed_from_u64(1);
            let got = (0..10_000).filter(|_| workload.next(&mut rng) == kind).count() as f64 / 10_000.0;
            assert!((got - share).abs() < 0.02, "{workload:?}: {got} of {kind:?}");
        }
    }
}

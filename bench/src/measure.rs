//! What was measured, while it is measured: histograms and counters, by kind of operation.
//!
//! High dynamic range histograms (Tene's HdrHistogram) of nanoseconds with three significant digits, up to ten minutes:
//! their size does not depend on how much is recorded, and percentiles of merged ones are exact to those digits.
//! Rejected: keeping averages, from which no percentile can be had, or samples, which lose the rare slow ones that
//! matter.

use crate::target::Failed;
use crate::workload::Kind;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(600);
/// How many different error messages are kept.
const MESSAGES_MAX: usize = 5;

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanos(LONGEST), 3).expect("the bounds are in order and three digits are allowed")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One kind of operation, or all together.
pub(crate) struct Tally {
    pub(crate) ops: u64,
    /// Failures that changed nothing.
    pub(crate) errors: u64,
    /// Failed writes that may have been applied.
    pub(crate) unknown: u64,
    /// From the intended start.
    pub(crate) latency: Histogram<u64>,
    /// From the actual start.
    pub(crate) service: Histogram<u64>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            ops: 0,
            errors: 0,
            unknown: 0,
            latency: histogram(),
            service: histogram(),
        }
    }

    fn add(&mut self, other: &Tally) {
        self.ops += other.ops;
        self.errors += other.errors;
        self.unknown += other.unknown;
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.service.add(&other.service).expect("both have the same bounds");
    }
}

/// How an operation went.
pub(crate) struct Done {
    pub(crate) kind: Kind,
    /// From the intended start.
    pub(crate) latency: Duration,
    /// From the actual start; `None` if it never started.
    pub(crate) service: Option<Duration>,
    /// Live values that were seen, for what read; or what went wrong.
    pub(crate) result: Result<Option<usize>, Failed>,
}

/// Everything that is recorded during a run.
pub(crate) struct Measure {
    by_kind: [Tally; 3],
    /// How late the generator itself was.
    pub(crate) late: Histogram<u64>,
    /// Operations that ended within the measured time.
    pub(crate) completed: u64,
    /// Operations that were due and never started: the system was too slow to take them.
    pub(crate) unstarted: u64,
    /// Reads that found nothing.
    pub(crate) missing: u64,
    /// Reads that found more than one value, and the most that one found.
    pub(crate) siblings: (u64, usize),
    /// Error messages with their numbers.
    pub(crate) messages: BTreeMap<String, u64>,
}

impl Measure {
    pub(crate) fn new() -> Measure {
        Measure {
            by_kind: [Tally::new(), Tally::new(), Tally::new()],
            late: histogram(),
            completed: 0,
            unstarted: 0,
            missing: 0,
            siblings: (0, 0),
            messages: BTreeMap::new(),
        }
    }

    pub(crate) fn record(&mut self, done: Done) {
        let tally = &mut self.by_kind[done.kind as usize];
        tally.ops += 1;
        tally.latency.saturating_record(nanos(done.latency).max(1));
        if let Some(service) = done.service {
            tally.service.saturating_record(nanos(service).max(1));
        }
        match done.result {
            Ok(Some(0)) => self.missing += 1,
            Ok(Some(values)) if values > 1 => {
                self.siblings = (self.siblings.0 + 1, self.siblings.1.max(values));
            }
            Ok(_) => {}
            Err(failed) => {
                if failed.unknown {
                    tally.unknown += 1;
                } else {
                    tally.errors += 1;
                }
                self.message(failed.reason);
            }
        }
    }

    fn message(&mut self, reason: String) {
        let known = self.messages.len() < MESSAGES_MAX || self.messages.contains_key(&reason);
        *self
            .messages
            .entry(if known { reason } else { "other".to_owned() })
            .or_default() += 1;
    }

    /// The kinds that occurred.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (Kind, &Tally)> {
        Kind::ALL
            .into_iter()
            .map(|kind| (kind, &self.by_kind[kind as usize]))
            .filter(|(_, tally)| tally.ops > 0)
    }

    /// All kinds together.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new();
        self.by_kind.iter().for_each(|tally| total.add(tally));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(kind: Kind, ms: u64, result: Result<Option<usize>, Failed>) -> Done {
        Done {
            kind,
            latency: Duration::from_millis(ms),
            service: None,
            result,
        }
    }

    #[test]
    fn failures_are_in_the_latencies() {
        let mut measure = Measure::new();
        measure.record(done(Kind::Get, 1, Ok(Some(1))));
        let failed = Failed {
            unknown: true,
            reason: "timed out".to_owned(),
        };
        measure.record(done(Kind::Put, 5000, Err(failed)));
        let total = measure.total();
        assert_eq!((total.ops, total.errors, total.unknown), (2, 0, 1));
        assert!(total.latency.max() >= 5_000_000_000 / 1000 * 999);
    }

    #[test]
    fn siblings_and_missing_records_are_counted() {
        let mut measure = Measure::new();
        for values in [0, 1, 2, 5, 3] {
            measure.record(done(Kind::Get, 1, Ok(Some(values))));
        }
        assert_eq!((measure.missing, measure.siblings), (1, (3, 5)));
    }

    #[test]
    fn only_some_messages_are_kept() {
        let mut measure = Measure::new();
        for at in 0..100 {
            let failed = Failed {
                unknown: false,
                reason: format!("error {at}"),
            };
            measure.record(done(Kind::Get, 1, Err(failed)));
        }
        assert_eq!(measure.messages.len(), MESSAGES_MAX + 1);
        assert_eq!(measure.messages["other"], 95);
    }
}

//! `--load`: a few reads and writes a second, so that there is something to watch.

use quorate_client::{Bucket, Client, Error, IntoValue, Outcome};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two operations.
const PERIOD: Duration = Duration::from_millis(50);
/// Between two lines of counts.
const REPORT: Duration = Duration::from_secs(10);
/// Keys that are written over and over.
const KEYS: u64 = 100;

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    reads: u64,
    writes: u64,
    failed: u64,
    unknown: u64,
}

impl Counts {
    fn line(&self) -> String {
        let Counts {
            reads,
            writes,
            failed,
            unknown,
        } = self;
        format!(
            "load: {reads} reads, {writes} writes, {failed} failed, {unknown} of unknown outcome in {} s",
            REPORT.as_secs()
        )
    }

    fn count(&mut self, is_write: bool, result: Result<(), Error>) {
        match result {
            Ok(()) if is_write => self.writes += 1,
            Ok(()) => self.reads += 1,
            Err(error) if error.outcome() == Outcome::Unknown => self.unknown += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// Reads and writes in turn, for ever.
pub(super) async fn run(client: Client) {
    let bucket = client.bucket("load");
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut counts, mut last) = (Counts::default(), Instant::now());
    for turn in 0u64.. {
        ticks.tick().await;
        let is_write = turn % 2 == 0;
        let key = format!("key-{}", turn / 2 % KEYS);
        counts.count(is_write, operate(&bucket, &key, is_write.then_some(turn)).await);
        if last.elapsed() >= REPORT {
            super::say(&counts.line());
            (counts, last) = (Counts::default(), Instant::now());
        }
    }
}

/// Writes `turn` under the key, replacing what is there; or reads.
async fn operate(bucket: &Bucket, key: &str, turn: Option<u64>) -> Result<(), Error> {
    match turn {
        Some(turn) => bucket
            .update(key, |_| format!("turn {turn}").into_value())
            .await
            .map(drop),
        None => bucket.get(key).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_in_one_line() {
        let mut counts = Counts::default();
        counts.count(true, Ok(()));
        counts.count(false, Ok(()));
        counts.count(false, Err(Error::Unreachable { node: "n1".into() }));
        counts.count(true, Err(Error::WrongAnswer { node: "n1".into() }));
        assert_eq!(
            counts.line(),
            "load: 1 reads, 1 writes, 1 failed, 1 of unknown outcome in 10 s"
        );
    }
}

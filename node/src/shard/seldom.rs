//! Log lines that would come with every write: at most one a second, and it says how many it stands for.
//!
//! A disk that takes no writes refuses each burst, and the log may lie on that same disk. Rejected: a line when it begins and one when it ends; nobody
//! would see from the log that it goes on.

use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// Something happened `count` times. If it is time for a line: how often since the last one.
    pub(super) fn happened(&mut self, now: Instant, count: u64) -> Option<u64> {
        self.count += count;
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < EVERY)
        {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_a_second_at_most_and_nothing_goes_uncounted() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let lines = [0, 1, 500, 999, 1000, 1001, 2500].map(|ms| seldom.happened(at(ms), 2));
        assert_eq!(lines, [Some(2), None, None, None, Some(8), None, Some(4)]);
    }
}

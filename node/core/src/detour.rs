//! Going round rows that are damaged: a little way first, and twice as far each time, since nobody can say where the damage ends.
//!
//! Rows of hints lie in the order of their keys' tokens, so the way is measured in tokens. Rejected: a row at a time. A key that cannot be read has no
//! name, and so nothing that comes behind it.

/// Of all tokens what is passed over first: a millionth.
const FIRST: u64 = 1 << 44;

/// How far the last rows that could not be read were gone round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detour(u64);

impl Detour {
    /// Rows could be read again: the next detour is a short one.
    pub fn end(&mut self) {
        self.0 = 0;
    }

    /// The token to read on from, if what lies behind `at` cannot be read. `None` if that is behind all tokens.
    pub fn beyond(&mut self, at: u64) -> Option<u64> {
        self.0 = self.0.saturating_mul(2).max(FIRST);
        at.checked_add(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_detour_is_twice_as_far_until_something_can_be_read() {
        let mut detour = Detour::default();
        assert_eq!(detour.beyond(0), Some(FIRST));
        assert_eq!(detour.beyond(FIRST), Some(3 * FIRST));
        assert_eq!(detour.beyond(u64::MAX - FIRST), None);
        detour.end();
        assert_eq!(detour.beyond(7), Some(7 + FIRST));
    }
}

//! Planted bugs: faults compiled in on purpose, one at a time, to prove that the simulator finds them.
//!
//! Without the feature `planted`, `is` is the constant `false` and every planted branch is compiled away. The simulator
//! selects a bug by its number for the current thread; `docs/simulator.md` lists them with the promise that each breaks.

#[cfg(feature = "planted")]
mod chosen {
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<u8> = const { Cell::new(0) };
    }

    /// Turns on bug `number` for this thread; 0 turns all off.
    pub fn choose(number: u8) {
        BUG.set(number);
    }

    /// Whether bug `number` is on.
    pub(crate) fn is(number: u8) -> bool {
        BUG.get() == number
    }
}

#[cfg(feature = "planted")]
pub use chosen::choose;
#[cfg(feature = "planted")]
pub(crate) use chosen::is;

/// Whether bug `number` is on: never, in this build.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_number: u8) -> bool {
    false
}

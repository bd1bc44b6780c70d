//! A timer for the schedule that is better than a millisecond.
//!
//! tokio's own timers have a resolution of one millisecond, which at 10,000 operations a second would start ten at a
//! time, up to a millisecond late: more than a read takes. The kernel's timerfd fires within some microseconds and is
//! one more file descriptor for the event loop. Rejected: spinning, which takes the CPU from the servers on the same
//! machine; a pacing thread, which costs a thread switch for each operation.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::fs::File;
use std::io;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// Fires once each time it is set.
pub(crate) struct Timer {
    /// Not a pipe, but like one: becomes readable, and a read takes away what made it so.
    file: Receiver,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Timer> {
        let file = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Timer {
            file: Receiver::from_file_unchecked(File::from(file))?,
        })
    }

    /// Waits for so long, to within some microseconds.
    pub(crate) async fn wait(&self, time: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A value of zero would disarm it.
        let time = time.max(Duration::from_nanos(1));
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec {
            tv_sec: seconds,
            tv_nsec: time.subsec_nanos().into(),
        };
        timerfd_settime(
            &self.file,
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: zero,
                it_value: value,
            },
        )?;
        loop {
            self.file.readable().await?;
            match self.file.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn it_never_fires_early() {
        let timer = Timer::new().unwrap();
        for us in [0, 1, 300, 2000] {
            let (time, start) = (Duration::from_micros(us), Instant::now());
            timer.wait(time).await.unwrap();
            assert!(start.elapsed() >= time, "{us}");
        }
    }
}

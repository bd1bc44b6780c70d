//! The records, and what the generator knows of them.
//!
//! Loading reads each record and then writes it with the context of that read: so a second load replaces what the first
//! one left, and does not put siblings beside it. Without loading, a workload with updates still has to know the
//! contexts, and reads each record once. Records that are known to be new need no reading.

use crate::args::Where;
use crate::contexts::Contexts;
use crate::keys::Keys;
use crate::run::BenchError;
use crate::target::{Failed, Target, Write};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Values are slices of one random text, at different places, so making one costs nothing.
const OFFSETS: usize = 4096;

/// The state that loading and running share.
pub(crate) struct Dataset<T: Target> {
    pub(crate) target: T,
    pub(crate) contexts: RefCell<Contexts<T::Context>>,
    pub(crate) rng: RefCell<StdRng>,
    text: Bytes,
    value_size: usize,
    records: u32,
    slots: u16,
}

/// What to do with each record before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepare {
    /// Read each, and write it with what was read.
    Load,
    /// Write each without reading: nothing is there.
    LoadFresh,
    /// Read each.
    Learn,
}

impl<T: Target> Dataset<T> {
    pub(crate) fn new(target: T, at: &Where) -> Rc<Dataset<T>> {
        let mut rng = StdRng::seed_from_u64(at.seed);
        let mut text = vec![0; at.value_size as usize + OFFSETS];
        rng.fill_bytes(&mut text);
        Rc::new(Dataset {
            target,
            contexts: RefCell::new(Contexts::new(at.records)),
            rng: RefCell::new(rng),
            text: text.into(),
            value_size: at.value_size as usize,
            records: at.records,
            slots: at.in_flight,
        })
    }

    /// A value, with next to no repetition in it.
    pub(crate) fn value(&self) -> Bytes {
        let start = self.rng.borrow_mut().random_range(0..OFFSETS);
        self.text.slice(start..start + self.value_size)
    }

    /// Loads the records or learns their contexts, all slots at work. Ends at the first failure.
    pub(crate) async fn prepare(self: &Rc<Self>, what: Prepare) -> Result<Duration, BenchError> {
        let (next, start) = (Rc::new(Cell::new(0)), Instant::now());
        let mut slots: JoinSet<Result<(), BenchError>> = JoinSet::new();
        for slot in 0..usize::from(self.slots) {
            let (dataset, next) = (self.clone(), next.clone());
            slots.spawn_local(async move {
                while next.get() < dataset.records {
                    let record = next.replace(next.get() + 1);
                    dataset
                        .prepare_one(slot, record, what)
                        .await
                        .map_err(|failed| BenchError::Prepare {
                            record: Keys::name(record),
                            reason: failed.reason,
                        })?;
                }
                Ok(())
            });
        }
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let terminal = std::io::stderr().is_terminal();
        loop {
            tokio::select! {
                ended = slots.join_next() => match ended {
                    None => break,
                    Some(Ok(result)) => result?,
                    Some(Err(error)) => return Err(BenchError::Internal { reason: error.to_string() }),
                },
                _ = tick.tick(), if terminal => eprint!("\r{what:?}: {} of {} records ", next.get(), self.records),
            }
        }
        if terminal {
            eprintln!(
                "\r{what:?}: {} records in {:.1} s ",
                self.records,
                start.elapsed().as_secs_f64()
            );
        }
        Ok(start.elapsed())
    }

    async fn prepare_one(&self, slot: usize, record: u32, what: Prepare) -> Result<(), Failed> {
        let name = Keys::name(record);
        if what != Prepare::LoadFresh {
            let ticket = self.contexts.borrow().begin_read(record);
            let found = self.target.get(slot, &name).await?;
            self.contexts.borrow_mut().end_read(record, ticket, found.context);
        }
        if what == Prepare::Learn {
            return Ok(());
        }
        let ticket = self.contexts.borrow_mut().begin_write(record);
        let write = Write {
            value: self.value(),
            context: ticket.context.clone(),
            want_record: false,
        };
        let wrote = self.target.put(slot, &name, write).await?;
        self.contexts
            .borrow_mut()
            .end_write(record, &ticket, wrote.context, None);
        Ok(())
    }
}

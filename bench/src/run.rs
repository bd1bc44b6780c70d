//! One run, from the command line to the report.
//!
//! As many tasks as operations may be in flight, each with a slot of its own. In an open loop a dispatcher sleeps until
//! the next operation is due and wakes a free slot; if none is free, the operation stays due, and the next slot to
//! become free takes it, late: the wait is in its latency. In a closed loop each slot starts its next operation when
//! the last one has ended.
//!
//! Operations that were meant to start during the warm-up are not recorded. At the end nothing is cut off: what was due
//! is still started and waited for, within [`DRAIN`]; what could not even be started by then is recorded as failed,
//! with the time that it waited.

use crate::args::{Args, Run, TargetKind, Verb, Where};
use crate::cpu;
use crate::dataset::{Dataset, Prepare};
use crate::keys::{Keys, Zipfian};
use crate::measure::{Done, Measure, nanos};
use crate::report::{Cost, Report};
use crate::schedule::Schedule;
use crate::target::http::Http;
use crate::target::native::Native;
use crate::target::{Failed, Target, Write};
use crate::timer::Timer;
use crate::workload::Kind;
use quorate_client::{Client, ClientConfig, ConfigError, ConnectError};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

/// How long after the end operations that are due may still be started.
const DRAIN: Duration = Duration::from_secs(10);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options make no sense together.
    #[error("{reason}")]
    Usage {
        /// What to change.
        reason: String,
    },
    /// The client configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A record could not be loaded or read before the run.
    #[error("preparing record {record}: {reason}")]
    Prepare {
        /// Its name.
        record: String,
        /// What happened.
        reason: String,
    },
    /// Not one operation ended.
    #[error("no operation ended within the measured time: {reason}")]
    Nothing {
        /// The commonest failure.
        reason: String,
    },
    /// The operating system refused something, or a task of the generator failed.
    #[error("{reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

fn internal(error: impl ToString) -> BenchError {
    BenchError::Internal {
        reason: error.to_string(),
    }
}

/// Does what the command line says; returns the report.
pub fn execute(args: &Args) -> Result<String, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(internal)?;
    LocalSet::new().block_on(&runtime, async {
        let at = match &args.verb {
            Verb::Run(run) => &run.at,
            Verb::Load(load) => &load.at,
        };
        let timeout = Duration::from_millis(at.timeout_ms.into());
        match at.target {
            TargetKind::Quorate => {
                let client = Client::connect(native_config(at)?).await?;
                client.wait_connected(Duration::from_secs(1)).await;
                verb(
                    args,
                    Native {
                        client,
                        bucket: at.bucket.clone(),
                        timeout,
                    },
                )
                .await
            }
            TargetKind::Http => {
                let endpoints = http_endpoints(at)?;
                verb(args, Http::new(&endpoints, &at.bucket, at.in_flight, timeout)).await
            }
        }
    })
}

fn native_config(at: &Where) -> Result<ClientConfig, BenchError> {
    let mut config = ClientConfig::from_env_or(at.config.as_deref())?;
    if !at.endpoints.is_empty() {
        config.endpoints.clone_from(&at.endpoints);
    }
    Ok(config)
}

fn http_endpoints(at: &Where) -> Result<Vec<String>, BenchError> {
    if !at.endpoints.is_empty() {
        return Ok(at.endpoints.clone());
    }
    let usage = |reason: &str| BenchError::Usage {
        reason: reason.to_owned(),
    };
    if at.config.is_none() {
        return Err(usage(
            "--target http needs --endpoints A,B,C, or --config FILE with http = [\"http://…\"]",
        ));
    }
    let endpoints = ClientConfig::from_env_or(at.config.as_deref())?.http;
    if endpoints.is_empty() {
        Err(usage("the configuration names no HTTP endpoint; give --endpoints"))
    } else {
        Ok(endpoints)
    }
}

async fn verb<T: Target>(args: &Args, target: T) -> Result<String, BenchError> {
    match &args.verb {
        Verb::Load(load) => {
            let what = match load.fresh {
                true => Prepare::LoadFresh,
                false => Prepare::Load,
            };
            let took = Dataset::new(target, &load.at).prepare(what).await?;
            Ok(format!(
                "{} records loaded in {:.1} s",
                load.at.records,
                took.as_secs_f64()
            ))
        }
        Verb::Run(run) => {
            let dataset = Dataset::new(target, &run.at);
            if !run.no_load {
                dataset.prepare(Prepare::Load).await?;
            } else if run.workload.updates() {
                dataset.prepare(Prepare::Learn).await?;
            }
            let report = measure(run, dataset).await?;
            Ok(report.print(run.output))
        }
    }
}

/// What the slots share during a run. Times are since `origin`.
struct Running<T: Target> {
    dataset: Rc<Dataset<T>>,
    options: Run,
    keys: Keys,
    rng: RefCell<StdRng>,
    measure: RefCell<Measure>,
    /// `None` in a closed loop.
    schedule: RefCell<Option<Schedule>>,
    due: Notify,
    origin: Instant,
    warm: Duration,
    end: Duration,
}

async fn measure<T: Target>(run: &Run, dataset: Rc<Dataset<T>>) -> Result<Report, BenchError> {
    let pids = server_pids(run);
    let warm = Duration::from_secs_f64(run.warmup);
    let end = warm + Duration::from_secs_f64(run.duration);
    let n = run.at.records;
    let keys = match run.keys {
        crate::args::KeysKind::Uniform => Keys::Uniform { n },
        crate::args::KeysKind::Zipfian => Keys::Zipfian(Zipfian::new(n)),
    };
    let running = Rc::new(Running {
        dataset,
        options: run.clone(),
        keys,
        rng: RefCell::new(StdRng::seed_from_u64(run.at.seed)),
        measure: RefCell::new(Measure::new()),
        schedule: RefCell::new(run.rate.map(|rate| Schedule::new(rate, end))),
        due: Notify::new(),
        origin: Instant::now(),
        warm,
        end,
    });
    let mut tasks = JoinSet::new();
    for slot in 0..usize::from(run.at.in_flight) {
        tasks.spawn_local(running.clone().serve(slot));
    }
    if run.rate.is_some() {
        tasks.spawn_local(running.clone().dispatch(Timer::new().map_err(internal)?));
    }
    running.watch(warm).await;
    let before = cpu::Sample::take(&pids);
    running.watch(end).await;
    let after = cpu::Sample::take(&pids);
    let completed = running.measure.borrow().completed;
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(internal)?;
    }
    running.give_up_on_the_rest();
    let (client, servers) = after.per_operation(&before, completed);
    running.report(Cost { client, servers })
}

fn server_pids(run: &Run) -> Vec<u32> {
    match &run.at.config {
        _ if !run.pids.is_empty() => run.pids.clone(),
        Some(config) => cpu::pids_beside(config),
        None => Vec::new(),
    }
}

impl<T: Target> Running<T> {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Waits until `until`, and says once a second how it goes, if somebody is watching.
    async fn watch(&self, until: Duration) {
        let terminal = std::io::stderr().is_terminal();
        let mut last = self.measure.borrow().completed;
        while self.now() < until {
            let wait = until.saturating_sub(self.now()).min(Duration::from_secs(1));
            tokio::time::sleep(wait).await;
            let measure = self.measure.borrow();
            if terminal && self.now() > self.warm {
                let p99 = measure.total().latency.value_at_quantile(0.99) as f64 / 1e6;
                let failed: u64 = measure.messages.values().sum();
                let rate = (measure.completed - last) as f64 / wait.as_secs_f64();
                let at = (self.now() - self.warm).as_secs_f64();
                eprint!("\r{at:4.0} s  {rate:9.0} ops/s  p99 {p99:8.2} ms  {failed} failed ");
            }
            last = measure.completed;
        }
        if terminal && until == self.end {
            eprintln!();
        }
    }

    /// Announces operations as they become due, and notes how late it is in doing so.
    async fn dispatch(self: Rc<Self>, timer: Timer) {
        let mut announced = 0;
        loop {
            let now = self.now();
            let wait = {
                let schedule = self.schedule.borrow();
                let Some(schedule) = schedule.as_ref() else { return };
                let mut measure = self.measure.borrow_mut();
                for at in announced..schedule.due(now) {
                    measure
                        .late
                        .saturating_record(nanos(now - schedule.intended(at)).max(1));
                    self.due.notify_one();
                }
                announced = schedule.due(now);
                schedule
                    .start_of(announced)
                    .map(|start| start.saturating_sub(self.now()))
            };
            match wait {
                None => return,
                // Only Linux' timer can fail, and only for lack of memory; a coarse timer is better than none then.
                Some(wait) => {
                    if timer.wait(wait).await.is_err() {
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    /// One slot: operation after operation.
    async fn serve(self: Rc<Self>, slot: usize) {
        loop {
            let now = self.now();
            let intended = match self.schedule.borrow_mut().as_mut() {
                None if now >= self.end => return,
                None => Some(now),
                Some(_) if now > self.end + DRAIN => return,
                Some(schedule) => {
                    let taken = schedule.take(now);
                    if schedule.next().is_none() {
                        // Nothing is left to wait for: let the other slots see that too.
                        self.due.notify_waiters();
                        if taken.is_none() {
                            return;
                        }
                    }
                    taken
                }
            };
            match intended {
                Some(intended) => self.operation(slot, intended).await,
                None => self.due.notified().await,
            }
        }
    }

    fn draw(&self) -> (Kind, u32) {
        let rng = &mut *self.rng.borrow_mut();
        (self.options.workload.next(rng), self.keys.next(rng))
    }

    async fn operation(&self, slot: usize, intended: Duration) {
        let (kind, record) = self.draw();
        let name = Keys::name(record);
        let start = self.now();
        let result = match kind {
            Kind::Get => self.get(slot, record, &name).await.map(Some),
            Kind::Put => self.put(slot, record, &name).await,
            Kind::Rmw => match self.get(slot, record, &name).await {
                Ok(values) => self.put(slot, record, &name).await.map(|_| Some(values)),
                Err(failed) => Err(failed),
            },
        };
        let end = self.now();
        let mut measure = self.measure.borrow_mut();
        if end >= self.warm && end < self.end {
            measure.completed += 1;
        }
        if intended >= self.warm {
            measure.record(Done {
                kind,
                latency: end - intended,
                service: Some(end - start),
                result,
            });
        }
    }

    async fn get(&self, slot: usize, record: u32, name: &str) -> Result<usize, Failed> {
        let ticket = self.dataset.contexts.borrow().begin_read(record);
        let found = self.dataset.target.get(slot, name).await?;
        self.dataset
            .contexts
            .borrow_mut()
            .end_read(record, ticket, found.context);
        Ok(found.values)
    }

    async fn put(&self, slot: usize, record: u32, name: &str) -> Result<Option<usize>, Failed> {
        let ticket = self.dataset.contexts.borrow_mut().begin_write(record);
        let write = Write {
            value: self.dataset.value(),
            context: ticket.context.clone(),
            want_record: ticket.want_record,
        };
        let result = self.dataset.target.put(slot, name, write).await;
        let mut contexts = self.dataset.contexts.borrow_mut();
        match result {
            Ok(wrote) => {
                let values = wrote.record.as_ref().map(|record| record.values);
                contexts.end_write(
                    record,
                    &ticket,
                    wrote.context,
                    wrote.record.and_then(|record| record.context),
                );
                Ok(values)
            }
            Err(failed) => {
                contexts.end_write(record, &ticket, None, None);
                Err(failed)
            }
        }
    }

    /// What was due and could not be started in time failed, and took as long as it waited.
    fn give_up_on_the_rest(&self) {
        let now = self.now();
        while let Some(intended) = self
            .schedule
            .borrow_mut()
            .as_mut()
            .and_then(|schedule| schedule.take(now))
        {
            let (kind, _) = self.draw();
            let failed = Failed {
                unknown: false,
                reason: "never started: no slot became free".to_owned(),
            };
            let mut measure = self.measure.borrow_mut();
            measure.unstarted += 1;
            measure.record(Done {
                kind,
                latency: now - intended,
                service: None,
                result: Err(failed),
            });
        }
    }

    fn report(&self, cost: Cost) -> Result<Report, BenchError> {
        let measure = self.measure.borrow();
        if measure.completed == 0 {
            let commonest = measure.messages.iter().max_by_key(|(_, count)| **count);
            let reason = commonest.map_or_else(|| "nothing came back".to_owned(), |(message, _)| message.clone());
            return Err(BenchError::Nothing { reason });
        }
        Ok(Report::new(&self.options, &measure, self.end - self.warm, cost))
    }
}

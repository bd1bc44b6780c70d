//! Random histories of one key: clients write, write again and read at four replicas; records travel late, out of order or
//! never; replicas hand over, forget and restart.
//!
//! What is checked is what records have to give whatever the engine does with them: no dot stands for two writes, no
//! replica's context shrinks while it remembers, no acknowledged write is lost that nobody was shown, none comes back that
//! was overwritten by somebody who was, no write is there twice, and merging is associative, commutative and idempotent. Each seed is one history; a failure names its seed.

use quorate_core::dot::{Actor, Dot};
use quorate_core::record::{Content, Known, Record, Sibling};
use quorate_core::request::{RequestId, Value};
use quorate_core::seen::{Seen, WRITE_IDS_MAX, WriteId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeSet;

const SEEDS: u64 = 20_000;

/// Whether the client of this write gives it an id that says on its first try that it may be sent again. A history has fewer of them than are
/// remembered.
fn says_so_at_once(number: u64) -> bool {
    number % 2 == 1
}

const REPLICAS: usize = 4;
const CLIENTS: usize = 3;

/// A write: its number, which is also its request id and its value, and the basis that it was sent with.
type Name = (u64, u64);

/// What a client has been shown: what it carries, and the writes that came with it.
#[derive(Clone, Default)]
struct Shown {
    seen: Seen,
    writes: BTreeSet<Name>,
}

/// A write as its client would send it again.
#[derive(Clone)]
struct Write {
    number: u64,
    shown: Shown,
    /// Whether its id says that it is, or may be, sent more than once.
    again: bool,
}

impl Write {
    fn name(&self) -> Name {
        (self.number, self.shown.seen.basis())
    }

    fn id(&self) -> WriteId {
        let (unique, basis) = self.name();
        let payload = self.content().payload_hash();
        let once = RequestId::new(2 * unique, unique);
        let request = if self.again { once.again() } else { once };
        WriteId {
            request,
            payload,
            basis,
        }
    }

    fn content(&self) -> Content {
        Content::Value(Value {
            content_type: String::new(),
            body: self.number.to_be_bytes().to_vec().into(),
        })
    }
}

/// One replica: its record, and the actor of its unbroken memory of it.
#[derive(Default)]
struct Replica {
    record: Record,
    memory: Option<Actor>,
    life: u64,
    epoch: u64,
}

impl Replica {
    /// Takes a write, as a coordinator does. Returns what the writer has seen then, and the dot if one was minted; nothing if the
    /// request was used for another write.
    fn coordinate(&mut self, write: &Write) -> Option<(Seen, Option<Dot>)> {
        let (id, content) = (write.id(), write.content());
        let mut context = write.shown.seen.context.clone();
        let mut minted = None;
        match self.record.known(&id) {
            Known::Live(dot) => context.insert(dot),
            Known::Overwritten => {}
            Known::Reused => return None,
            Known::New => {
                let dot = self.mint();
                let (request, basis) = (id.request, id.basis);
                let sibling = Sibling {
                    dot,
                    request,
                    basis,
                    content,
                    expires_ms: 0,
                };
                self.record.write(&write.shown.seen, sibling);
                context.insert(dot);
                minted = Some(dot);
            }
        }
        let writes = [id].into_iter().collect();
        Some((Seen { context, writes }, minted))
    }

    fn mint(&mut self) -> Dot {
        let (life, epoch) = (self.life, &mut self.epoch);
        let actor = *self.memory.get_or_insert_with(|| {
            *epoch += 1;
            Actor { life, epoch: *epoch }
        });
        let counter = self.record.context().reach(actor) + 1;
        Dot { actor, counter }
    }

    fn merge(&mut self, other: &Record) {
        let before = self.record.context().clone();
        self.record.merge(other);
        self.record.settle_retries();
        assert!(self.record.context().covers(&before), "a context shrank");
        assert!(
            self.record.context().covers(other.context()),
            "a context was not taken in"
        );
    }
}

/// One history, so far.
struct History {
    rng: ChaCha8Rng,
    replicas: Vec<Replica>,
    clients: Vec<Shown>,
    /// Records on their way.
    wire: Vec<(usize, Record)>,
    /// Writes whose clients may send them again.
    retries: Vec<Write>,
    acknowledged: BTreeSet<Name>,
    /// Writes that were sent more than once.
    retried: BTreeSet<Name>,
    /// Writes that some writer had been shown when it wrote.
    overwritten: BTreeSet<Name>,
    dots: BTreeSet<Dot>,
}

impl History {
    fn live(seed: u64) -> History {
        let replica = |life| Replica {
            life,
            ..Replica::default()
        };
        let mut history = History {
            rng: ChaCha8Rng::seed_from_u64(seed),
            replicas: (0..REPLICAS as u64).map(replica).collect(),
            clients: vec![Shown::default(); CLIENTS],
            wire: Vec::new(),
            retries: Vec::new(),
            acknowledged: BTreeSet::new(),
            retried: BTreeSet::new(),
            overwritten: BTreeSet::new(),
            dots: BTreeSet::new(),
        };
        for number in 0..5 + history.below(56) {
            match history.below(100) {
                0..30 => history.write(number),
                30..45 => history.retry(),
                45..60 => history.read(),
                60..85 => history.deliver(),
                85..93 => history.exchange(),
                _ => history.forget(),
            }
        }
        history
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn any_replica(&mut self) -> usize {
        self.below(REPLICAS as u64) as usize
    }

    fn write(&mut self, number: u64) {
        let client = self.below(CLIENTS as u64) as usize;
        let shown = match self.below(7) {
            0 => Shown::default(),
            _ => self.clients[client].clone(),
        };
        let again = says_so_at_once(number);
        let write = Write { number, shown, again };
        let seen = self.coordinate(&write).expect("its number is new");
        let mut writes = write.shown.writes.clone();
        writes.insert(write.name());
        self.clients[client] = Shown { seen, writes };
        if self.below(5) < 2 {
            self.retries.push(write);
        }
    }

    fn retry(&mut self) {
        if self.retries.is_empty() {
            return;
        }
        let at = self.below(self.retries.len() as u64) as usize;
        let mut write = self.retries[at].clone();
        if self.below(3) == 0 {
            // It should send all as it was, but may well send an old id with what it has seen since, its own write included.
            write.shown = self.clients[self.rng.next_u64() as usize % CLIENTS].clone();
        }
        write.again = true;
        self.retried.insert(write.name());
        self.coordinate(&write);
    }

    /// A write at any replica. If it is acknowledged, its record leaves for most of the others.
    fn coordinate(&mut self, write: &Write) -> Option<Seen> {
        let at = self.any_replica();
        let (seen, minted) = self.replicas[at].coordinate(write)?;
        if let Some(dot) = minted {
            assert!(self.dots.insert(dot), "{dot:?} was minted twice");
            self.overwritten.extend(&write.shown.writes);
        }
        self.acknowledged.insert(write.name());
        for to in (0..REPLICAS).filter(|&to| to != at) {
            if self.below(5) > 0 {
                self.wire.push((to, self.replicas[at].record.clone()));
            }
        }
        Some(seen)
    }

    fn read(&mut self) {
        let (client, at) = (self.below(CLIENTS as u64) as usize, self.any_replica());
        let record = &self.replicas[at].record;
        self.clients[client] = Shown {
            seen: Seen::all_of(record),
            writes: live(record).into_iter().collect(),
        };
    }

    fn deliver(&mut self) {
        if !self.wire.is_empty() {
            let at = self.below(self.wire.len() as u64) as usize;
            let (to, record) = self.wire.swap_remove(at);
            // Through the bytes, as on a real wire.
            let record = Record::decode(&record.encode()).expect("its own bytes are a record");
            self.replicas[to].merge(&record);
        }
    }

    fn exchange(&mut self) {
        let (from, to) = (self.any_replica(), self.any_replica());
        let record = self.replicas[from].record.clone();
        self.replicas[to].merge(&record);
    }

    /// A replica hands its record over and forgets it; perhaps its process starts anew, too.
    fn forget(&mut self) {
        let at = self.any_replica();
        let record = std::mem::take(&mut self.replicas[at].record);
        self.replicas[(at + 1) % REPLICAS].merge(&record);
        self.replicas[at].memory = None;
        if self.below(2) == 0 {
            self.replicas[at].life += REPLICAS as u64;
            self.replicas[at].epoch = 0;
        }
    }

    fn check(&self) {
        let records: Vec<&Record> = self.replicas.iter().map(|replica| &replica.record).collect();
        for (a, b, c) in [(0, 1, 2), (1, 2, 3), (3, 0, 1), (2, 3, 0)] {
            check_laws(records[a], records[b], records[c]);
        }
        let mut last = records
            .iter()
            .fold(Record::default(), |all, record| merged(&all, record));
        last.settle_retries();
        let live = live(&last);
        let distinct: BTreeSet<Name> = live.iter().copied().collect();
        assert_eq!(live.len(), distinct.len(), "a write is there twice: {live:?}");
        let lost: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|name| !distinct.contains(name) && !self.overwritten.contains(name))
            .collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        // Dots are exact for ever; the names that also tell retries apart are kept for the newest overwritten writes, and for longer if they say that
        // there may be retries.
        let in_window = self.overwritten.len() <= WRITE_IDS_MAX;
        let back: Vec<_> = live
            .iter()
            .filter(|name| self.overwritten.contains(name))
            .filter(|name| in_window || says_so_at_once(name.0) || !self.retried.contains(name))
            .collect();
        assert!(back.is_empty(), "overwritten, and there again: {back:?}");
    }
}

fn check_laws(a: &Record, b: &Record, c: &Record) {
    assert_eq!(
        merged(&merged(a, b), c).encode(),
        merged(a, &merged(b, c)).encode(),
        "merge is not associative"
    );
    assert_eq!(merged(a, b).encode(), merged(b, a).encode(), "merge is not commutative");
    assert_eq!(merged(a, a).encode(), a.encode(), "merge is not idempotent");
}

fn merged(a: &Record, b: &Record) -> Record {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

/// The writes that are live in a record.
fn live(record: &Record) -> Vec<Name> {
    record.siblings().iter().map(|s| (s.request.unique, s.basis)).collect()
}

#[test]
fn no_history_loses_doubles_or_confuses_a_write() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| History::live(seed).check());
        assert!(outcome.is_ok(), "seed {seed}; what broke is printed above");
    }
}

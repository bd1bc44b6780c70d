//! Clients: what they do, and what they remember.
//!
//! They behave as the client library does, and as people do who do not use it. For each key a client keeps the contexts it was given, each
//! with the values that it had been shown with it. A write with such a context covers those values, and nothing else that the
//! context may happen to cover.

use super::World;
use super::log::unseal;
use super::requests::{NewWrite, What};
use crate::history::{Minimum, Need, WriteIndex};
use crate::plan::{Action, ContextChoice, Step};
use crate::probes::Probe;
use bytes::Bytes;
use quorate_core::bucket::BlindWrites;
use quorate_core::dot::{Actor, Dot};
use quorate_core::request::{Operation, ReadOptions, WriteOptions};
use quorate_core::seen::WriteIds;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A context, and what its client had been shown with it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) sealed: Bytes,
    pub(super) shown: Rc<[WriteIndex]>,
}

/// A client.
#[derive(Default)]
pub(super) struct Client {
    pub(super) contexts: BTreeMap<usize, Vec<Held>>,
    pub(super) writes: Vec<WriteIndex>,
    /// Requests that it waits for.
    pub(super) waits_for: u32,
}

/// A context that was chosen.
pub(super) struct Chosen {
    pub(super) sealed: Option<Bytes>,
    pub(super) shown: Rc<[WriteIndex]>,
    pub(super) forged: bool,
}

impl Chosen {
    fn none() -> Chosen {
        Chosen {
            sealed: None,
            shown: Rc::new([]),
            forged: false,
        }
    }

    fn forged(sealed: Bytes) -> Chosen {
        Chosen {
            sealed: Some(sealed),
            shown: Rc::new([]),
            forged: true,
        }
    }

    fn exact(held: &Held) -> Chosen {
        Chosen {
            sealed: Some(held.sealed.clone()),
            shown: held.shown.clone(),
            forged: false,
        }
    }
}

impl World {
    pub(super) fn step(&mut self, index: usize) {
        if !self.healed {
            let plan = self.plan.clone();
            self.act(&plan.steps[index]);
        }
    }

    /// Begins an operation. Returns its handle, unless there is nothing to do it with.
    pub(super) fn act(&mut self, step: &Step) -> Option<u64> {
        let client = usize::from(step.client);
        let is_again = matches!(step.action, Action::Again { .. });
        // A session does one thing after the other, and each once.
        if self.is_session(client) && (is_again || self.clients[client].waits_for > 0) {
            return None;
        }
        Some(match step.action {
            Action::Get {
                key,
                r,
                pr,
                quorum,
                minimum,
            } => self.get(step, key.into(), ReadOptions { r, pr, quorum }, minimum),
            Action::Put {
                key,
                context,
                w,
                pw,
                dw,
                quorum,
                bytes,
                representation,
            } => {
                let key = usize::from(key);
                let chosen = self.choose(client, key, context);
                let options = WriteOptions {
                    w,
                    dw,
                    pw,
                    quorum,
                    return_representation: representation,
                };
                self.put(step, key, chosen, bytes, options)
            }
            Action::Delete {
                key,
                context,
                w,
                pw,
                quorum,
            } => {
                let options = WriteOptions {
                    w,
                    pw,
                    quorum,
                    ..WriteOptions::default()
                };
                self.delete(step, key.into(), context, options)
            }
            Action::Again { back, retry } => {
                let index = self.earlier_write(client, back)?;
                self.send_write(step, index, retry)
            }
            Action::ReuseId { back } => {
                let index = self.earlier_write(client, back)?;
                self.reuse_id(step, index)
            }
            Action::Unsupported { key, which } => self.ask_unsupported(step, key.into(), which),
        })
    }

    pub(super) fn is_session(&self, client: usize) -> bool {
        self.plan.options.clients[client].is_session && !self.healed
    }

    fn get(&mut self, step: &Step, key: usize, options: ReadOptions, minimum: bool) -> u64 {
        let contexts = &self.clients[usize::from(step.client)].contexts;
        let held = contexts
            .get(&key)
            .and_then(|held| held.last())
            .filter(|_| minimum)
            .cloned();
        let properties = self.plan.options.properties(key);
        let must_fail = options.r.is_some_and(|r| r > properties.n);
        let need = Need::of_read(properties, &options);
        let operation = Operation::Get {
            key: self.key_names[key].clone(),
            minimum: held.as_ref().map(|h| h.sealed.clone()),
            options,
        };
        self.ask(
            step,
            key,
            operation,
            What::Read {
                need,
                minimum: held.map(|h| Minimum {
                    context: unseal(&h.sealed).unwrap_or_default().context,
                    shown: h.shown,
                }),
            },
            must_fail,
        )
    }

    fn put(&mut self, step: &Step, key: usize, chosen: Chosen, bytes: u32, options: WriteOptions) -> u64 {
        let properties = self.plan.options.properties(key);
        let must_fail = chosen.forged || bytes > properties.value_bytes_max;
        let replaces = chosen.sealed.is_none() && properties.blind_writes == BlindWrites::Replace;
        self.probes.hit_if(replaces, Probe::BlindReplace);
        let client = usize::from(step.client);
        let (value, request) = (Some(self.new_value(bytes)), self.new_request(client));
        let index = self.begin_write(NewWrite {
            client,
            key,
            chosen,
            value,
            request,
            options,
            must_fail,
        });
        self.send_write(step, index, false)
    }

    fn delete(&mut self, step: &Step, key: usize, context: ContextChoice, options: WriteOptions) -> u64 {
        let client = usize::from(step.client);
        let chosen = self.choose(client, key, context);
        let must_fail = chosen.forged || chosen.sealed.is_none();
        let request = self.new_request(client);
        let index = self.begin_write(NewWrite {
            client,
            key,
            chosen,
            value: None,
            request,
            options,
            must_fail,
        });
        self.send_write(step, index, false)
    }

    /// Another value under the id of an earlier write.
    fn reuse_id(&mut self, step: &Step, earlier: WriteIndex) -> u64 {
        let client = usize::from(step.client);
        let (key, request) = (self.history.writes[earlier].key, self.history.writes[earlier].request);
        let chosen = self.choose(client, key, ContextChoice::Last);
        let (value, options) = (Some(self.new_value(24)), WriteOptions::default());
        let index = self.begin_write(NewWrite {
            client,
            key,
            chosen,
            value,
            request,
            options,
            must_fail: false,
        });
        self.send_write(step, index, false)
    }

    fn ask_unsupported(&mut self, step: &Step, key: usize, which: u8) -> u64 {
        let client = usize::from(step.client);
        let too_many = Some(self.plan.options.properties(key).n + 1);
        if which.is_multiple_of(2) {
            let operation = Operation::Get {
                key: self.key_names[key].clone(),
                minimum: None,
                options: ReadOptions {
                    pr: too_many,
                    ..ReadOptions::default()
                },
            };
            let what = What::Read {
                need: Need::default(),
                minimum: None,
            };
            return self.ask(step, key, operation, what, true);
        }
        let options = WriteOptions {
            pw: too_many,
            ..WriteOptions::default()
        };
        let (value, request, chosen) = (Some(self.new_value(16)), self.new_request(client), Chosen::none());
        let index = self.begin_write(NewWrite {
            client,
            key,
            chosen,
            value,
            request,
            options,
            must_fail: true,
        });
        self.send_write(step, index, false)
    }

    /// The context that a plan means, as far as the client holds one.
    fn choose(&self, client: usize, key: usize, choice: ContextChoice) -> Chosen {
        let contexts = &self.clients[client].contexts;
        let held = contexts.get(&key).map_or(&[][..], Vec::as_slice);
        match choice {
            ContextChoice::None => Chosen::none(),
            ContextChoice::Last => held.last().map_or_else(Chosen::none, Chosen::exact),
            ContextChoice::Stale(back) => {
                let at = held.len().saturating_sub(1 + usize::from(back));
                held.get(at).map_or_else(Chosen::none, Chosen::exact)
            }
            ContextChoice::OtherKey => {
                let other = contexts
                    .iter()
                    .filter(|(other, _)| **other != key)
                    .find_map(|(_, held)| held.last());
                other.map_or_else(Chosen::none, |held| Chosen::forged(held.sealed.clone()))
            }
            ContextChoice::Flipped(bit) => {
                let mut sealed = held.last().map_or_else(|| vec![1; 24], |held| held.sealed.to_vec());
                let bit = usize::from(bit) % (sealed.len() * 8);
                sealed[bit / 8] ^= 1 << (bit % 8);
                Chosen::forged(sealed.into())
            }
            ContextChoice::Invented => Chosen::forged(invent(held.last().map(|held| &held.sealed[..]))),
            ContextChoice::Oversized => Chosen::forged(vec![1; self.limits.context_bytes_max + 1].into()),
        }
    }

    /// A write that the client sent before: of those whose end it does not know, if there are any.
    fn earlier_write(&self, client: usize, back: u8) -> Option<WriteIndex> {
        let writes = &self.clients[client].writes;
        let unknown = |&&index: &&WriteIndex| self.history.writes[index].acked_at().is_none();
        let open: Vec<WriteIndex> = writes.iter().filter(unknown).copied().collect();
        let from = if open.is_empty() { writes } else { &open };
        from.iter().rev().nth(usize::from(back) % from.len().max(1)).copied()
    }
}

/// A context in the right format with counters that nobody issued: of the actors in a real one, or of one made up.
fn invent(real: Option<&[u8]>) -> Bytes {
    const NEVER: u64 = 1 << 40;
    let real = real.and_then(unseal).unwrap_or_default();
    let mut actors: Vec<(Actor, u64)> = real.context.vector().iter().map(|&(actor, _)| (actor, NEVER)).collect();
    if actors.is_empty() {
        actors.push((Actor { life: 1, epoch: 1 }, NEVER));
    }
    let lone: Vec<Dot> = Vec::new();
    let bytes = postcard::to_extend(&((actors, lone), WriteIds::default()), vec![1, 1]);
    [bytes.expect("a vector grows, and contexts serialize"), vec![0; 16]]
        .concat()
        .into()
}

//! Contexts: exact sets of dots.
//!
//! A context says which writes of one key somebody has seen. It is a version vector (actor → every dot up to this counter)
//! plus *lone dots* that the vector does not reach yet; when it does, they are absorbed. So the set is exact: it never covers a
//! dot that was not put in. Everything else (which siblings survive a merge, what a client's write replaces) rests
//! on that exactness.
//!
//! The two parts are sorted vectors, and the form is canonical: equal sets have equal bytes, so replicas can compare hashes.
//! Rejected: a plain version vector, which cannot say "dot 3 but not dot 2", and so gave Riak sibling explosion
//! or silent loss, depending on the side it was rounded to.
//!
//! Preguiça, Baquero, Almeida, Fonte, Gonçalves: *Dotted Version Vectors* (2010), section 4; Almeida et al.: *Scalable and Accurate
//! Causality Tracking for Eventually Consistent Stores* (2014), section 3.

use crate::dot::{Actor, Dot};
use crate::planted;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// An exact set of dots. Invariant: `vector` is sorted with one positive entry an actor; `lone` is sorted, and holds no dot that the
/// vector covers or could absorb.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Context {
    vector: Vec<(Actor, u64)>,
    lone: Vec<Dot>,
}

impl Context {
    /// The empty set.
    pub fn new() -> Context {
        Context::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.lone.is_empty()
    }

    /// Whether `dot` is in the set.
    pub fn contains(&self, dot: Dot) -> bool {
        let reach = self.reach(dot.actor) + u64::from(planted::is(6));
        dot.counter <= reach || self.lone.binary_search(&dot).is_ok()
    }

    /// How far the vector reaches for `actor`: every dot from 1 up to this counter is in the set. Zero for an unknown actor.
    pub fn reach(&self, actor: Actor) -> u64 {
        match self.vector.binary_search_by_key(&actor, |&(a, _)| a) {
            Ok(at) => self.vector[at].1,
            Err(_) => 0,
        }
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        if dot.counter <= self.reach(dot.actor) {
            return;
        }
        if let Err(at) = self.lone.binary_search(&dot) {
            self.lone.insert(at, dot);
        }
        self.absorb();
    }

    /// Adds every dot of `other`: set union.
    pub fn join(&mut self, other: &Context) {
        for &(actor, counter) in &other.vector {
            match self.vector.binary_search_by_key(&actor, |&(a, _)| a) {
                Ok(at) => self.vector[at].1 = self.vector[at].1.max(counter),
                Err(at) => self.vector.insert(at, (actor, counter)),
            }
        }
        for &dot in &other.lone {
            if let Err(at) = self.lone.binary_search(&dot) {
                self.lone.insert(at, dot);
            }
        }
        self.absorb();
    }

    /// Whether every dot of `other` is in `self`.
    pub fn covers(&self, other: &Context) -> bool {
        other
            .vector
            .iter()
            .all(|&(actor, counter)| self.covers_run(actor, counter))
            && other.lone.iter().all(|&dot| self.contains(dot))
    }

    /// Whether dots 1 to `counter` of `actor` are all in the set.
    fn covers_run(&self, actor: Actor, counter: u64) -> bool {
        // Lone dots never touch the vector's end (they would be absorbed), so a run is covered by the vector or not at all.
        counter <= self.reach(actor)
    }

    /// How many actors are named.
    pub fn actors(&self) -> usize {
        let mut lone: Vec<Actor> = self.lone.iter().map(|dot| dot.actor).collect();
        lone.dedup();
        self.vector.len() + lone.iter().filter(|&&actor| self.reach(actor) == 0).count()
    }

    /// The lives of the actors that are named, in order.
    pub fn lives(&self) -> Vec<u64> {
        let vector = self.vector.iter().map(|(actor, _)| actor.life);
        let mut lives: Vec<u64> = vector.chain(self.lone.iter().map(|dot| dot.actor.life)).collect();
        lives.sort_unstable();
        lives.dedup();
        lives
    }

    /// Forgets all dots of these lives.
    pub(crate) fn retire(&mut self, lives: &[u64]) {
        self.vector.retain(|(actor, _)| !lives.contains(&actor.life));
        self.lone.retain(|dot| !lives.contains(&dot.actor.life));
    }

    /// The vector's entries, by actor.
    pub fn vector(&self) -> &[(Actor, u64)] {
        &self.vector
    }

    /// The dots that the vector does not reach, in order.
    pub fn lone(&self) -> &[Dot] {
        &self.lone
    }

    /// Moves lone dots that the vector reaches or touches into it. They are sorted, so one pass meets runs in order.
    fn absorb(&mut self) {
        let vector = &mut self.vector;
        self.lone
            .retain(|dot| match vector.binary_search_by_key(&dot.actor, |&(a, _)| a) {
                Ok(at) if dot.counter == vector[at].1 + 1 => {
                    vector[at].1 = dot.counter;
                    false
                }
                Ok(at) => dot.counter > vector[at].1,
                Err(at) if dot.counter == 1 => {
                    vector.insert(at, (dot.actor, 1));
                    false
                }
                Err(_) => true,
            });
    }

    /// Whether the invariant holds; what came from outside is checked before it is believed.
    fn is_canonical(&self) -> bool {
        self.vector.is_sorted_by(|a, b| a.0 < b.0)
            && self
                .vector
                .iter()
                .all(|&(_, counter)| counter > 0 && counter < u64::MAX)
            && self.lone.is_sorted_by(|a, b| a < b)
            && self
                .lone
                .iter()
                .all(|dot| dot.counter < u64::MAX && dot.counter > self.reach(dot.actor) + 1)
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Context {
        let mut context = Context::new();
        dots.into_iter().for_each(|dot| context.insert(dot));
        context
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Context, D::Error> {
        #[derive(Deserialize)]
        struct Unchecked {
            vector: Vec<(Actor, u64)>,
            lone: Vec<Dot>,
        }
        let Unchecked { vector, lone } = Unchecked::deserialize(deserializer)?;
        let context = Context { vector, lone };
        if context.is_canonical() {
            Ok(context)
        } else {
            Err(D::Error::custom("the context is not in canonical form"))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Dots of few actors and counters, so that sets overlap and runs close.
    pub(crate) fn any_dot() -> impl Strategy<Value = Dot> {
        (0u64..3, 1u64..3, 1u64..8).prop_map(|(life, epoch, counter)| Dot {
            actor: Actor { life, epoch },
            counter,
        })
    }

    fn any_set() -> impl Strategy<Value = BTreeSet<Dot>> {
        prop::collection::btree_set(any_dot(), 0..24)
    }

    fn context(set: &BTreeSet<Dot>) -> Context {
        set.iter().rev().copied().collect()
    }

    proptest! {
        #[test]
        fn a_context_is_exactly_the_set_of_dots_put_in(set in any_set(), probe in any_dot()) {
            let context = context(&set);
            prop_assert!(context.is_canonical());
            prop_assert_eq!(context.contains(probe), set.contains(&probe));
        }

        #[test]
        fn join_is_union_and_covers_is_superset(a in any_set(), b in any_set()) {
            let mut joined = context(&a);
            joined.join(&context(&b));
            prop_assert_eq!(&joined, &context(&a.union(&b).copied().collect()));
            prop_assert_eq!(context(&a).covers(&context(&b)), a.is_superset(&b));
        }

        #[test]
        fn equal_sets_have_equal_bytes_and_survive_the_wire(set in any_set()) {
            let forward: Context = set.iter().copied().collect();
            prop_assert_eq!(&forward, &context(&set));
            let bytes = postcard::to_stdvec(&forward).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Context>(&bytes).unwrap(), forward);
        }
    }

    #[test]
    fn a_context_out_of_form_is_refused() {
        let actor = Actor { life: 1, epoch: 1 };
        for (vector, lone) in [
            (vec![(actor, 2)], vec![Dot { actor, counter: 3 }]),
            (vec![(actor, 0)], vec![]),
            (vec![(actor, 1), (actor, 2)], vec![]),
            (vec![(actor, u64::MAX)], vec![]),
        ] {
            let bytes = postcard::to_stdvec(&Context { vector, lone }).unwrap();
            assert!(postcard::from_bytes::<Context>(&bytes).is_err());
        }
    }
}

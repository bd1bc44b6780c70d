//! Sealed contexts: what clients carry between a read and a write.
//!
//! A context that a client made up would silently delete every later write (a counter of 2^63 covers all of them), and one taken from
//! another key would cover nothing it should. So the cluster hands contexts out sealed: opaque bytes, bound to their key, with
//! a keyed hash that only the cluster can make. Layout, format 1:
//!
//! ```text
//! 1 ‖ key id u8 ‖ postcard(seen) ‖ first 16 bytes of BLAKE3-keyed(1 ‖ key id ‖ len(key) u16 be ‖ key ‖ postcard(seen))
//! ```
//!
//! What is sealed is a [`Seen`]: the exact dots, and the names of the newest writes behind them. The hash authenticates and does not
//! hide: there are random ids, counters and hashes in it, nothing secret. Several keys can be live, so that they
//! can be rotated: the first seals, all open. Rejected: server-side sessions, which would make reads leave state behind.

use crate::key::Key;
use crate::planted;
use crate::seen::Seen;
use bytes::Bytes;
use std::fmt;

const FORMAT: u8 = 1;
const TAG_BYTES: usize = 16;

/// A secret that seals contexts, shared by all nodes of a cluster.
#[derive(Clone)]
pub struct ContextKey {
    /// Which of the cluster's keys it is.
    pub id: u8,
    /// The secret.
    pub secret: [u8; 32],
}

/// Never prints the secret.
impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKey({})", self.id)
    }
}

/// The cluster's live context keys. Invariant: at least one.
#[derive(Clone, Debug)]
pub struct ContextKeys {
    sealing: ContextKey,
    also_opening: Vec<ContextKey>,
}

/// A context that this cluster did not issue for this key (or whose key has been retired). The write that came with it did
/// nothing; the caller has to read the key and use the context that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the context was not issued by this cluster for this key; read the key again and send back the context that comes with it, unchanged"
)]
pub struct Forged;

impl ContextKeys {
    /// Seals with `sealing`; opens what any of them sealed.
    pub fn new(sealing: ContextKey, also_opening: Vec<ContextKey>) -> ContextKeys {
        ContextKeys { sealing, also_opening }
    }

    /// A hash that tells whether two nodes hold the same keys, and nothing about the keys.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("quorate 1 fingerprint of context keys");
        for key in std::iter::once(&self.sealing).chain(&self.also_opening) {
            hasher.update(&[key.id]).update(&key.secret);
        }
        *hasher.finalize().as_bytes()
    }

    /// Seals what a client has seen of `key`.
    pub fn seal(&self, seen: &Seen, key: &Key) -> Bytes {
        let head = vec![FORMAT, self.sealing.id];
        let mut sealed = postcard::to_extend(seen, head).expect("a vector grows, and contexts serialize");
        let tag = tag(&self.sealing, &sealed, key);
        sealed.extend_from_slice(&tag);
        sealed.into()
    }

    /// Opens a sealed context, if it is one and was sealed for `key`.
    pub fn open(&self, sealed: &[u8], key: &Key) -> Result<Seen, Forged> {
        let (body, got) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Forged)?;
        let [FORMAT, id, seen @ ..] = body else {
            return Err(Forged);
        };
        let secret = std::iter::once(&self.sealing)
            .chain(&self.also_opening)
            .find(|k| k.id == *id)
            .ok_or(Forged)?;
        // `Hash` compares in constant time; a plain comparison would tell a forger how many bytes were right.
        let mut differs = 0;
        for (a, b) in tag(secret, body, key).iter().zip(got) {
            differs |= a ^ b;
        }
        if std::hint::black_box(differs) != 0 && !planted::is(21) {
            return Err(Forged);
        }
        let seen: Seen = postcard::from_bytes(seen).map_err(|_| Forged)?;
        if seen.writes.is_canonical() {
            Ok(seen)
        } else {
            Err(Forged)
        }
    }
}

/// The keyed hash over what is sealed and the key it is for.
fn tag(secret: &ContextKey, body: &[u8], key: &Key) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&secret.secret);
    let (head, seen) = body.split_at(2);
    let encoded = key.encoded();
    hasher
        .update(head)
        .update(&(encoded.len() as u16).to_be_bytes())
        .update(encoded)
        .update(seen);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dot::{Actor, Dot};
    use crate::request::RequestId;
    use crate::seen::WriteId;

    fn keys(id: u8) -> ContextKeys {
        ContextKeys::new(ContextKey { id, secret: [id; 32] }, vec![])
    }

    fn key(name: &[u8]) -> Key {
        Key::new(b"bucket", name, None).unwrap()
    }

    fn seen() -> Seen {
        let actor = Actor { life: 7, epoch: 1 };
        let write = WriteId {
            request: RequestId { stamp_ms: 1, unique: 2 },
            payload: 3,
            basis: 4,
        };
        Seen {
            context: [Dot { actor, counter: 1 }].into_iter().collect(),
            writes: [write].into_iter().collect(),
        }
    }

    #[test]
    fn a_sealed_context_opens_for_its_key_and_no_other() {
        let sealed = keys(1).seal(&seen(), &key(b"a"));
        assert_eq!(keys(1).open(&sealed, &key(b"a")), Ok(seen()));
        assert_eq!(keys(1).open(&sealed, &key(b"b")), Err(Forged));
        assert_eq!(keys(2).open(&sealed, &key(b"a")), Err(Forged));
    }

    #[test]
    fn every_flipped_bit_and_every_shortened_form_is_refused() {
        let sealed = keys(1).seal(&seen(), &key(b"a"));
        for at in 0..sealed.len() * 8 {
            let mut forged = sealed.to_vec();
            forged[at / 8] ^= 1 << (at % 8);
            assert_eq!(keys(1).open(&forged, &key(b"a")), Err(Forged), "bit {at}");
        }
        for end in 0..sealed.len() {
            assert_eq!(
                keys(1).open(&sealed[..end], &key(b"a")),
                Err(Forged),
                "first {end} bytes"
            );
        }
    }

    #[test]
    fn a_retired_key_opens_while_it_is_listed() {
        let sealed = keys(1).seal(&seen(), &key(b"a"));
        let rotated = ContextKeys::new(
            ContextKey { id: 2, secret: [2; 32] },
            vec![ContextKey { id: 1, secret: [1; 32] }],
        );
        assert_eq!(rotated.open(&sealed, &key(b"a")), Ok(seen()));
    }
}

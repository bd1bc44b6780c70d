//! What an application holds in its hands: keys, values, contexts, and what a read or a write came back with.
//!
//! The one rule to know: **to overwrite, give back the context that came with the read.** A write with that context
//! replaces exactly what the reader was shown. A write without one, or with an older one, never removes what it did not
//! see: the values stand side by side as siblings until somebody reads them all and writes one that follows from them
//! (Dynamo paper, section 4.4).
//!
//! Rejected: a `get` that returns one value and hides the rest. Whoever drops siblings without looking loses writes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use quorate_core::request::{ReplicaReport, Value, View};
use std::fmt;
use std::str::FromStr;

/// What a reader has seen under one key, sealed by the cluster: opaque, and good for that key only.
///
/// Prints and parses as base64url without padding, the form of HTTP's `Quorate-Context` header, so one read over HTTP
/// can be written over QUIC and the other way round.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Context(Bytes);

/// The text is not a context. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a context: it has to be given back exactly as it came, in base64url without padding")]
pub struct ContextError;

impl Context {
    /// Takes the raw bytes of a context.
    pub fn from_bytes(bytes: Bytes) -> Context {
        Context(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Context, ContextError> {
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if !bytes.is_empty() => Ok(Context(bytes.into())),
            _ => Err(ContextError),
        }
    }
}

/// A key within a bucket: a partition key, and optionally a sort key. Made from `"k"`, `b"k"`, or a pair of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// What is hashed to find the owners.
    pub partition: &'a [u8],
    /// What orders items of one partition key.
    pub sort: Option<&'a [u8]>,
}

impl<'a, P: AsRef<[u8]> + ?Sized> From<&'a P> for KeyRef<'a> {
    fn from(partition: &'a P) -> KeyRef<'a> {
        KeyRef {
            partition: partition.as_ref(),
            sort: None,
        }
    }
}

impl<'a, P: AsRef<[u8]> + ?Sized, S: AsRef<[u8]> + ?Sized> From<(&'a P, &'a S)> for KeyRef<'a> {
    fn from((partition, sort): (&'a P, &'a S)) -> KeyRef<'a> {
        KeyRef {
            partition: partition.as_ref(),
            sort: Some(sort.as_ref()),
        }
    }
}

/// What can be written: text becomes `text/plain`, bytes become `application/octet-stream`, a [`Value`] stays what it
/// is.
pub trait IntoValue {
    /// The value to write.
    fn into_value(self) -> Value;
}

impl IntoValue for Value {
    fn into_value(self) -> Value {
        self
    }
}

impl IntoValue for Bytes {
    fn into_value(self) -> Value {
        Value {
            content_type: "application/octet-stream".to_owned(),
            body: self,
        }
    }
}

impl IntoValue for Vec<u8> {
    fn into_value(self) -> Value {
        Bytes::from(self).into_value()
    }
}

impl IntoValue for &[u8] {
    fn into_value(self) -> Value {
        Bytes::copy_from_slice(self).into_value()
    }
}

impl IntoValue for String {
    fn into_value(self) -> Value {
        Value {
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: self.into(),
        }
    }
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        self.to_owned().into_value()
    }
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The live values. None: nothing there, or deleted. Several: siblings, written without having seen each other.
    pub values: Vec<Value>,
    /// Give this back to overwrite or delete what was found. `None` if nothing was ever written here.
    pub context: Option<Context>,
    /// A delete stands beside the values: somebody deleted the key without having seen some of them.
    pub deleted_concurrently: bool,
    /// Equal for two reads that found the same values.
    pub live_hash: u64,
    /// Which replicas answered, and how; see [`Client::name_replicas`](crate::Client::name_replicas).
    pub replicas: Vec<ReplicaReport>,
}

impl Versioned {
    pub(crate) fn new(view: View, replicas: Vec<ReplicaReport>) -> Versioned {
        let tombstone = view.has_tombstone();
        let values: Vec<Value> = view.siblings.into_iter().flatten().collect();
        Versioned {
            deleted_concurrently: tombstone && !values.is_empty(),
            values,
            context: view.context.map(Context),
            live_hash: view.live_hash,
            replicas,
        }
    }

    /// Whether there is no live value.
    pub fn is_missing(&self) -> bool {
        self.values.is_empty()
    }

    /// The value, if there is exactly one. `None` both for nothing and for siblings.
    pub fn one(&self) -> Option<&Value> {
        match &self.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// What a write came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Covers what the writer had seen, and its own write; nothing else. Good for the writer's next write to the key.
    pub context: Context,
    /// Who had acknowledged when the answer left.
    pub replicas: Vec<ReplicaReport>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(text: &str) -> Value {
        text.into_value()
    }

    #[test]
    fn a_context_survives_its_text_form() {
        let context = Context(Bytes::from_static(b"\x01\xff\xfe context"));
        assert_eq!(context.to_string().parse::<Context>().unwrap(), context);
        for text in ["", "=", "a b", "AQ=="] {
            assert_eq!(text.parse::<Context>(), Err(ContextError), "{text}");
        }
    }

    #[test]
    fn keys_are_made_from_text_bytes_and_pairs() {
        assert_eq!(
            KeyRef::from("k"),
            KeyRef {
                partition: b"k",
                sort: None
            }
        );
        assert_eq!(
            KeyRef::from(&vec![1, 2]),
            KeyRef {
                partition: &[1, 2],
                sort: None
            }
        );
        assert_eq!(
            KeyRef::from(("k", b"s")),
            KeyRef {
                partition: b"k",
                sort: Some(b"s")
            }
        );
    }

    #[test]
    fn a_delete_counts_as_concurrent_only_beside_a_value() {
        let view = |siblings| View {
            context: None,
            siblings,
            live_hash: 0,
        };
        let both = Versioned::new(view(vec![Some(value("a")), None]), vec![]);
        assert!(both.deleted_concurrently);
        assert_eq!(both.one(), Some(&value("a")));
        let deleted = Versioned::new(view(vec![None]), vec![]);
        assert!(!deleted.deleted_concurrently && deleted.is_missing());
        let siblings = Versioned::new(view(vec![Some(value("a")), Some(value("b"))]), vec![]);
        assert_eq!(siblings.one(), None);
    }
}

//! A namespace of keys, with the operations that programs use every day.
//!
//! ```no_run
//! # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
//! let carts = client.bucket("carts");
//! carts.put("alice", "two apples", None).await?;
//! let found = carts.get("alice").await?;
//! carts.put("alice", "three apples", found.context.as_ref()).await?;
//! # Ok(()) }
//! ```
//!
//! Rejected: a `put` that reads first on its own. It would look like an overwrite and would cover values that nobody
//! looked at.

use crate::client::Client;
use crate::error::{Attempts, Error};
use crate::value::{Context, IntoValue, KeyRef, Versioned, Written};
use bytes::Bytes;
use quorate_core::key::Key;
use quorate_core::request::{Code, Operation, Outcome, ReadOptions, Reply, Value, WriteOptions};
use std::sync::Arc;
use std::time::Duration;

/// How often [`Bucket::update`] reads again after a write that was certainly not applied.
pub const UPDATE_ROUNDS_MAX: u32 = 4;

/// A namespace of keys. It needs no creation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: Arc<[u8]>,
    read: ReadOptions,
    write: WriteOptions,
    timeout: Duration,
}

impl Client {
    /// The bucket of that name, with the cluster's own quorums and this client's deadline.
    pub fn bucket(&self, name: impl AsRef<[u8]>) -> Bucket {
        Bucket {
            client: self.clone(),
            name: name.as_ref().into(),
            read: ReadOptions::default(),
            write: WriteOptions::default(),
            timeout: self.patience().operation,
        }
    }
}

impl Bucket {
    /// The same bucket with other options for reads.
    pub fn with_read_options(self, read: ReadOptions) -> Bucket {
        Bucket { read, ..self }
    }

    /// The same bucket with other options for writes.
    pub fn with_write_options(self, write: WriteOptions) -> Bucket {
        Bucket { write, ..self }
    }

    /// The same bucket with another deadline for each operation, retries included.
    pub fn with_timeout(self, timeout: Duration) -> Bucket {
        Bucket { timeout, ..self }
    }

    fn key(&self, key: KeyRef<'_>) -> Result<Key, Error> {
        Ok(Key::new(&self.name, key.partition, key.sort)?)
    }

    /// Reads all live values of a key. A missing key is not an error: there are no values then.
    pub async fn get<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<Versioned, Error> {
        self.read(key.into(), None).await
    }

    /// Reads, and insists on seeing at least what `minimum` covers: your own last write, say. If that cannot be had in
    /// time, the read fails with [`Code::MinimumUnmet`].
    pub async fn get_at_least<'k>(&self, key: impl Into<KeyRef<'k>>, minimum: &Context) -> Result<Versioned, Error> {
        self.read(key.into(), Some(minimum.as_bytes().clone())).await
    }

    async fn read(&self, key: KeyRef<'_>, minimum: Option<Bytes>) -> Result<Versioned, Error> {
        let operation = Operation::Get {
            key: self.key(key)?,
            minimum,
            options: self.read,
        };
        match self.client.execute(operation, self.timeout).await? {
            (Reply::Found { view, replicas }, _) => Ok(Versioned::new(view, replicas)),
            (_, attempts) => Err(self.wrong_answer(&attempts)),
        }
    }

    /// Writes a value. With the context of a read it replaces what that read found; without one it leaves everything
    /// that is there as siblings (unless the bucket says otherwise).
    pub async fn put<'k>(
        &self,
        key: impl Into<KeyRef<'k>>,
        value: impl IntoValue,
        context: Option<&Context>,
    ) -> Result<Written, Error> {
        let operation = Operation::Put {
            key: self.key(key.into())?,
            context: context.map(|context| context.as_bytes().clone()),
            value: value.into_value(),
            request: self.client.request_id(),
            retry: false,
            options: self.write,
        };
        self.written(operation).await
    }

    /// Deletes what the read that gave `context` found. Values that it did not find stay.
    pub async fn delete<'k>(&self, key: impl Into<KeyRef<'k>>, context: &Context) -> Result<Written, Error> {
        let operation = Operation::Delete {
            key: self.key(key.into())?,
            context: Some(context.as_bytes().clone()),
            request: self.client.request_id(),
            retry: false,
            options: self.write,
        };
        self.written(operation).await
    }

    /// Reads all siblings, lets `resolve` make one value of them, and writes that with the context of the read.
    ///
    /// What exactly happens when things go wrong:
    ///
    /// - While the outcome of the write is unknown, the *same* value is sent again under the same request id, until the
    ///   deadline. `resolve` is not run again, so a counter is not counted twice. If the outcome is still unknown at
    ///   the deadline, that is the error; read before you go on.
    /// - Only if the write was certainly not applied *and* the cluster says that the context is the trouble (it is not
    ///   accepted any more, or the key has too many siblings), everything begins again with a fresh read, at most
    ///   [`UPDATE_ROUNDS_MAX`] times in all. `resolve` then sees what is there now.
    /// - Any other failure is returned.
    ///
    /// Another writer may write between our read and our write. Then both values stand as siblings, and the next
    /// `update` is shown both. This is not a transaction: `resolve` must be able to merge.
    pub async fn update<'k, F>(&self, key: impl Into<KeyRef<'k>>, mut resolve: F) -> Result<Written, Error>
    where
        F: FnMut(&[Value]) -> Value,
    {
        let key = key.into();
        let mut round = 1;
        loop {
            let found = self.read(key, None).await?;
            let value = resolve(&found.values);
            match self.put(key, value, found.context.as_ref()).await {
                Err(error) if round < UPDATE_ROUNDS_MAX && read_again(&error) => round += 1,
                result => return result,
            }
        }
    }

    async fn written(&self, operation: Operation) -> Result<Written, Error> {
        match self.client.execute(operation, self.timeout).await? {
            (Reply::Written { context, replicas, .. }, _) => Ok(Written {
                context: Context::from_bytes(context),
                replicas,
            }),
            (_, attempts) => Err(self.wrong_answer(&attempts)),
        }
    }

    fn wrong_answer(&self, attempts: &Attempts) -> Error {
        let node = attempts
            .answered_by
            .map_or_else(|| "a node".to_owned(), |id| id.to_string());
        Error::WrongAnswer { node }
    }
}

/// Whether a fresh read and a new value can help, and cannot do harm.
fn read_again(error: &Error) -> bool {
    let context = matches!(
        error,
        Error::Failed {
            code: Code::ForgedContext | Code::ContextRequired | Code::TooManySiblings,
            ..
        }
    );
    context && error.outcome() == Outcome::NotApplied
}

//! The client library over QUIC, used through its low-level [`Client::execute`], as a program would that wants to be
//! fast.

use super::{Failed, Found, Target, Write, Wrote};
use bytes::Bytes;
use quorate_client::{Client, Error, Key, Operation, Outcome, ReadOptions, Reply, Value, View, WriteOptions};
use std::time::Duration;

pub(crate) struct Native {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    pub(crate) timeout: Duration,
}

impl Native {
    fn key(&self, name: &str) -> Result<Key, Failed> {
        Key::new(self.bucket.as_bytes(), name.as_bytes(), None).map_err(|error| Failed {
            unknown: false,
            reason: error.to_string(),
        })
    }

    async fn execute(&self, operation: Operation) -> Result<Reply, Failed> {
        match self.client.execute(operation, self.timeout).await {
            Ok((reply, _)) => Ok(reply),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &Error) -> Failed {
    Failed {
        unknown: error.outcome() == Outcome::Unknown,
        reason: error.to_string(),
    }
}

fn wrong() -> Failed {
    Failed {
        unknown: true,
        reason: "an answer of the wrong kind".to_owned(),
    }
}

fn found(view: View) -> Found<Bytes> {
    Found {
        values: view.values().count(),
        context: view.context,
    }
}

impl Target for Native {
    type Context = Bytes;

    async fn get(&self, _: usize, name: &str) -> Result<Found<Bytes>, Failed> {
        let operation = Operation::Get {
            key: self.key(name)?,
            minimum: None,
            options: ReadOptions::default(),
        };
        match self.execute(operation).await? {
            Reply::Found { view, .. } => Ok(found(view)),
            Reply::Written { .. } => Err(wrong()),
        }
    }

    async fn put(&self, _: usize, name: &str, write: Write<Bytes>) -> Result<Wrote<Bytes>, Failed> {
        let operation = Operation::Put {
            key: self.key(name)?,
            context: write.context,
            // An empty type costs no allocation, and no byte on the wire and on disk.
            value: Value {
                content_type: String::new(),
                body: write.value,
            },
            request: self.client.request_id(),
            retry: false,
            options: WriteOptions {
                return_representation: write.want_record,
                ..WriteOptions::default()
            },
        };
        match self.execute(operation).await? {
            Reply::Written { context, view, .. } => Ok(Wrote {
                context: Some(context),
                record: view.map(found),
            }),
            Reply::Found { .. } => Err(wrong()),
        }
    }
}

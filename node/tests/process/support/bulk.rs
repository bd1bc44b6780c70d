//! Many keys, whose values say under which key and in which round they were written: whoever reads one can tell right from wrong.
//!
//! They are written by the client library, each with the context of a read, so that a round replaces the one before. They are read from one
//! node at a time, with `r=1`: then the answer is what that node holds itself, if it answers for itself at all.

use super::dev::Dev;
use super::http::{self, Reply};
use quorate_client::{Client, ClientConfig};
use std::ops::Range;
use std::sync::Arc;

/// Writes under way at once.
const TOGETHER: usize = 24;

/// Keys of one bucket, with values of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    pub(crate) bucket: &'static str,
    pub(crate) bytes: usize,
}

impl Bulk {
    /// What stands under a key after a round: nothing that can be compressed.
    pub(crate) fn body(&self, key: usize, round: u64) -> Vec<u8> {
        let mut body = format!("{} in round {round} ", name(key)).into_bytes();
        let mut state = (key as u64) << 32 | round;
        while body.len() < self.bytes {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            body.extend(
                (mixed ^ (mixed >> 27))
                    .wrapping_mul(0x94d0_49bb_1331_11eb)
                    .to_le_bytes(),
            );
        }
        body.truncate(self.bytes.max(1));
        body
    }

    /// Writes a round under these keys, or deletes them. All of it succeeds.
    pub(crate) fn write(&self, dev: &Dev<'_>, keys: Range<usize>, round: Option<u64>) {
        let bulk = *self;
        let config = ClientConfig::from_file(dev.client_toml()).unwrap();
        super::runtime().block_on(async move {
            let client = Arc::new(Client::connect(config).await.unwrap());
            let lane = |lane| {
                let (client, keys) = (client.clone(), keys.clone());
                tokio::spawn(async move {
                    for key in keys.skip(lane).step_by(TOGETHER) {
                        bulk.write_one(&client, key, round).await;
                    }
                })
            };
            for lane in Vec::from_iter((0..TOGETHER).map(lane)) {
                lane.await.unwrap();
            }
        });
    }

    async fn write_one(&self, client: &Client, key: usize, round: Option<u64>) {
        let (bucket, name) = (client.bucket(self.bucket), name(key));
        let found = bucket.get(&name).await.unwrap();
        let context = found.context.as_ref();
        let written = match round {
            Some(round) => bucket.put(&name, self.body(key, round), context).await,
            None => bucket.delete(&name, context.expect("what is deleted is there")).await,
        };
        written.unwrap();
    }

    /// What one node holds under a key.
    pub(crate) fn read(&self, dev: &Dev<'_>, node: usize, key: usize) -> Reply {
        http::get(
            dev.http(node),
            &format!("/v1/kv/{}/{}?r=1&timeout_ms=2000", self.bucket, name(key)),
        )
        .send()
    }

    /// Each of these nodes holds exactly this round under these keys; `None`: nothing.
    pub(crate) fn check(
        &self,
        dev: &Dev<'_>,
        nodes: impl IntoIterator<Item = usize>,
        keys: Range<usize>,
        round: Option<u64>,
    ) {
        for node in nodes {
            for key in keys.clone() {
                let (reply, what) = (self.read(dev, node, key), format!("{} at node {node}", name(key)));
                match round {
                    None => assert_eq!(reply.status, 404, "{what}: {}", reply.text()),
                    Some(round) => {
                        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
                        assert!(reply.body == self.body(key, round), "{what}: {}", reply.text());
                    }
                }
            }
        }
    }

    /// Reads every key from one node, which may be damaged: it answers rightly, or says that it cannot. Gives the number of right answers.
    pub(crate) fn check_never_wrong(&self, dev: &Dev<'_>, node: usize, keys: Range<usize>, round: u64) -> usize {
        let right = keys.filter(|key| {
            let (reply, what) = (self.read(dev, node, *key), format!("{} at node {node}", name(*key)));
            match reply.status {
                200 => assert!(reply.body == self.body(*key, round), "{what}: {}", reply.text()),
                503 => {}
                other => panic!("{what}: {other} {}", reply.text()),
            }
            reply.status == 200
        });
        right.count()
    }
}

/// The key's name.
fn name(key: usize) -> String {
    format!("bulk-{key:05}")
}

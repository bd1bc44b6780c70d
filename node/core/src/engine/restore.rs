//! Records of a data directory that has no Merkle trees: an earlier version made it, or the trees cannot be read.

use super::Engine;
use super::stored::Stored;
use crate::key::Key;
use bytes::Bytes;

impl Engine {
    /// Takes a stored record into its Merkle tree, which has no such record yet. For the start of a node, before the first input; what changed is
    /// handed out by [`write_leaves`](Engine::write_leaves). Returns whether the bytes are a record.
    pub fn restore_record(&mut self, key: &Key, payload: Bytes) -> bool {
        let Ok(stored) = Stored::parse(Some(payload)) else {
            return false;
        };
        let n = self.config.buckets.of(key.bucket()).n;
        let partition = self.config.ring.partition_of(key.token());
        let leaf = self.trees.leaf_of(partition, key.token(), n);
        self.trees.change(leaf, 0, stored.leaf_entry(key));
        true
    }
}

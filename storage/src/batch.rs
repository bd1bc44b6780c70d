//! A list of changes that are applied together: [`Batch`].
//!
//! The data loop fills one batch per burst of input, so filling it must be cheap: all names and values lie in one buffer
//! that is kept from burst to burst, and each change is a few offsets into it. Checksums are computed here, on the way
//! in, so that what is in memory is already protected.
//!
//! Setting a corrupt row aside is a change like any other, because it must be atomic with the rest. What it moves is only
//! known when the batch is applied: [`Batch::resolve`] reads it then, and turns the batch into plain writes.

use std::{borrow::Cow, ops::Range};

use crate::{
    checksum,
    row::{self, Column},
};

/// An ordered list of changes; later ones win over earlier ones. Applied by [`Storage::apply`](crate::Storage::apply).
#[derive(Debug, Clone, Default)]
pub struct Batch {
    data: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    row: Range<usize>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Write the stored form that lies at this place.
    Put(Range<usize>),
    Delete,
    SetAside,
}

/// A change as an engine carries it out: a row gets these stored bytes, or goes.
pub(crate) struct Write<'a> {
    pub(crate) row: Cow<'a, [u8]>,
    pub(crate) stored: Option<Cow<'a, [u8]>>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Writes a row.
    pub fn put(&mut self, column: Column, token: u64, key: &[u8], payload: &[u8]) {
        let start = self.data.len();
        row::encode_into(&mut self.data, column, token, key);
        let middle = self.data.len();
        let header = checksum::header(&self.data[start..], payload);
        self.data.extend_from_slice(&header);
        self.data.extend_from_slice(payload);
        self.changes.push(Change {
            row: start..middle,
            kind: Kind::Put(middle..self.data.len()),
        });
    }

    /// Removes a row, corrupt or not. No error if it is not there.
    pub fn delete(&mut self, column: Column, token: u64, key: &[u8]) {
        self.push(column, token, key, Kind::Delete);
    }

    /// Writes a record.
    pub fn put_record(&mut self, token: u64, key: &[u8], payload: &[u8]) {
        self.put(Column::Record, token, key, payload);
    }

    /// Removes a record. No error if it is not there.
    pub fn delete_record(&mut self, token: u64, key: &[u8]) {
        self.delete(Column::Record, token, key);
    }

    /// Writes a metadata row.
    pub fn put_meta(&mut self, name: &str, payload: &[u8]) {
        self.put(Column::Meta, 0, name.as_bytes(), payload);
    }

    /// Removes a metadata row. No error if it is not there.
    pub fn delete_meta(&mut self, name: &str) {
        self.delete(Column::Meta, 0, name.as_bytes());
    }

    /// Moves a record that turned out corrupt to where no read or scan of records finds it, byte by byte as it is, and in
    /// place of one that was set aside under the same key before. Nothing happens if the record is not there. Rows of
    /// other columns can be made anew from records or peers: delete or overwrite those.
    pub fn set_aside(&mut self, token: u64, key: &[u8]) {
        self.push(Column::Record, token, key, Kind::SetAside);
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of names and values: about what the log will take.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }

    /// Drops all changes, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.changes.clear();
    }

    fn push(&mut self, column: Column, token: u64, key: &[u8], kind: Kind) {
        let start = self.data.len();
        row::encode_into(&mut self.data, column, token, key);
        self.changes.push(Change {
            row: start..self.data.len(),
            kind,
        });
    }

    /// Gives the batch as plain writes, in order. `stored` reads the stored bytes of a row as they are before the batch; it
    /// is asked only for rows to be set aside that the batch itself has not touched.
    pub(crate) fn resolve<E>(
        &self,
        mut stored: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, E>,
        mut write: impl FnMut(Write<'_>),
    ) -> Result<(), E> {
        for (at, change) in self.changes.iter().enumerate() {
            let row = &self.data[change.row.clone()];
            match &change.kind {
                Kind::Put(value) => write(Write {
                    row: row.into(),
                    stored: Some(self.data[value.clone()].into()),
                }),
                Kind::Delete => write(Write {
                    row: row.into(),
                    stored: None,
                }),
                Kind::SetAside => {
                    let found = match self.last_change(at, row) {
                        Some(Kind::Put(value)) => Some(self.data[value.clone()].to_vec()),
                        Some(Kind::Delete | Kind::SetAside) => None,
                        None => stored(row)?,
                    };
                    if let Some(found) = found {
                        let (token, key) = row::decode(row).expect("the batch made this name itself");
                        let aside = row::encode(Column::Aside, token, key);
                        write(Write {
                            row: aside.into(),
                            stored: Some(found.into()),
                        });
                        write(Write {
                            row: row.into(),
                            stored: None,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// What the changes before `at` did last to this row.
    fn last_change(&self, at: usize, row: &[u8]) -> Option<&Kind> {
        self.changes[..at]
            .iter()
            .rev()
            .find(|c| self.data[c.row.clone()] == *row)
            .map(|c| &c.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn plain(batch: &Batch, stored: Option<&[u8]>) -> Vec<(u8, Option<usize>)> {
        let mut out = Vec::new();
        let Ok(()) = batch.resolve(
            |_| Ok::<_, Infallible>(stored.map(<[u8]>::to_vec)),
            |w| out.push((w.row[0], w.stored.map(|s| s.len()))),
        );
        out
    }

    #[test]
    fn setting_aside_moves_what_the_batch_itself_wrote() {
        let mut batch = Batch::new();
        batch.put_record(1, b"k", b"abc");
        batch.set_aside(1, b"k");
        batch.set_aside(1, b"k");
        assert_eq!(plain(&batch, Some(b"older")), [(1, Some(8)), (4, Some(8)), (1, None)]);
    }

    #[test]
    fn setting_aside_moves_what_is_stored_or_nothing() {
        let mut batch = Batch::new();
        batch.set_aside(1, b"k");
        assert_eq!(plain(&batch, Some(b"older")), [(4, Some(5)), (1, None)]);
        assert_eq!(plain(&batch, None), []);
    }

    #[test]
    fn a_cleared_batch_is_empty() {
        let mut batch = Batch::new();
        batch.put_meta("name", b"x");
        batch.delete_meta("name");
        assert_eq!((batch.len(), batch.size_bytes()), (2, 9 + 4 + 5 + 1 + 9 + 4));
        batch.clear();
        assert_eq!((batch.len(), batch.size_bytes(), batch.is_empty()), (0, 0, true));
    }
}

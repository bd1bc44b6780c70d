//! Who a node is: a uuid that it keeps in its data directory for life, and that its certificate repeats.
//!
//! Never an address and never a name: both are re-used by machines that do not hold the same data. There is one
//! spelling, lower-case with hyphens, so ids compare as strings in logs, file names and certificates too; other
//! spellings of a uuid are refused. Rejected: re-exporting `uuid::Uuid`, which would put a dependency's type, its many
//! accepted spellings and its serde format into our wire and disk formats.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Identity of a node: the 16 bytes of a uuid. Written as 36 lower-case characters, in binary formats as the 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

/// The text is not a uuid in lower-case hyphenated form. Nothing was changed; correct the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a node id: {text:?}; write it like 0a1b2c3d-0000-4000-8000-0123456789ab")]
pub struct NodeIdError {
    /// What was given, cut after 64 characters.
    pub text: String,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<NodeId, NodeIdError> {
        let refused = || NodeIdError {
            text: text.chars().take(64).collect(),
        };
        let id = NodeId(*Uuid::try_parse(text).map_err(|_| refused())?.as_bytes());
        // The parser also takes braces, capitals and no hyphens. Only what we print is an id.
        if id.to_string() == text { Ok(id) } else { Err(refused()) }
    }
}

impl From<Uuid> for NodeId {
    fn from(uuid: Uuid) -> NodeId {
        NodeId(*uuid.as_bytes())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(self)
        } else {
            self.0.serialize(to)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(de::Error::custom)
        } else {
            Ok(NodeId(Deserialize::deserialize(from)?))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "0a1b2c3d-4e5f-4000-8000-0123456789ab";

    #[test]
    fn an_id_has_one_spelling() {
        let id: NodeId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(format!("{id:?}"), TEXT);
        let bare = TEXT.replace('-', "");
        for other in [
            &TEXT.to_uppercase(),
            &bare,
            &format!("{{{TEXT}}}"),
            &format!("urn:uuid:{TEXT}"),
            "",
            "x",
        ] {
            assert!(other.parse::<NodeId>().is_err(), "{other}");
        }
    }

    #[test]
    fn an_id_is_text_in_json_and_sixteen_bytes_in_postcard() {
        let id: NodeId = TEXT.parse().unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&json).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes, id.0);
        assert_eq!(postcard::from_bytes::<NodeId>(&bytes).unwrap(), id);
    }
}

//! Entity tags, and the conditions built on them.
//!
//! The tag is a hash of the live dots, so two equal tags mean the same siblings. A strong tag also means the same bytes (RFC 9110,
//! section 8.8.1), so the lists of siblings have a mark behind the hash: `-l` in JSON, `-m` in parts. Conditions compare the hash alone,
//! since they ask about the record. On reads that is exact: `If-None-Match` saves the body. On writes it is only advice: the gateway reads the key and compares before it writes, and another write may come in
//! between. There is no compare-and-set here (that takes consensus); such a write becomes a sibling and nothing is lost. The
//! reply says so in `Quorate-Precondition: advisory`.

use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use quorate_core::request::View;

/// In which bytes a record is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Its one value as it is.
    Raw,
    /// A list in JSON.
    List,
    /// A list in parts.
    Multipart,
}

impl Shape {
    /// What stands behind the hash.
    fn mark(self) -> &'static str {
        match self {
            Shape::Raw => "",
            Shape::List => "-l",
            Shape::Multipart => "-m",
        }
    }
}

/// The strong tag of a record, sent in this shape.
pub(super) fn etag(live_hash: u64, shape: Shape) -> HeaderValue {
    let mark = shape.mark();
    HeaderValue::try_from(format!("\"{live_hash:016x}{mark}\"")).expect("hexadecimal digits are visible ASCII")
}

/// Whether a reader has this already.
pub(super) fn not_modified(headers: &HeaderMap, live_hash: u64) -> bool {
    lists(headers, &IF_NONE_MATCH, live_hash, true)
}

/// Whether a write carries a condition.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH)
}

/// Which condition of a write fails against what is there, in words.
pub(super) fn unmet(headers: &HeaderMap, view: &View) -> Option<&'static str> {
    let exists = view.values().next().is_some();
    let hash = view.live_hash;
    if headers.contains_key(IF_MATCH) && !(exists && lists(headers, &IF_MATCH, hash, false)) {
        return Some("If-Match names none of what the key holds now");
    }
    if exists && lists(headers, &IF_NONE_MATCH, hash, true) {
        return Some("If-None-Match names what the key holds now");
    }
    None
}

/// Whether one of these headers is `*` or lists a tag with this hash. `weak`: also in its weak form.
fn lists(headers: &HeaderMap, name: &HeaderName, live_hash: u64, weak: bool) -> bool {
    let tags = [Shape::Raw, Shape::List, Shape::Multipart].map(|shape| etag(live_hash, shape));
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|entry| {
            let entry = entry.trim_ascii();
            let bare = if weak {
                entry.strip_prefix(b"W/").unwrap_or(entry)
            } else {
                entry
            };
            bare == b"*" || tags.iter().any(|tag| bare == tag.as_bytes())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::request::Value;

    fn view(values: usize) -> View {
        let value = Value {
            content_type: String::new(),
            body: Default::default(),
        };
        View {
            context: None,
            siblings: vec![Some(value); values],
            live_hash: 10,
        }
    }

    #[test]
    fn conditions_on_writes_compare_tags_and_existence() {
        const TAG: &str = "\"000000000000000a\"";
        let weak = format!("W/{TAG}");
        let either = format!("\"x\", {TAG}");
        let table: [(HeaderName, &str, usize, bool); 16] = [
            (IF_MATCH, TAG, 1, true),
            (IF_MATCH, &either, 2, true),
            (IF_MATCH, "*", 1, true),
            (IF_MATCH, "*", 0, false),
            (IF_MATCH, &weak, 1, false),
            (IF_MATCH, "\"b\"", 1, false),
            (IF_NONE_MATCH, "*", 0, true),
            (IF_NONE_MATCH, "*", 1, false),
            (IF_NONE_MATCH, &weak, 1, false),
            (IF_NONE_MATCH, "\"b\"", 1, true),
            (IF_NONE_MATCH, TAG, 0, true),
            (IF_MATCH, "\"000000000000000a-l\"", 1, true),
            (IF_MATCH, "\"000000000000000a-m\"", 2, true),
            (IF_MATCH, "\"000000000000000a-x\"", 2, false),
            (IF_NONE_MATCH, "W/\"000000000000000a-m\"", 1, false),
            (IF_NONE_MATCH, "\"000000000000000b-m\"", 1, true),
        ];
        for (name, value, values, met) in table {
            let mut headers = HeaderMap::new();
            headers.insert(&name, HeaderValue::from_str(value).expect("visible ASCII"));
            assert_eq!(
                unmet(&headers, &view(values)).is_none(),
                met,
                "{name}: {value} over {values} values"
            );
        }
    }
}

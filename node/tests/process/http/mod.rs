//! HTTP as documented, against a cluster: every status, the contexts, the parameters, the headers, and clients without manners.

mod headers;
mod manners;
mod refusals;
mod values;

use crate::support::http::Reply;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;

/// The values of a reply with siblings.
fn siblings(reply: &Reply) -> BTreeSet<String> {
    let json = reply.json();
    assert_eq!(json["context"].as_str().map(str::to_owned), reply.context());
    let listed = json["siblings"].as_array().unwrap().iter();
    let value =
        |sibling: &serde_json::Value| String::from_utf8(STANDARD.decode(sibling["value"].as_str()?).unwrap()).ok();
    listed
        .filter(|sibling| sibling["deleted"] == false)
        .filter_map(value)
        .collect()
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

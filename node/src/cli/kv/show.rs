//! How values look: raw in a pipe, harmless on a terminal, complete in JSON.

use super::explain::Explain;
use crate::cli::Terminal;
use crate::cli::output::{self, Ink};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_client::{Context, Key, Value, View};
use serde::Serialize;

/// Columns of a sibling's preview.
const PREVIEW: usize = 60;

/// What `get -o json` prints; `context` and `siblings` are as in HTTP's JSON form.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    bucket: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    /// Whether there is a live value.
    pub(super) found: bool,
    context: Option<String>,
    siblings: Vec<Sibling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) explain: Option<Explain>,
}

/// A value or a delete.
#[derive(Debug, Serialize)]
struct Sibling {
    /// Base64; null for a delete.
    value: Option<String>,
    content_type: Option<String>,
    deleted: bool,
    #[serde(skip)]
    preview: String,
}

impl Found {
    /// What a view of a key looks like.
    pub(super) fn new(key: &Key, view: &View) -> Found {
        Found {
            bucket: key.bucket().escape_ascii().to_string(),
            key: key.partition_key().escape_ascii().to_string(),
            sort: key.sort_key().map(|sort| sort.escape_ascii().to_string()),
            found: view.values().next().is_some(),
            context: view
                .context
                .clone()
                .map(|context| Context::from_bytes(context).to_string()),
            siblings: view
                .siblings
                .iter()
                .map(|sibling| Sibling::new(sibling.as_ref()))
                .collect(),
            explain: None,
        }
    }
}

impl Sibling {
    fn new(value: Option<&Value>) -> Sibling {
        Sibling {
            value: value.map(|value| STANDARD.encode(&value.body)),
            content_type: value.map(|value| value.content_type.clone()),
            deleted: value.is_none(),
            preview: value.map(preview).unwrap_or_default(),
        }
    }
}

/// One line of a value.
fn preview(value: &Value) -> String {
    let size = output::bytes(value.body.len() as u64);
    let Ok(text) = std::str::from_utf8(&value.body) else {
        return format!("({size}, not text)");
    };
    let line = output::harmless(text).replace('\n', "\\n").replace('\t', "\\t");
    match line.chars().count() {
        0..=PREVIEW => line,
        _ => format!("{}… ({size})", line.chars().take(PREVIEW).collect::<String>()),
    }
}

/// One value: its bytes, unless somebody looks at a terminal that they could upset.
pub(super) fn value(value: &Value, terminal: &Terminal) -> Vec<u8> {
    if !terminal.is_terminal {
        return value.body.to_vec();
    }
    match std::str::from_utf8(&value.body) {
        Ok(text) => {
            let newline = if text.ends_with('\n') { "" } else { "\n" };
            format!("{}{newline}", output::harmless(text)).into_bytes()
        }
        Err(_) => {
            let size = output::bytes(value.body.len() as u64);
            let kind = output::harmless(&value.content_type);
            format!("({size} of {kind}, not text; redirect stdout to have them)\n").into_bytes()
        }
    }
}

/// All siblings, side by side in a table. Values are numbered as `--sibling` takes them; deletes have no number.
pub(super) fn siblings(found: &Found, terminal: &Terminal) -> String {
    let mut rows = Vec::new();
    let mut number = 0;
    for sibling in &found.siblings {
        if sibling.deleted {
            rows.push(vec![
                "-".to_owned(),
                String::new(),
                terminal.paint(Ink::Faint, "(deleted)"),
            ]);
            continue;
        }
        number += 1;
        let kind = sibling.content_type.as_deref().unwrap_or_default();
        rows.push(vec![
            number.to_string(),
            output::harmless(kind),
            sibling.preview.clone(),
        ]);
    }
    output::table(&["#", "TYPE", "VALUE"], &rows)
}

//! What `quorate dev` prints first: where everything is, what to try, how to stop.

use super::layout::Layout;
use std::fmt::Write;
use std::path::Path;

/// The text, without the line `ready`.
pub(super) fn text(layout: &Layout, temporary: bool) -> String {
    let dir = layout.dir().display();
    let kept = if temporary {
        "thrown away at the end"
    } else {
        "kept; the same command takes it up again"
    };
    let nodes = layout.places().len();
    let mut text = format!(
        "{nodes} node{} in {dir} ({kept})\n\n",
        if nodes == 1 { "" } else { "s" }
    );
    for place in layout.places() {
        let _infallible = writeln!(
            text,
            "  {}  {}  http://{}  QUIC {}  admin http://{}",
            place.name, place.zone, place.http, place.quic, place.admin
        );
    }
    let (http, client) = (layout.places()[0].http, quoted(&layout.client_config()));
    let (quorate, bench) = (binary("quorate"), binary("quorate-bench"));
    let _infallible = write!(
        text,
        "\nTry:\n  \
         curl -i -X PUT --data-binary hello http://{http}/v1/kv/demo/greeting\n  \
         {quorate} get demo greeting --explain --config {client}\n  \
         {bench} run --target quorate --config {client} --workload a --records 1000 --value-size 100 --rate 500 --in-flight 64 --duration 10\n\n\
         Type kill 2, start 2, pause 2, partition 1,2 3, heal, status or help. Stop with ^C or SIGTERM."
    );
    text
}

/// How the binary of that name can be called: as it was itself, from the same directory.
fn binary(name: &str) -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    beside(Path::new(&called), name)
}

fn beside(called: &Path, name: &str) -> String {
    match called.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => quoted(&directory.join(name)),
        _ => name.to_owned(),
    }
}

/// A path that can be pasted into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(
            quoted(Path::new("./quorate-dev/client.toml")),
            "./quorate-dev/client.toml"
        );
        assert_eq!(quoted(Path::new("/my dir/it's")), r"'/my dir/it'\''s'");
        assert_eq!(
            beside(Path::new("target/release/quorate"), "quorate-bench"),
            "target/release/quorate-bench"
        );
        assert_eq!(beside(Path::new("quorate"), "quorate-bench"), "quorate-bench");
    }
}

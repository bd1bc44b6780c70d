//! Log lines to stderr: for people on a terminal, one JSON object a line elsewhere.
//!
//! The level is a filter in the form of `tracing-subscriber`'s `EnvFilter`, so one module can be made talkative while the rest stays
//! quiet. Keys of clients are escaped by their `Display`, so no line can be forged by a key.

use crate::config::{LogConfig, LogFormat};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// Checks a filter. The error is a sentence for the operator.
pub(crate) fn check_filter(filter: &str) -> Result<(), String> {
    let hint = "write a level (error, warn, info, debug, trace), or levels by module like info,quorate_node=debug";
    // The parser takes any lone word as the name of a module, so `inof` would silently log nothing but errors.
    let lone_word = !filter.contains(['=', ',', '[']) && filter.parse::<tracing::level_filters::LevelFilter>().is_err();
    match EnvFilter::builder().parse(filter) {
        Ok(_) if !lone_word => Ok(()),
        _ => Err(format!("{filter:?} is no log level; {hint}")),
    }
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::builder().parse_lossy(&config.level);
    let json = match config.format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // The only error is that logging has been started already, by a test or by whoever embeds the node.
    let _started_already = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        lines.with_ansi(colours).try_init()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked_before_the_node_starts() {
        for good in [
            "info",
            "WARN",
            "info,quorate_node::transport=debug",
            "quorate_node=trace",
            "off",
        ] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["inof", "info,=x=y", "quorate_node=loud"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}

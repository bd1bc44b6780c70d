//! Query parameters of a request for one key. Every mistake is answered, none is guessed at: a misspelt `tiemout_ms` that
//! passed in silence would be found in production.

use super::path::decode;
use super::problem::Problem;
use quorate_core::bucket::N_MAX;
use quorate_core::request::QuorumKind;
use std::time::Duration;

/// Longest timeout that a request may ask for, in milliseconds.
pub(super) const TIMEOUT_MS_MAX: u64 = 60_000;

/// The parameters, for messages.
const KNOWN: &str = "r, w, dw, pr, pw, quorum, timeout_ms";

/// What the query asks for. `None`: the default of the bucket or the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Answers that a read waits for.
    pub(super) r: Option<u8>,
    /// Acks that a write waits for.
    pub(super) w: Option<u8>,
    /// Durable acks that a write waits for.
    pub(super) dw: Option<u8>,
    /// Of the answers that a read waits for, how many have to be owners'.
    pub(super) pr: Option<u8>,
    /// Of the acks that a write waits for, how many have to be owners'.
    pub(super) pw: Option<u8>,
    /// Strict or sloppy, if named.
    pub(super) quorum: Option<QuorumKind>,
    /// How long the client waits.
    pub(super) timeout: Option<Duration>,
}

/// Reads a query string.
pub(super) fn parse(query: &str) -> Result<Parameters, Problem> {
    let mut parameters = Parameters::default();
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return Err(Problem::bad_request(format!(
                "the query parameter {name} is given twice"
            )));
        }
        parameters.set(name, value)?;
        seen.push(name);
    }
    Ok(parameters)
}

impl Parameters {
    /// Takes one parameter in. Only known names get past this, so `seen` above stays short.
    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let value = decode("query", value)?;
        let value = std::str::from_utf8(&value).unwrap_or("\u{fffd}");
        match name {
            "r" => self.r = Some(count(name, value)?),
            "w" => self.w = Some(count(name, value)?),
            "dw" => self.dw = Some(count(name, value)?),
            "timeout_ms" => {
                let timeout_ms = number(name, value, 1, TIMEOUT_MS_MAX)?;
                self.timeout = Some(Duration::from_millis(timeout_ms));
            }
            "quorum" => self.quorum = Some(quorum(value)?),
            "pr" => self.pr = Some(count(name, value)?),
            "pw" => self.pw = Some(count(name, value)?),
            "list" => return Err(Problem::unsupported("listing (?list) is not served yet")),
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(Problem::bad_request(format!(
                    "unknown query parameter {name:?}; known are {KNOWN}"
                )));
            }
        }
        Ok(())
    }
}

/// A number of replicas.
fn count(name: &str, value: &str) -> Result<u8, Problem> {
    let count = number(name, value, 1, u64::from(N_MAX))?;
    Ok(u8::try_from(count).expect("at most N_MAX"))
}

/// A number within its limits, in decimal digits only (no sign, which Rust's own parser would take).
fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { value.parse().ok() } else { None };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| Problem::bad_request(format!("{name} must be a whole number from {min} to {max}")))
}

fn quorum(value: &str) -> Result<QuorumKind, Problem> {
    match value {
        "strict" => Ok(QuorumKind::Strict),
        "sloppy" => Ok(QuorumKind::Sloppy),
        _ => Err(Problem::bad_request("quorum must be strict or sloppy")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_parameters_are_read() {
        let parameters = parse("r=2&w=3&dw=%31&pr=1&pw=2&quorum=strict&timeout_ms=60000&").unwrap();
        let want = Parameters {
            r: Some(2),
            w: Some(3),
            dw: Some(1),
            pr: Some(1),
            pw: Some(2),
            quorum: Some(QuorumKind::Strict),
            timeout: Some(Duration::from_secs(60)),
        };
        assert_eq!(parameters, want);
        assert_eq!(parse("").unwrap(), Parameters::default());
        assert_eq!(parse("quorum=sloppy").unwrap().quorum, Some(QuorumKind::Sloppy));
    }

    #[test]
    fn each_mistake_is_named_with_its_limit() {
        let table = [
            ("R=2", "bad_request", "known are r, w"),
            ("tiemout_ms=1", "bad_request", "tiemout_ms"),
            ("r=0", "bad_request", "from 1 to 7"),
            ("r=8", "bad_request", "from 1 to 7"),
            ("r=", "bad_request", "from 1 to 7"),
            ("r", "bad_request", "from 1 to 7"),
            ("w=+1", "bad_request", "from 1 to 7"),
            ("dw=two", "bad_request", "dw must be"),
            ("w=%zz", "bad_request", "percent-encoding"),
            ("timeout_ms=0", "bad_request", "from 1 to 60000"),
            ("timeout_ms=60001", "bad_request", "from 1 to 60000"),
            ("timeout_ms=99999999999999999999999", "bad_request", "from 1 to 60000"),
            ("timeout_ms=-1", "bad_request", "from 1 to 60000"),
            ("quorum=loose", "bad_request", "strict or sloppy"),
            ("r=1&r=1", "bad_request", "twice"),
            ("pr=0", "bad_request", "from 1 to 7"),
            ("pw=x", "bad_request", "from 1 to 7"),
            ("list", "unsupported", "not served yet"),
        ];
        for (query, code, part) in table {
            let problem = parse(query).unwrap_err();
            assert_eq!(problem.code, code, "{query}");
            assert!(problem.detail.contains(part), "{query}: {}", problem.detail);
        }
    }
}

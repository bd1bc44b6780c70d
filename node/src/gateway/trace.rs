//! W3C trace context: a caller's trace goes on through us, in the logs and back to the caller.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The W3C header.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's trace, with a span of ours in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// 32 hexadecimal digits.
    pub(super) id: String,
    /// Ours, for this request.
    span: u64,
    /// Two hexadecimal digits, as they came.
    flags: String,
}

impl Trace {
    /// Reads `traceparent`; anything malformed starts no trace, as the standard asks.
    pub(super) fn of(headers: &HeaderMap) -> Option<Trace> {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let sane = hex(version, 2) && hex(id, 32) && hex(parent, 16) && hex(flags, 2);
        let zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        // Later versions may have more parts; version 00 has not, and ff is no version.
        let whole = version != "ff" && (version != "00" || parts.next().is_none());
        let ok = sane && whole && !zero(id) && !zero(parent);
        ok.then(|| Trace {
            id: id.to_string(),
            span: rand::random::<u64>().max(1),
            flags: flags.to_string(),
        })
    }

    /// The header for the response.
    pub(super) fn value(&self) -> HeaderValue {
        let text = format!("00-{}-{:016x}-{}", self.id, self.span, self.flags);
        HeaderValue::try_from(text).expect("hexadecimal digits are visible ASCII")
    }
}

/// Whether `text` is `length` lower-case hexadecimal digits.
fn hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn trace(text: &str) -> Option<Trace> {
        Trace::of(
            &[(TRACEPARENT, HeaderValue::from_str(text).unwrap())]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn a_valid_trace_goes_on_and_a_malformed_one_does_not() {
        const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = trace(&format!("00-{ID}-00f067aa0ba902b7-01")).unwrap();
        let back = valid.value();
        let back = back.to_str().unwrap();
        assert!(
            back.starts_with(&format!("00-{ID}-")) && back.ends_with("-01") && back.len() == 55,
            "{back}"
        );
        assert!(trace(&format!("01-{ID}-00f067aa0ba902b7-01-more")).is_some());
        for bad in [
            "",
            "00",
            &format!("00-{ID}-00f067aa0ba902b7-01-more"),
            &format!("ff-{ID}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{ID}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }
}

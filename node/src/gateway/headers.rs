//! Request headers that the gateway understands, each parsed in one place.
//!
//! [`Context`](context) and [idempotency keys](request_id) are strict: misread, they would lose or double a write. `Prefer` and `Accept` are
//! wishes, so what cannot be parsed in them is skipped, as their RFCs (7240, 9110) ask.

use super::problem::Problem;
use super::query::TIMEOUT_MS_MAX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use quorate_core::request::{Code, RequestId};
use std::time::{Duration, SystemTime};
use twox_hash::XxHash3_64;

/// A sealed context: on replies what was seen, on writes what is replaced, on reads the least to see.
pub(super) const QUORATE_CONTEXT: HeaderName = HeaderName::from_static("quorate-context");
/// On replies to writes: who acknowledged.
pub(super) const QUORATE_ACKS: HeaderName = HeaderName::from_static("quorate-acks");
/// On replies to reads: who answered.
pub(super) const QUORATE_ANSWERS: HeaderName = HeaderName::from_static("quorate-answers");
/// On replies with one value: a delete is live beside it.
pub(super) const QUORATE_DELETED: HeaderName = HeaderName::from_static("quorate-deleted");
/// On replies to conditional writes: what such a condition is worth.
pub(super) const QUORATE_PRECONDITION: HeaderName = HeaderName::from_static("quorate-precondition");
/// RFC 7240.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// RFC 7240.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The client's own name for a write.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The media type that asks for the list of siblings even if there is only one.
pub(super) const SIBLINGS_JSON: &str = "application/vnd.quorate.siblings+json";
/// What a value is if its writer did not say.
pub(super) const OCTET_STREAM: &str = "application/octet-stream";
/// Longest Content-Type that is stored, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The only header of this name, or an error if there are several.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Problem::bad_request(format!("the header {name} is given twice"))),
    }
}

/// The sealed context, decoded but not opened. An empty header is an error, not "no context": it is what a script with an
/// unset variable sends, and a blind write is not what it meant.
pub(super) fn context(headers: &HeaderMap) -> Result<Option<Bytes>, Problem> {
    let Some(value) = single(headers, &QUORATE_CONTEXT)? else {
        return Ok(None);
    };
    match URL_SAFE_NO_PAD.decode(value.as_bytes()) {
        Ok(sealed) if !sealed.is_empty() => Ok(Some(Bytes::from(sealed))),
        _ => Err(Problem::coded(
            Code::ForgedContext,
            "the Quorate-Context header is not one that this cluster issued (it is not base64url without padding, or empty); \
             read the key again and send back the header that comes with it, unchanged",
        )),
    }
}

/// A context as it goes into a header.
pub(super) fn context_value(sealed: &[u8]) -> HeaderValue {
    HeaderValue::try_from(URL_SAFE_NO_PAD.encode(sealed)).expect("base64url is visible ASCII")
}

/// The MIME type of a body to be stored.
pub(super) fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = single(headers, &CONTENT_TYPE)? else {
        return Ok(OCTET_STREAM.to_string());
    };
    match value.to_str() {
        Ok("") => Ok(OCTET_STREAM.to_string()),
        Ok(text) if text.len() <= CONTENT_TYPE_BYTES_MAX => Ok(text.to_string()),
        _ => Err(Problem::bad_request(format!(
            "Content-Type must be at most {CONTENT_TYPE_BYTES_MAX} bytes of visible ASCII"
        ))),
    }
}

/// The id of a write: a hash of the client's `Idempotency-Key`, or random. Who gives a key may send the write again, or has: its id says so from the
/// first try on, since nobody knows which try it is.
pub(super) fn request_id(headers: &HeaderMap) -> Result<RequestId, Problem> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let stamp_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    match single(headers, &IDEMPOTENCY_KEY)?.map(HeaderValue::as_bytes) {
        None => Ok(RequestId::new(stamp_ms, rand::random())),
        Some(key) if (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => {
            Ok(RequestId::new(stamp_ms, XxHash3_64::oneshot(key)).again())
        }
        Some(_) => Err(Problem::bad_request(
            "Idempotency-Key must be 1 to 255 characters of visible ASCII, without spaces",
        )),
    }
}

/// What `Prefer` asks for and the gateway knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// `return=representation` (true) or `return=minimal` (false).
    pub(super) representation: Option<bool>,
    /// `wait=N`, in whole seconds; more than the longest timeout counts as the longest.
    pub(super) wait: Option<Duration>,
}

/// Reads all `Prefer` headers; the first of equal preferences counts (RFC 7240, section 2).
pub(super) fn preferences(headers: &HeaderMap) -> Preferences {
    let mut preferences = Preferences::default();
    let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    for preference in texts.flat_map(|text| text.split(',')) {
        let bare = preference.split(';').next().unwrap_or_default();
        let Some((name, value)) = bare.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("return") && preferences.representation.is_none() {
            preferences.representation = match value {
                "representation" => Some(true),
                "minimal" => Some(false),
                _ => None,
            };
        }
        if name.trim().eq_ignore_ascii_case("wait") && preferences.wait.is_none() {
            let seconds = value.parse::<u32>().ok().filter(|&seconds| seconds > 0);
            let longest = Duration::from_millis(TIMEOUT_MS_MAX);
            preferences.wait = seconds.map(|seconds| Duration::from_secs(seconds.into()).min(longest));
        }
    }
    preferences
}

/// In which form siblings are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON, and only where there is more than one value.
    #[default]
    Json,
    /// JSON always, because the client named the type of the list.
    SiblingsJson,
    /// One part per sibling, where there is more than one value.
    Multipart,
}

/// Reads `Accept`. It never leads to an error: what cannot be had is answered in JSON.
pub(super) fn form(headers: &HeaderMap) -> Form {
    let mut form = Form::Json;
    // Of equal weights the more exact range wins, then JSON.
    let (mut json, mut multipart) = ((0, 0), (0, 0));
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in texts.flat_map(|text| text.split(',')) {
        let mut parts = range.split(';');
        let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let weight = parts.find_map(weight).unwrap_or(1000);
        match name.as_str() {
            SIBLINGS_JSON if weight > 0 => form = Form::SiblingsJson,
            "application/json" => json = json.max((weight, 2)),
            "application/*" => json = json.max((weight, 1)),
            "multipart/mixed" => multipart = multipart.max((weight, 2)),
            "multipart/*" => multipart = multipart.max((weight, 1)),
            "*/*" => json = json.max((weight, 0)),
            _ => {}
        }
    }
    if form == Form::Json && multipart.0 > 0 && multipart > json {
        Form::Multipart
    } else {
        form
    }
}

/// `q=0.5` in thousandths.
fn weight(parameter: &str) -> Option<u32> {
    let (name, value) = parameter.split_once('=')?;
    let weight = value
        .trim()
        .parse::<f32>()
        .ok()
        .filter(|_| name.trim().eq_ignore_ascii_case("q"))?;
    // A cast of a float saturates, and not-a-number becomes 0.
    Some((weight * 1000.0) as u32).map(|thousandths| thousandths.min(1000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_context_survives_its_header_and_rubbish_is_forged() {
        let sealed = [0, 1, 254, 255, 62, 63];
        let there = [(QUORATE_CONTEXT, context_value(&sealed))].into_iter().collect();
        assert_eq!(context(&there).unwrap().unwrap(), &sealed[..]);
        assert!(context(&HeaderMap::new()).unwrap().is_none());
        for rubbish in ["", "=", "AAAA=", "a", "AA+/", "not base64!"] {
            let problem = context(&headers(QUORATE_CONTEXT, &[rubbish])).unwrap_err();
            assert_eq!(problem.code, "forged_context", "{rubbish:?}");
        }
        assert_eq!(
            context(&headers(QUORATE_CONTEXT, &["AAAA", "AAAA"])).unwrap_err().code,
            "bad_request"
        );
    }

    #[test]
    fn an_idempotency_key_always_gives_the_same_id_and_no_key_a_new_one() {
        let id = |values: &[&str]| request_id(&headers(IDEMPOTENCY_KEY, values));
        assert!(id(&["a"]).unwrap().same(&id(&["a"]).unwrap()));
        assert!(!id(&["a"]).unwrap().same(&id(&["b"]).unwrap()));
        assert!(!id(&[]).unwrap().same(&id(&[]).unwrap()));
        // Who gives one may send the write again.
        assert!(id(&["a"]).unwrap().is_again() && !id(&[]).unwrap().is_again());
        assert!(id(&[&"x".repeat(255)]).is_ok());
        for bad in ["", "a b", &"x".repeat(256)] {
            assert_eq!(id(&[bad]).unwrap_err().code, "bad_request", "{bad:?}");
        }
    }

    #[test]
    fn preferences_that_make_no_sense_are_skipped() {
        let read = |values: &[&str]| preferences(&headers(PREFER, values));
        let second = Some(Duration::from_secs(1));
        let table: [(&[&str], Option<bool>, Option<Duration>); 7] = [
            (&["return=representation, wait=1"], Some(true), second),
            (&["Wait = 1; x=y", "RETURN=\"minimal\""], Some(false), second),
            (&["return=minimal", "return=representation"], Some(false), None),
            (&["wait=99999"], None, Some(Duration::from_secs(60))),
            (&["wait=0"], None, None),
            (&["wait=soon, respond-async"], None, None),
            (&[], None, None),
        ];
        for (values, representation, wait) in table {
            assert_eq!(read(values), Preferences { representation, wait }, "{values:?}");
        }
    }

    #[test]
    fn accept_chooses_between_json_and_multipart_and_is_json_otherwise() {
        let table: [(&[&str], Form); 12] = [
            (&[], Form::Json),
            (&["*/*"], Form::Json),
            (&["text/html"], Form::Json),
            (&["application/json"], Form::Json),
            (&["multipart/mixed"], Form::Multipart),
            (&["Multipart/Mixed; q=0.2"], Form::Multipart),
            (&["multipart/mixed;q=0"], Form::Json),
            (&["multipart/mixed, */*"], Form::Multipart),
            (&["multipart/mixed;q=0.5, application/json;q=0.9"], Form::Json),
            (&["multipart/mixed, application/json"], Form::Json),
            (&["multipart/mixed", SIBLINGS_JSON], Form::SiblingsJson),
            (&["multipart/mixed;q=nan, application/json;q=x"], Form::Json),
        ];
        for (values, want) in table {
            assert_eq!(form(&headers(ACCEPT, values)), want, "{values:?}");
        }
    }
}

//! Paths: `/v1/kv/{bucket}/{key}[/{sort}]`, where each segment is bytes in percent-encoding.
//!
//! The path is cut at its slashes first and decoded second, so `%2F` is a slash inside a key and never a separator, and a key
//! need not be UTF-8. Nothing is normalized: `.` and `..` are keys like any other, `+` is a plus sign.

use super::problem::Problem;
use quorate_core::key::Key;
use std::borrow::Cow;

/// Where keys live.
pub(super) const PREFIX: &str = "/v1/kv/";

/// What a path below [`PREFIX`] names.
#[derive(Debug)]
pub(super) enum Target {
    /// A bucket: not served yet.
    Bucket,
    /// One record.
    Record(Key),
}

/// Reads what follows [`PREFIX`].
pub(super) fn parse(rest: &str) -> Result<Target, Problem> {
    let mut segments = rest.split('/');
    let bucket = decode("bucket", segments.next().unwrap_or_default())?;
    let Some(key) = segments.next() else {
        return Ok(Target::Bucket);
    };
    let key = decode("key", key)?;
    let sort = segments.next().map(|sort| decode("sort key", sort)).transpose()?;
    if segments.next().is_some() {
        return Err(Problem::bad_request(
            "a path has at most three parts, /v1/kv/{bucket}/{key}/{sort}; write a slash inside a part as %2F",
        ));
    }
    if sort.as_ref().is_some_and(|sort| sort.is_empty()) {
        return Err(Problem::bad_request(
            "the sort key is empty; leave the last slash out for the item without a sort key",
        ));
    }
    match Key::new(&bucket, &key, sort.as_deref()) {
        Ok(key) => Ok(Target::Record(key)),
        Err(error) => Err(Problem::bad_request(error.to_string())),
    }
}

/// Decodes one part; `name` is for the error.
pub(super) fn decode<'a>(name: &str, text: &'a str) -> Result<Cow<'a, [u8]>, Problem> {
    percent_decode(text).ok_or_else(|| {
        Problem::bad_request(format!(
            "bad percent-encoding in the {name}: after % come two hexadecimal digits"
        ))
    })
}

/// The bytes that `text` stands for; `None` if a `%` is not followed by two hexadecimal digits.
fn percent_decode(text: &str) -> Option<Cow<'_, [u8]>> {
    let mut rest = text.as_bytes();
    let Some(first) = rest.iter().position(|&byte| byte == b'%') else {
        return Some(Cow::Borrowed(rest));
    };
    let mut decoded = Vec::with_capacity(rest.len());
    decoded.extend_from_slice(&rest[..first]);
    rest = &rest[first..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        decoded.push(digit(*high)? << 4 | digit(*low)?);
        rest = tail;
    }
    Some(Cow::Owned(decoded))
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(rest: &str) -> Key {
        match parse(rest).unwrap() {
            Target::Record(key) => key,
            Target::Bucket => panic!("{rest} names a bucket"),
        }
    }

    #[test]
    fn segments_are_bytes_and_an_escaped_slash_is_part_of_the_key() {
        type Row = (&'static str, &'static [u8], &'static [u8], Option<&'static [u8]>);
        let table: [Row; 8] = [
            ("b/k", b"b", b"k", None),
            ("b/k/s", b"b", b"k", Some(b"s")),
            ("b/a%2Fb", b"b", b"a/b", None),
            ("b/%ff%FE%00", b"b", b"\xff\xfe\0", None),
            ("b%20c/%25/%2f", b"b c", b"%", Some(b"/")),
            ("b/../.", b"b", b"..", Some(b".")),
            ("b/a+b", b"b", b"a+b", None),
            ("b/\u{e9}", b"b", "\u{e9}".as_bytes(), None),
        ];
        for (rest, bucket, partition_key, sort_key) in table {
            let key = key(rest);
            assert_eq!(
                (key.bucket(), key.partition_key(), key.sort_key()),
                (bucket, partition_key, sort_key),
                "{rest}"
            );
        }
    }

    #[test]
    fn bad_paths_are_refused_with_a_hint() {
        let table = [
            ("b/k/", "last slash"),
            ("b/k/s/x", "%2F"),
            ("b/%", "hexadecimal"),
            ("b/%2", "hexadecimal"),
            ("b/%zz", "hexadecimal"),
            ("b/%+1", "hexadecimal"),
            ("%G0/k", "bucket"),
            ("b/", "at least one byte"),
            ("/k", "1 to 255"),
        ];
        for (rest, hint) in table {
            let problem = parse(rest).unwrap_err();
            assert!(problem.detail.contains(hint), "{rest}: {}", problem.detail);
            assert_eq!(problem.code, "bad_request", "{rest}");
        }
        assert!(
            parse(&format!("b/{}", "x".repeat(1024)))
                .unwrap_err()
                .detail
                .contains("1024")
        );
    }

    #[test]
    fn a_lone_segment_is_a_bucket() {
        assert!(matches!(parse("b").unwrap(), Target::Bucket));
    }
}

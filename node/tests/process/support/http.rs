//! HTTP/1.1 by hand: one request a connection, so that nothing between the test and the node hides a byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a read or write may block.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request in the making.
pub(crate) struct Request {
    to: SocketAddr,
    head: String,
    body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Request {
    request(to, "GET", path)
}

pub(crate) fn put(to: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Request {
    request(to, "PUT", path).body(body)
}

pub(crate) fn delete(to: SocketAddr, path: &str) -> Request {
    request(to, "DELETE", path)
}

/// A request of any method. The path goes out as it is.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str) -> Request {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    Request { to, head, body: None }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Gives back the context of an earlier reply.
    pub(crate) fn context(self, of: &Reply) -> Request {
        let context = of.context().unwrap_or_else(|| panic!("a context in {of:?}"));
        self.header("Quorate-Context", &context)
    }

    pub(crate) fn body(self, body: impl AsRef<[u8]>) -> Request {
        Request {
            body: Some(body.as_ref().to_vec()),
            ..self
        }
    }

    pub(crate) fn send(self) -> Reply {
        let what = self.head.clone();
        self.try_send().unwrap_or_else(|error| panic!("{error} after {what}"))
    }

    pub(crate) fn try_send(self) -> io::Result<Reply> {
        let mut bytes = self.head.into_bytes();
        if let Some(body) = &self.body {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body.unwrap_or_default());
        let mut stream = connect(self.to)?;
        // A node may answer and close before it has read everything: what it says then counts.
        let written = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        parse(&answer).ok_or_else(|| {
            written
                .and(read)
                .err()
                .unwrap_or_else(|| io::Error::other("no whole answer"))
        })
    }
}

/// A connection with patience.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let header = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<(String, String)> = lines.filter_map(header).collect();
    Some(Reply {
        status,
        headers,
        body: answer[end + 4..].to_vec(),
    })
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        self.headers
            .iter()
            .find(|(has, _)| *has == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn context(&self) -> Option<String> {
        self.header("Quorate-Context").map(str::to_owned)
    }

    pub(crate) fn content_type(&self) -> &str {
        self.header("Content-Type").unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the status is this one.
    pub(crate) fn expect(self, status: u16) -> Reply {
        assert_eq!(
            self.status,
            status,
            "{}\n{}",
            self.headers
                .iter()
                .map(|(n, v)| format!("{n}: {v}\n"))
                .collect::<String>(),
            self.text()
        );
        self
    }

    /// Fails unless this is a problem document of RFC 9457 with this status and code, and all the fields that are promised.
    pub(crate) fn problem(self, status: u16, code: &str) -> serde_json::Value {
        let reply = self.expect(status);
        assert_eq!(reply.header("Content-Type"), Some("application/problem+json"));
        let document = reply.json();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["type"], format!("urn:quorate:problem:{code}"), "{document}");
        for text in ["title", "detail"] {
            assert!(
                document[text].as_str().is_some_and(|text| !text.is_empty()),
                "{text} in {document}"
            );
        }
        assert!(
            ["not_applied", "unknown"].contains(&document["outcome"].as_str().unwrap()),
            "{document}"
        );
        assert!(
            document["retryable"].is_boolean() && document["replicas"].is_array(),
            "{document}"
        );
        document
    }
}

//! Clients that send a body in pieces, too slowly, or no HTTP at all.

use crate::support::http::{self, get, put};
use crate::support::{Home, eventually};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn bodies_may_come_in_chunks_and_connections_may_be_kept() {
    let home = Home::new();
    let dev = home.dev();
    let mut stream = http::connect(dev.http(1)).unwrap();
    let requests = [
        "PUT /v1/kv/chunks/key HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n",
        "GET /v1/kv/chunks/none HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/kv/chunks/key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ];
    // All at once: the answers come in the order of the requests.
    stream.write_all(requests.concat().as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["204", "404", "200"], "{answers}");
    assert!(answers.ends_with("hello, world"), "{answers}");
    let mut asking = http::connect(dev.http(2)).unwrap();
    asking.write_all(b"PUT /v1/kv/chunks/asked HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut go_on = [0; 25];
    asking.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 Continue\r\n"));
    asking.write_all(b"yes").unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(get(dev.http(3), "/v1/kv/chunks/asked").send().expect(200).text(), "yes");
    // A body without a length ends where the limit is.
    let mut endless = http::connect(dev.http(1)).unwrap();
    endless
        .write_all(b"PUT /v1/kv/chunks/endless HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![0; 1 << 16], b"\r\n".to_vec()].concat();
    let sent = (0..4000).take_while(|_| endless.write_all(&chunk).is_ok()).count();
    assert!(sent < 4000, "the node has taken {} MiB", sent >> 4);
    get(dev.http(1), "/v1/kv/chunks/endless").send().expect(404);
    dev.stop();
}

#[test]
fn slow_and_senseless_clients_are_cut_off_and_hurt_nobody() {
    let home = Home::new();
    let dev = home.dev();
    let (to, path) = (dev.http(1), "/v1/kv/rude/key");
    let mut slow = http::connect(to).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
    let began = Instant::now();
    let mut silent = http::connect(to).unwrap();
    let junk: Vec<u8> = (0..100_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let attempts: [&[u8]; 7] = [
        &junk,
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT /v1/kv/rude/key HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nabc",
    ];
    for attempt in attempts {
        let mut stream = http::connect(to).unwrap();
        // The node may close before it has taken everything.
        let _ = stream
            .write_all(attempt)
            .and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !answer.starts_with(b"HTTP/1.1 2"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    let mut headers = http::connect(to).unwrap();
    let _ = headers.write_all(
        format!(
            "GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
            "x".repeat(80_000)
        )
        .as_bytes(),
    );
    let mut answer = String::new();
    let _ = headers.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // A body that never comes, and a client that goes away in the middle of one.
    let mut half = http::connect(to).unwrap();
    half.write_all(b"PUT /v1/kv/rude/key HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        .unwrap();
    drop(half);
    get(to, path).send().expect(404);
    // Neither of these two has been answered in vain: a trickle does not keep a connection open.
    let trickle = slow.try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        let mut trickle = trickle;
        while began.elapsed() < Duration::from_secs(25) && trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "slow headers kept a connection for {:?}",
        began.elapsed()
    );
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut answer = Vec::new();
    let _ = silent.read_to_end(&mut answer);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "silence kept a connection for {:?}",
        began.elapsed()
    );
    drop(slow);
    trickling.join().unwrap();
    put(to, path, "still here").send().expect(204);
    assert_eq!(get(dev.http(2), path).send().expect(200).text(), "still here");
    eventually("all connections are gone", || {
        let scrape = get(dev.admin(1), "/metrics").send().text();
        scrape.contains("\nquorate_http_connections 1\n").then_some(())
    });
    dev.stop();
}

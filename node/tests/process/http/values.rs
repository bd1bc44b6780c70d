//! Reading, writing, deleting: what each node shows of what another one took.

use super::{set, siblings};
use crate::support::Home;
use crate::support::dev::NODES;
use crate::support::http::{delete, get, put, request};

#[test]
fn every_node_takes_every_key_and_what_one_stores_all_others_show() {
    let home = Home::new();
    let dev = home.dev();
    for writer in NODES {
        let path = format!("/v1/kv/basics/key-{writer}");
        let written = put(dev.http(writer), &path, "first")
            .header("Content-Type", "text/plain")
            .send()
            .expect(204);
        let acks = written.header("Quorate-Acks").unwrap();
        assert!(acks.split(", ").count() >= 2, "{acks}");
        assert!(
            acks.split(", ")
                .all(|ack| ack.starts_with('n') && ack.ends_with("=primary;durable")),
            "{acks}"
        );
        assert!(written.body.is_empty());
        for reader in NODES {
            let found = get(dev.http(reader), &path).send().expect(200);
            assert_eq!(
                (found.text().as_str(), found.header("Content-Type")),
                ("first", Some("text/plain"))
            );
            assert!(
                found.header("ETag").is_some_and(|tag| tag.starts_with('"')),
                "{found:?}"
            );
            assert!(found.header("Quorate-Answers").is_some() && found.header("Server-Timing").is_some());
            let head = request(dev.http(reader), "HEAD", &path).send().expect(200);
            assert_eq!((head.body.len(), head.header("Content-Length")), (0, Some("5")));
            assert_eq!(head.header("ETag"), found.header("ETag"));
        }
        let other = dev.http(writer % 3 + 1);
        let found = get(other, &path).send().expect(200);
        let written = put(other, &path, "second").context(&found).send().expect(204);
        assert_eq!(get(dev.http(writer), &path).send().expect(200).text(), "second");
        let deleted = delete(dev.http(writer), &path).context(&written).send().expect(204);
        assert!(deleted.context().is_some() && deleted.header("Quorate-Acks").is_some());
        for reader in NODES {
            let gone = get(dev.http(reader), &path).send();
            assert!(gone.context().is_some(), "{gone:?}");
            gone.problem(404, "not_found");
            request(dev.http(reader), "HEAD", &path).send().expect(404);
        }
    }
    let never = get(dev.http(1), "/v1/kv/basics/never").send();
    assert_eq!(never.context(), None);
    never.problem(404, "not_found");
    dev.stop();
}

#[test]
fn two_writes_with_one_stale_context_stand_side_by_side_until_somebody_resolves_them() {
    let home = Home::new();
    let dev = home.dev();
    let path = "/v1/kv/carts/ada";
    let start = put(dev.http(1), path, "start").send().expect(204);
    let left = put(dev.http(1), path, "left").context(&start).send().expect(204);
    put(dev.http(2), path, "right").context(&start).send().expect(204);
    for node in NODES {
        let both = get(dev.http(node), path).send().expect(300);
        assert_eq!(siblings(&both), set(&["left", "right"]));
        let parts = get(dev.http(node), path)
            .header("Accept", "multipart/mixed")
            .send()
            .expect(300);
        assert!(
            parts
                .header("Content-Type")
                .unwrap()
                .starts_with("multipart/mixed; boundary=")
        );
        assert!(parts.text().contains("left") && parts.text().contains("right"));
        let text = get(dev.http(node), path)
            .header("Accept", "text/html")
            .send()
            .expect(300);
        assert_eq!(siblings(&text).len(), 2, "Accept never gives 406");
    }
    // The writer's own context covers its own write, not the one beside it.
    let mine = put(dev.http(3), path, "left again")
        .context(&left)
        .header("Prefer", "return=representation")
        .send()
        .expect(300);
    assert_eq!(siblings(&mine), set(&["left again", "right"]));
    assert_eq!(mine.header("Preference-Applied"), Some("return=representation"));
    let resolved = put(dev.http(2), path, "one")
        .context(&mine)
        .header("Prefer", "return=representation")
        .send()
        .expect(200);
    assert_eq!(resolved.text(), "one");
    for node in NODES {
        assert_eq!(get(dev.http(node), path).send().expect(200).text(), "one");
    }
    // A delete beside a value is told, and the value is there.
    delete(dev.http(1), path).context(&resolved).send().expect(204);
    put(dev.http(3), path, "phoenix").context(&mine).send().expect(204);
    let beside = get(dev.http(1), path).send().expect(200);
    assert_eq!(beside.text(), "phoenix");
    let listed = get(dev.http(1), path)
        .header("Accept", "application/vnd.quorate.siblings+json")
        .send();
    assert_eq!(siblings(&listed), set(&["phoenix"]));
    dev.stop();
}

#[test]
fn a_delete_needs_a_context_and_covers_only_what_it_was_shown() {
    let home = Home::new();
    let dev = home.dev();
    let path = "/v1/kv/deletes/key";
    let first = put(dev.http(1), path, "a").send().expect(204);
    delete(dev.http(1), path).send().problem(428, "context_required");
    assert_eq!(get(dev.http(2), path).send().expect(200).text(), "a");
    // A write that the deleter has not seen stays; both are told.
    put(dev.http(2), path, "b").send().expect(204);
    delete(dev.http(3), path).context(&first).send().expect(204);
    let left = get(dev.http(1), path).send().expect(200);
    assert_eq!(
        (left.text().as_str(), left.header("Quorate-Deleted")),
        ("b", Some("concurrent"))
    );
    let all = delete(dev.http(2), path).context(&left).send().expect(204);
    let gone = get(dev.http(3), path).send().expect(404);
    // The context of the tombstone is a context like any other.
    put(dev.http(1), path, "again").context(&gone).send().expect(204);
    assert_eq!(get(dev.http(2), path).send().expect(200).text(), "again");
    put(dev.http(1), path, "beside").context(&all).send().expect(204);
    assert_eq!(
        siblings(&get(dev.http(2), path).send().expect(300)),
        set(&["again", "beside"])
    );
    dev.stop();
}

#[test]
fn keys_and_values_are_bytes() {
    let home = Home::new();
    let dev = home.dev();
    let keys = [
        "/v1/kv/bytes/a%2Fb",
        "/v1/kv/bytes/a/b",
        "/v1/kv/bytes/a%00b",
        "/v1/kv/bytes/%FF%FE",
        "/v1/kv/bytes/%C3%BC",
        "/v1/kv/bytes/..",
        "/v1/kv/bytes/a+b",
        "/v1/kv/bytes/a%20b",
        "/v1/kv/%2F/%2F/%2F",
        "/v1/kv/bytes/s/1",
        "/v1/kv/bytes/s/2",
        "/v1/kv/bytes/s",
    ];
    for (at, path) in keys.iter().enumerate() {
        put(dev.http(at % 3 + 1), path, format!("value {at}"))
            .send()
            .expect(204);
    }
    for (at, path) in keys.iter().enumerate() {
        assert_eq!(
            get(dev.http((at + 1) % 3 + 1), path).send().expect(200).text(),
            format!("value {at}"),
            "{path}"
        );
    }
    // The same key in another spelling.
    assert_eq!(
        get(dev.http(1), "/v1/kv/b%79tes/%61%2fb").send().expect(200).text(),
        "value 0"
    );
    let all: Vec<u8> = (0..=255).collect();
    put(dev.http(1), "/v1/kv/bytes/all", &all).send().expect(204);
    let found = get(dev.http(2), "/v1/kv/bytes/all").send().expect(200);
    assert_eq!((&found.body, found.content_type()), (&all, "application/octet-stream"));
    put(dev.http(1), "/v1/kv/bytes/empty", "")
        .header("Content-Type", "a/b; c=\"d\"")
        .send()
        .expect(204);
    let empty = get(dev.http(2), "/v1/kv/bytes/empty").send().expect(200);
    assert_eq!((empty.body.len(), empty.content_type()), (0, "a/b; c=\"d\""));
    let big = vec![7; 1 << 20];
    put(dev.http(3), "/v1/kv/bytes/big", &big).send().expect(204);
    for node in NODES {
        assert_eq!(get(dev.http(node), "/v1/kv/bytes/big").send().expect(200).body, big);
    }
    dev.stop();
}

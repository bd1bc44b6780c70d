//! Records one by one: what each operation leaves, and the bytes that are refused.

use super::*;

#[test]
fn a_record_out_of_form_is_refused() {
    let sibling = |dot, n| sibling(dot, request(n), content(1));
    let gone = |stamp_ms, unique| WriteId {
        request: RequestId { stamp_ms, unique },
        payload: 7,
        basis: 0,
    };
    let context: Context = [dot(1, 1), dot(1, 2)].into_iter().collect();
    let (one, two) = (sibling(dot(1, 1), 1), sibling(dot(1, 2), 2));
    let many: Vec<_> = (0..9).map(|n| gone(2 * n, n)).collect();
    let sent_again: Vec<_> = (0..65).map(|n| gone(2 * n + 1, n)).collect();
    let mut both = [&many[..8], &sent_again[..64]].concat();
    both.sort_unstable();
    let cases = [
        ("in form", vec![one.clone(), two.clone()], many[..8].to_vec(), true),
        ("siblings unsorted", vec![two.clone(), one.clone()], vec![], false),
        ("a dot twice", vec![one.clone(), one.clone()], vec![], false),
        (
            "a dot outside of the context",
            vec![sibling(dot(1, 3), 1)],
            vec![],
            false,
        ),
        (
            "an actor outside of the context",
            vec![sibling(dot(2, 1), 1)],
            vec![],
            false,
        ),
        ("a dot before the first", vec![sibling(dot(1, 0), 1)], vec![], false),
        ("one kind in form", vec![], sent_again[..64].to_vec(), true),
        ("both in form", vec![], both, true),
        ("too many overwritten", vec![], many, false),
        ("too many that were sent again", vec![], sent_again, false),
        ("overwritten unsorted", vec![], vec![gone(2, 2), gone(1, 1)], false),
        (
            "one write overwritten twice",
            vec![],
            vec![gone(1, 1), gone(3, 1)],
            false,
        ),
        ("once of each kind", vec![], vec![gone(1, 1), gone(2, 1)], true),
    ];
    for (what, siblings, overwritten, accepted) in cases {
        let overwritten: WriteIds = postcard::from_bytes(&postcard::to_stdvec(&overwritten).unwrap()).unwrap();
        let record = Record {
            context: context.clone(),
            siblings,
            overwritten,
        };
        assert_eq!(Record::decode(&record.encode()).is_ok(), accepted, "{what}");
    }
    assert!(Record::decode(&[]).is_err());
    let mut newer = Record::default().encode().to_vec();
    newer[0] = EXPIRING_FORMAT + 1;
    let error = Record::decode(&newer).unwrap_err();
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn what_a_record_knows_of_a_request() {
    let mut record = Record::default();
    record.write(&Seen::default(), sibling(dot(1, 1), request(1), content(1)));
    let seen = Seen::all_of(&record);
    record.write(&Seen::default(), sibling(dot(1, 2), request(2), content(2)));
    record.write(&seen, sibling(dot(1, 3), request(3), content(3)));
    let stamped_anew = RequestId {
        stamp_ms: 99,
        unique: 2,
    };
    for (request, value, basis, known) in [
        (request(4), 1, 0, Known::New),
        (request(2), 2, 0, Known::Live(dot(1, 2))),
        (stamped_anew, 2, 0, Known::Live(dot(1, 2))),
        (request(2), 3, 0, Known::Reused),
        (request(2), 0, 0, Known::Reused),
        (request(2), 2, 1, Known::Reused),
        (request(1), 1, 0, Known::Overwritten),
        (request(1), 2, 0, Known::Reused),
        (request(1), 1, 1, Known::Reused),
    ] {
        let payload = content(value).payload_hash();
        let write = WriteId {
            request,
            payload,
            basis,
        };
        assert_eq!(record.known(&write), known, "{write:?}");
    }
}

#[test]
fn a_write_replaces_what_it_covers_and_every_tombstone() {
    let mut record = Record::default();
    record.write(&Seen::default(), sibling(dot(1, 1), request(1), content(1)));
    let first = Seen::all_of(&record);
    record.write(&Seen::default(), sibling(dot(1, 2), request(2), content(2)));
    record.write(&first, sibling(dot(1, 3), request(3), Content::Tombstone));
    assert_eq!(dots(&record), [dot(1, 2), dot(1, 3)]);
    record.write(&Seen::default(), sibling(dot(1, 4), request(4), content(3)));
    assert_eq!(dots(&record), [dot(1, 2), dot(1, 4)]);
    // What the delete had seen stays covered, and its retry does not come back.
    assert!(record.context().contains(dot(1, 3)));
    let delete = sibling(dot(1, 3), request(3), Content::Tombstone);
    assert_eq!(record.known(&delete.write_id()), Known::Overwritten);
    assert_eq!(record.left_by(&first).count(), 2);
    assert_eq!(record.left_by(&Seen::all_of(&record)).count(), 0);
}

#[test]
fn two_clients_that_write_in_turns_leave_two_siblings_and_not_a_hundred() {
    let mut record = Record::default();
    let mut seen = [Seen::default(), Seen::default()];
    for n in 0..101 {
        let mine = &mut seen[n % 2];
        let dot = next_dot(&record, 1);
        record.write(mine, sibling(dot, request(n as u64), content(1 + n as u8)));
        mine.context.insert(dot);
        assert!(record.siblings().len() <= 2);
    }
    assert_eq!(dots(&record), [dot(1, 100), dot(1, 101)]);
}

#[test]
fn the_newest_ids_of_overwritten_writes_are_kept_and_each_once() {
    let mut record = Record::default();
    for n in 1..=20 {
        let everything = Seen::all_of(&record);
        let dot = next_dot(&record, 1);
        record.write(&everything, sibling(dot, request(n), content(1)));
    }
    let kept: Vec<u64> = record.overwritten().iter().map(|o| o.request.unique).collect();
    assert_eq!(kept, (12..20).collect::<Vec<u64>>());
    let mut other = Record::default();
    let newer = RequestId {
        stamp_ms: 50,
        unique: 12,
    };
    other
        .overwritten
        .extend([sibling(dot(1, 1), newer, content(1)).write_id()]);
    record.merge(&other);
    let kept: Vec<u64> = record.overwritten().iter().map(|o| o.request.unique).collect();
    assert_eq!(kept, [13, 14, 15, 16, 17, 18, 19, 12]);
}

/// Overwrites what is there, with ids from `from` on.
fn overwrite(record: &mut Record, ids: std::ops::Range<u64>, name: fn(u64) -> RequestId) {
    for n in ids {
        let everything = Seen::all_of(record);
        let dot = next_dot(record, 9);
        record.write(&everything, sibling(dot, name(n), content(2)));
    }
}

#[test]
fn a_write_that_was_sent_again_is_remembered_past_sixty_three_others_of_its_kind_and_any_number_of_the_rest() {
    let try_of = |dot, request| sibling(dot, request, content(1));
    let mut cut_off = Record::default();
    cut_off.write(&Seen::default(), try_of(dot(1, 1), request(1)));
    // (what the kept try says, overwrites sent once, overwrites sent again, whether the write comes back)
    let table = [
        (request(1), 8, 0, false),
        (request(1), 9, 0, true),
        (request(1), 0, 200, false),
        (request(1).again(), 500, 0, false),
        (request(1).again(), 500, 64, false),
        (request(1).again(), 0, 65, true),
    ];
    for (said, once, again, back) in table {
        let mut record = Record::default();
        record.write(&Seen::default(), try_of(dot(2, 1), said));
        overwrite(&mut record, 2..2 + once, request);
        overwrite(&mut record, 1000..1000 + again, |n| request(n).again());
        record.merge(&cut_off);
        record.settle_retries();
        let is_back = dots(&record).contains(&dot(1, 1));
        assert_eq!(
            is_back, back,
            "{said:?}, {once} overwrites, and {again} that were sent again"
        );
    }
}

#[test]
fn a_value_and_a_delete_have_different_payloads_whatever_the_content_type() {
    let value = |content_type: &str, body: &'static [u8]| {
        Content::Value(Value {
            content_type: content_type.into(),
            body: body.into(),
        })
    };
    let payloads = [
        Content::Tombstone,
        value("", b""),
        value("a", b""),
        value("", b"a"),
        value("a", b"a"),
    ];
    for (at, a) in payloads.iter().enumerate() {
        for b in &payloads[at + 1..] {
            assert_ne!(a.payload_hash(), b.payload_hash());
        }
    }
    assert_eq!(value("ab", b"cde").bytes(), 5);
}

#[test]
fn the_live_hash_names_the_siblings_and_nothing_else() {
    let mut a = Record::default();
    a.write(&Seen::default(), sibling(dot(1, 1), request(1), content(1)));
    let mut b = a.clone();
    b.context.insert(dot(2, 1));
    assert_eq!(a.live_hash(), b.live_hash());
    b.write(&Seen::default(), sibling(dot(1, 2), request(2), content(1)));
    assert_ne!(a.live_hash(), b.live_hash());
    assert_eq!(Record::default().live_hash(), Record::default().live_hash());
}

/// A write that was sent to two coordinators: each has minted a dot of its own for it.
fn twins() -> (Record, Record) {
    let (mut a, mut b) = (Record::default(), Record::default());
    a.write(&Seen::default(), sibling(dot(2, 1), request(1), content(1)));
    b.write(&Seen::default(), sibling(dot(1, 1), request(1), content(1)));
    (a, b)
}

/// What the client of a write has seen once it was told one of its dots.
fn told(dot: Dot) -> Seen {
    let write = sibling(dot, request(1), content(1)).write_id();
    Seen {
        context: [dot].into_iter().collect(),
        writes: [write].into_iter().collect(),
    }
}

#[test]
fn a_writer_replaces_its_own_write_under_whichever_dot_it_is_kept() {
    let (a, b) = twins();
    let mut record = merged(&a, &b);
    record.settle_retries();
    assert_eq!(dots(&record), [dot(1, 1)], "the smaller dot stays");
    assert_eq!(record.left_by(&told(dot(2, 1))).count(), 0);
    record.write(&told(dot(2, 1)), sibling(dot(1, 2), request(2), content(2)));
    assert_eq!(dots(&record), [dot(1, 2)]);
}

#[test]
fn a_twin_that_arrives_after_its_write_was_replaced_does_not_come_back() {
    let (a, b) = twins();
    // The next write is coordinated where only one of the twins is, or neither.
    for start in [a.clone(), b.clone(), Record::default()] {
        let mut record = start;
        record.write(&told(dot(2, 1)), sibling(dot(3, 1), request(2), content(2)));
        for late in [&a, &b] {
            record.merge(late);
            record.settle_retries();
            assert_eq!(dots(&record), [dot(3, 1)]);
        }
    }
}

#[test]
fn a_client_that_sends_a_write_again_with_what_it_was_told_does_not_overwrite_itself() {
    let (a, _) = twins();
    let mut elsewhere = Record::default();
    elsewhere.write(&told(dot(2, 1)), sibling(dot(3, 1), request(1), content(1)));
    assert_eq!(dots(&elsewhere), [dot(3, 1)]);
    elsewhere.merge(&a);
    elsewhere.settle_retries();
    assert_eq!(dots(&elsewhere), [dot(3, 1)]);
}

#[test]
fn tries_with_different_contexts_are_different_writes_and_none_is_lost() {
    let first = |dot| sibling(dot, request(1), content(1));
    let (mut a, mut d, mut b) = (Record::default(), Record::default(), Record::default());
    a.write(&Seen::default(), first(dot(1, 1)));
    d.write(&Seen::default(), first(dot(2, 1)));
    // The client was told the first dot, and sends the write again with that. Of two tries the smaller dot stays and the
    // covered one goes; were this one a try of the same write, each of the three would have another that removes it.
    let mut newer = first(dot(3, 1));
    newer.basis = told(dot(1, 1)).basis();
    b.write(&told(dot(1, 1)), newer);
    let (mut ad, mut db) = (merged(&a, &d), merged(&d, &b));
    ad.settle_retries();
    db.settle_retries();
    let mut all = merged(&ad, &db);
    all.settle_retries();
    assert_eq!(dots(&all), [dot(3, 1)]);
}

fn dots(record: &Record) -> Vec<Dot> {
    record.siblings().iter().map(|s| s.dot).collect()
}

/// A record with a sibling for each time at which one expires.
fn expiring(times: &[u64]) -> Record {
    let mut record = Record::default();
    for (at, &expires_ms) in (1..).zip(times) {
        let mut sibling = sibling(dot(1, at), request(at), content(1));
        sibling.expires_ms = expires_ms;
        record.write(&Seen::default(), sibling);
    }
    record
}

#[test]
fn only_records_in_which_something_expires_have_the_other_form() {
    assert_eq!(expiring(&[0, 0]).encode()[0], RECORD_FORMAT);
    let record = expiring(&[0, 7]);
    let bytes = record.encode();
    assert_eq!(bytes[0], EXPIRING_FORMAT);
    assert_eq!(Record::decode(&bytes).unwrap(), record);
    let plain = expiring(&[0, 0]).encode();
    assert_eq!(bytes[1..plain.len()], plain[1..], "the times follow behind");
    for times in [&[0u64, 0][..], &[1], &[1, 2, 3], &[]] {
        let times = postcard::to_stdvec(times).unwrap();
        let bytes = [&[EXPIRING_FORMAT], &plain[1..], &times].concat();
        assert!(Record::decode(&bytes).is_err(), "{times:?}");
    }
}

#[test]
fn a_record_ends_when_its_last_value_does() {
    assert_eq!(expiring(&[5, 7, 6]).ends_ms(), Some(7));
    assert_eq!(expiring(&[5, 0]).ends_ms(), None);
    let mut record = expiring(&[5]);
    record.write(&Seen::default(), sibling(dot(2, 1), request(9), Content::Tombstone));
    assert_eq!(record.ends_ms(), Some(5));
    record.write(
        &Seen::all_of(&record.clone()),
        sibling(dot(2, 2), request(10), Content::Tombstone),
    );
    assert_eq!(record.ends_ms(), Some(0));
    let record = expiring(&[5]);
    assert!(record.siblings()[0].is_live(4) && !record.siblings()[0].is_live(5));
}

#[test]
fn retiring_drops_lives_without_siblings_and_no_others() {
    let mut record = Record::default();
    for life in [1, 2, 3] {
        let everything = Seen::all_of(&record);
        record.write(&everything, sibling(dot(life, 1), request(life), content(1)));
    }
    record.context.insert(dot(4, 7));
    assert_eq!(record.idle_lives(), [1, 2, 4]);
    let before = record.clone();
    assert_eq!(record.retire(&[2, 3, 4, 5]), 2);
    assert_eq!(record.context.lives(), [1, 3]);
    assert_eq!(dots(&record), [dot(3, 1)]);
    assert!(record.is_canonical());
    assert_eq!(
        merged(&record, &before),
        before,
        "it is the same record with less of the past"
    );
}

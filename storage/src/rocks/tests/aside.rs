//! Directories marked for rebuild, and data set aside.

use super::*;
use crate::{mark_for_rebuild, set_aside_before, set_directory_aside};

fn refusal(path: &Path) -> OpenError {
    RocksStorage::open(path, &small()).unwrap_err()
}

fn used() -> TempDir {
    let home = empty_dir();
    let store = open(home.path());
    put(&store, 1, b"k", b"v");
    store.sync().unwrap();
    home
}

/// Names in a directory, the lock left out.
fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "LOCK").collect();
    names.sort();
    names
}

#[test]
fn a_marked_directory_is_refused_with_the_reason_and_nothing_changes() {
    let home = used();
    mark_for_rebuild(home.path(), "two\nlines").unwrap();
    mark_for_rebuild(home.path(), "a later reason").unwrap();
    let before = names(home.path());
    assert_eq!(before, ["FORMAT", "REBUILD", "db"]);
    for _ in 0..2 {
        let error = refusal(home.path());
        assert!(
            matches!(&error, OpenError::MarkedForRebuild { reason, .. } if reason == "two lines"),
            "{error:?}"
        );
        assert!(!error.is_damage() && error.to_string().contains("(two lines)"));
    }
    assert_eq!(names(home.path()), before);
}

#[test]
fn a_directory_can_be_marked_while_it_is_open() {
    let home = used();
    let store = open(home.path());
    mark_for_rebuild(store.path(), "an old copy").unwrap();
    put(&store, 2, b"k", b"v");
    let error = set_directory_aside(home.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
    drop(store);
    assert!(matches!(refusal(home.path()), OpenError::MarkedForRebuild { .. }));
}

#[test]
fn a_directory_set_aside_opens_empty_and_keeps_the_old_data() {
    let home = used();
    assert!(!open(home.path()).is_new());
    mark_for_rebuild(home.path(), "an old copy").unwrap();
    let aside = set_directory_aside(home.path()).unwrap();
    assert_eq!(names(&aside), ["FORMAT", "REBUILD", "db"]);
    assert_eq!(fs::read_to_string(aside.join("REBUILD")).unwrap(), "an old copy\n");
    assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o700);

    let store = open(home.path());
    assert!(store.is_new());
    assert_eq!(get(&store, 1, b"k"), None);
    put(&store, 2, b"k", b"new");
    store.sync().unwrap();
    drop(store);
    let store = open(home.path());
    assert!(!store.is_new());
    assert_eq!(get(&store, 2, b"k").unwrap(), b"new");

    fs::remove_file(aside.join("REBUILD")).unwrap();
    assert_eq!(get(&open(&aside), 1, b"k").unwrap(), b"v", "the old data are all there");
}

#[test]
fn each_time_data_are_set_aside_they_get_a_directory_of_their_own() {
    let home = used();
    let mut seen = std::collections::BTreeSet::new();
    for round in 1..=3 {
        assert!(seen.insert(set_directory_aside(home.path()).unwrap()));
        assert_eq!(names(home.path()).len(), round);
        drop(open(home.path()));
    }
    let before = set_aside_before(home.path()).unwrap();
    assert!(before.iter().map(|(path, _)| fs::canonicalize(path).unwrap()).eq(seen));
    assert!(before.iter().all(|&(_, bytes)| bytes > 0), "{before:?}");
    assert_eq!(names(home.path()).len(), 3 + 2);
}

#[test]
fn setting_aside_that_was_cut_off_anywhere_does_not_open_and_is_completed() {
    for steps in 1..=5 {
        let home = used();
        let aside = home.path().join("aside-20000101T000000Z");
        let moved = |name: &str| fs::rename(home.path().join(name), aside.join(name)).unwrap();
        mark_for_rebuild(home.path(), "why").unwrap();
        if steps >= 2 {
            fs::create_dir(&aside).unwrap();
        }
        if steps >= 3 {
            moved("FORMAT");
        }
        if steps >= 4 {
            moved("db");
        }
        if steps >= 5 {
            moved("REBUILD");
        } else {
            assert!(
                matches!(refusal(home.path()), OpenError::MarkedForRebuild { .. }),
                "{steps}"
            );
            let completed = set_directory_aside(home.path()).unwrap();
            assert!(steps < 2 || completed == fs::canonicalize(&aside).unwrap(), "{steps}");
            assert_eq!(names(&completed), ["FORMAT", "REBUILD", "db"]);
        }
        assert_eq!(names(home.path()).len(), 1);
        assert!(open(home.path()).is_new());
    }
}

#[test]
fn every_kind_of_damage_is_called_damage_and_can_be_set_aside() {
    let breakages: [fn(&Path); 6] = [
        |data| fs::write(data.join("FORMAT"), "quorate-dat\u{1} 1\n").unwrap(),
        |data| fs::remove_dir_all(data.join("db")).unwrap(),
        |data| fs::write(data.join("db/CURRENT"), "MANIFEST-999999\n").unwrap(),
        |data| fs::write(data.join("db/CURRENT"), "").unwrap(),
        |data| flip(&largest(data, "log"), 77),
        |data| fs::remove_file(largest(data, "sst")).unwrap(),
    ];
    for (number, breakage) in breakages.iter().enumerate() {
        let home = used();
        let store = open(home.path());
        store.db.flush().unwrap();
        put(&store, 2, b"k", &[7; 1000]);
        store.sync().unwrap();
        drop(store);
        breakage(home.path());
        let error = refusal(home.path());
        assert!(error.is_damage(), "{number}: {error:?}");
        set_directory_aside(home.path()).unwrap();
        assert!(open(home.path()).is_new());
    }
}

#[test]
fn what_is_not_damage_is_not_called_so() {
    let home = used();
    let store = open(home.path());
    assert!(!refusal(home.path()).is_damage(), "in use");
    drop(store);
    fs::write(home.path().join("FORMAT"), "quorate-data 2\n").unwrap();
    assert!(!refusal(home.path()).is_damage(), "newer");
    let error = set_directory_aside(home.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert_eq!(names(home.path()), ["FORMAT", "db"]);
}

#[test]
fn somebody_elses_directory_is_not_set_aside() {
    for (file, text) in [("thesis.tex", ""), ("FORMAT", "A4")] {
        let home = empty_dir();
        fs::write(home.path().join(file), text).unwrap();
        let error = set_directory_aside(home.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
    let error = set_directory_aside(Path::new("/nowhere/at/all")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

//! Who may open a data directory, and which directory is one.

use super::*;

fn refusal(path: &Path) -> OpenError {
    RocksStorage::open(path, &small()).unwrap_err()
}

fn used() -> TempDir {
    let home = empty_dir();
    put(&open(home.path()), 1, b"k", b"v");
    home
}

#[test]
fn a_new_directory_is_made_for_its_owner_alone() {
    let home = empty_dir();
    let data = home.path().join("deep/data");
    let store = open(&data);
    assert_eq!(store.path(), data);
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(data.join("FORMAT")).unwrap(), "quorate-data 1\n");
    assert!(!data.join("FORMAT.new").exists());
}

#[test]
fn a_second_open_is_refused_with_the_first_ones_process_id() {
    let home = used();
    let store = open(home.path());
    let error = refusal(home.path());
    assert!(
        matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("in use by process {}", std::process::id()))
    );
    drop(store);
    assert_eq!(get(&open(home.path()), 1, b"k").unwrap(), b"v");
}

#[test]
fn a_directory_that_others_can_read_is_refused_with_the_command_to_type() {
    let home = used();
    for mode in [0o755, 0o710, 0o701] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(home.path());
        assert!(
            matches!(error, OpenError::LoosePermissions { mode: found, .. } if found == mode),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .ends_with(&format!("chmod 700 {}", home.path().display())),
            "{error}"
        );
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    open(home.path());
}

#[test]
fn a_newer_format_is_refused_with_a_hint() {
    let home = used();
    fs::write(home.path().join("FORMAT"), "quorate-data 2\n").unwrap();
    let error = refusal(home.path());
    assert!(
        matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("start the newer version"), "{error}");
}

#[test]
fn a_format_that_no_version_wrote_is_refused() {
    for text in [
        "",
        "quorate-data",
        "quorate-data 0\n",
        "quorate-data one\n",
        "quorate-data 99999999999\n",
        "\u{1}",
    ] {
        let home = used();
        fs::write(home.path().join("FORMAT"), text).unwrap();
        assert!(matches!(refusal(home.path()), OpenError::BadFormat { .. }), "{text:?}");
    }
}

#[test]
fn somebody_elses_directory_is_refused_and_left_as_it_is() {
    let home = empty_dir();
    fs::write(home.path().join("thesis.tex"), "").unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = refusal(home.path());
    assert!(
        matches!(&error, OpenError::NotOurs { found, .. } if found == "thesis.tex"),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_used_directory_that_lost_its_format_is_refused() {
    let home = used();
    fs::remove_file(home.path().join("FORMAT")).unwrap();
    assert!(matches!(refusal(home.path()), OpenError::NotOurs { found, .. } if found == "db"));
}

#[test]
fn the_root_of_a_fresh_volume_counts_as_empty() {
    let home = empty_dir();
    fs::create_dir(home.path().join("lost+found")).unwrap();
    open(home.path());
}

#[test]
fn a_used_directory_that_lost_its_database_is_refused() {
    for gone in ["db", "db/CURRENT"] {
        let home = used();
        let gone = home.path().join(gone);
        fs::remove_dir_all(&gone).or_else(|_| fs::remove_file(&gone)).unwrap();
        let error = refusal(home.path());
        assert!(matches!(error, OpenError::DatabaseMissing { .. }), "{error:?}");
        assert!(error.is_damage() && error.to_string().contains("set aside"), "{error}");
    }
}

#[test]
fn a_first_start_that_was_cut_off_is_started_over() {
    let home = used();
    fs::rename(home.path().join("FORMAT"), home.path().join("FORMAT.new")).unwrap();
    drop(open(home.path()));
    assert!(home.path().join("FORMAT").exists());

    let home = empty_dir();
    fs::write(home.path().join("FORMAT.new"), "quor").unwrap();
    drop(open(home.path()));
    open(home.path());
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let home = empty_dir();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(refusal(&file), OpenError::Io { .. }));
}

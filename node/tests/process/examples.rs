//! The programs beside the binary: the client library's examples, and the load generator. They are built by other packages; a test whose
//! program is not there says so by name.

use crate::support::output::run;
use crate::support::{Home, beside_quorate, skipped};
use serde_json::Value;
use std::process::Command;

/// The program, or a line that says what was not tested.
fn program(path: &str) -> Option<Command> {
    let found = beside_quorate(path);
    if found.is_none() {
        skipped(&format!(
            "{path} is not built (cargo build --release --workspace --bins --examples)"
        ));
    }
    found.map(Command::new)
}

#[test]
fn the_examples_of_the_client_library_run_twice_and_say_what_they_promise() {
    let home = Home::new();
    let dev = home.dev();
    let expected: [(&str, &[&str], &[&str]); 3] = [
        ("examples/hello", &[], &["hello world"]),
        ("examples/siblings", &[], &["2 siblings", "apples", " and ", "pears"]),
        ("examples/update", &["red", "green", "blue"], &["red", "green", "blue"]),
    ];
    for _ in 0..2 {
        for (path, arguments, parts) in &expected {
            let Some(mut example) = program(path) else { continue };
            let output = run(example.arg(dev.client_toml()).args(*arguments), b"");
            let (told, complained) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(output.status.success(), "{path}: {told}{complained}");
            assert!(parts.iter().all(|part| told.contains(part)), "{path}: {told}");
        }
    }
    dev.stop();
}

#[test]
fn the_load_generator_reports_the_promised_fields() {
    let home = Home::new();
    let dev = home.dev();
    let config = dev.client_toml();
    for (target, pace) in [("quorate", &["--rate", "200"][..]), ("http", &["--closed"])] {
        let Some(mut bench) = program("quorate-bench") else {
            continue;
        };
        bench
            .args(["run", "--target", target, "--config"])
            .arg(&config)
            .args(pace);
        bench.args("--workload a --records 200 --value-size 100 --in-flight 8 --duration 2 -o json".split(' '));
        let output = run(&mut bench, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["target"], &report["workload"]), (&target.into(), &"a".into()));
        assert!(
            report["achieved_rate"].as_f64().is_some_and(|rate| rate > 0.0),
            "{report}"
        );
        assert_eq!(report["offered_rate"].as_f64(), (target == "quorate").then_some(200.0));
        assert!(report["ops"].as_u64().is_some_and(|ops| ops > 0), "{report}");
        assert_eq!(
            (&report["errors"], &report["unknown"]),
            (&0.into(), &0.into()),
            "{report}"
        );
        for times in ["latency_us", "service_us"] {
            for point in ["p50", "p90", "p95", "p99", "p999", "max"] {
                assert!(
                    report[times][point].as_f64().is_some_and(|us| us > 0.0),
                    "{times} {point} in {report}"
                );
            }
        }
    }
    dev.stop();
}

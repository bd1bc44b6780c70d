//! Whole runs over HTTP against a small gateway of the test's own, which keeps siblings the way the store does.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_bench::args::Args;
use quorate_bench::{BenchError, execute};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Live dots and all dots ever seen, for each path. A context is a list of dots.
#[derive(Default)]
struct Store {
    records: BTreeMap<String, (BTreeSet<u64>, BTreeSet<u64>)>,
    dots: u64,
    /// The most siblings that a record ever had.
    most: usize,
    /// Every so many writes one is refused.
    refuse_each: Option<u64>,
}

fn context_of(headers: &HeaderMap) -> BTreeSet<u64> {
    let text = headers
        .get("quorate-context")
        .map_or("", |value| value.to_str().unwrap());
    text.split('.')
        .filter(|dot| !dot.is_empty())
        .map(|dot| dot.parse().unwrap())
        .collect()
}

impl Store {
    fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut status = StatusCode::NO_CONTENT;
        let mut context = context_of(headers);
        if method == Method::PUT {
            self.dots += 1;
            if self.refuse_each.is_some_and(|each| self.dots.is_multiple_of(each)) {
                let problem = r#"{"outcome":"not_applied","detail":"try later"}"#;
                return Response::builder().status(503).body(Full::from(problem)).unwrap();
            }
            let (live, seen) = self.records.entry(path.to_owned()).or_default();
            live.retain(|dot| !context.contains(dot));
            live.insert(self.dots);
            seen.extend(&context);
            seen.insert(self.dots);
            context.insert(self.dots);
            self.most = self.most.max(live.len());
        }
        let mut body = String::new();
        if method == Method::GET || headers.contains_key("prefer") {
            let (live, seen) = self.records.get(path).cloned().unwrap_or_default();
            context = seen;
            status = [StatusCode::NOT_FOUND, StatusCode::OK]
                .get(live.len())
                .copied()
                .unwrap_or(StatusCode::MULTIPLE_CHOICES);
            if live.len() > 1 {
                body = format!(r#"{{"siblings":[{}]}}"#, vec![r#"{"value":""}"#; live.len()].join(","));
            }
        }
        let mut response = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        if !context.is_empty() {
            let text: Vec<String> = context.iter().map(u64::to_string).collect();
            response = response.header("quorate-context", HeaderValue::from_str(&text.join(".")).unwrap());
        }
        response.body(Full::from(body)).unwrap()
    }
}

/// Serves on a thread of its own until the process ends.
fn gateway(store: Store) -> (SocketAddr, Arc<Mutex<Store>>) {
    let store = Arc::new(Mutex::new(store));
    let (shared, (told, address)) = (store.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let store = shared.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let store = store.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        body.collect().await.unwrap();
                        let mut store = store.lock().unwrap();
                        Ok::<_, Infallible>(store.answer(&parts.method, parts.uri.path(), &parts.headers))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
    });
    (address.recv().unwrap(), store)
}

fn bench(address: SocketAddr, options: &str) -> Result<serde_json::Value, BenchError> {
    let line =
        format!("quorate-bench run --target http --endpoints {address} --value-size 10 --warmup 0 -o json {options}");
    execute(&Args::parse_from(line.split_whitespace())).map(|text| serde_json::from_str(&text).unwrap())
}

#[test]
fn updates_of_hot_records_leave_no_pile_of_siblings() {
    let (address, store) = gateway(Store::default());
    let report = bench(
        address,
        "--workload put --records 3 --in-flight 8 --closed --duration 0.3",
    )
    .unwrap();
    assert_eq!((&report["errors"], &report["unknown"]), (&0.into(), &0.into()));
    let store = store.lock().unwrap();
    assert!(store.dots > 100, "{}", store.dots);
    assert!(store.most <= 2 * 8, "{} siblings with 8 writes in flight", store.most);
}

#[test]
fn a_second_load_replaces_the_first() {
    let (address, store) = gateway(Store::default());
    for _ in 0..2 {
        let line = format!("quorate-bench load --target http --endpoints {address} --records 50");
        execute(&Args::parse_from(line.split_whitespace())).unwrap();
    }
    let store = store.lock().unwrap();
    assert_eq!((store.records.len(), store.dots, store.most), (50, 100, 1));
}

#[test]
fn an_open_loop_starts_what_its_rate_says() {
    let (address, _) = gateway(Store::default());
    let report = bench(
        address,
        "--workload f --records 20 --in-flight 4 --rate 500 --duration 0.2",
    )
    .unwrap();
    assert_eq!(report["ops"], 100);
    assert_eq!(
        (&report["mode"], &report["offered_rate"]),
        (&"open".into(), &500.0.into())
    );
    assert!(report["by_operation"]["rmw"]["ops"].as_u64().unwrap() > 0);
}

#[test]
fn refused_writes_are_counted_and_stay_in_the_latencies() {
    let (address, store) = gateway(Store::default());
    let options = "--workload put --records 5 --in-flight 2 --rate 200 --duration 0.2";
    bench(address, options).unwrap();
    store.lock().unwrap().refuse_each = Some(2);
    let report = bench(address, &format!("{options} --no-load")).unwrap();
    assert_eq!(
        (&report["ops"], &report["errors"], &report["unknown"]),
        (&40.into(), &20.into(), &0.into())
    );
    assert_eq!(report["error_messages"]["503: try later"], 20);
}

#[test]
fn nobody_there_is_an_error_and_not_a_report() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(matches!(
        bench(address, "--closed --records 5 --duration 0.1"),
        Err(BenchError::Prepare { .. })
    ));
}

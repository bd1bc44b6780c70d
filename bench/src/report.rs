//! The report, for people and for programs.
//!
//! Times are microseconds. `latency_us` counts from the intended start, `service_us` from the actual one; in a closed
//! loop they are the same. `errors` changed nothing, `unknown` are writes that may have been applied; both are in the
//! latencies.
//!
//! When the generator was late itself, or the system did not take the offered rate, a percentile says little about the
//! system at that rate. Then `warnings` says why, `headline_p99_us` is null, and the table prints no p99 in its
//! headline. The rest of the figures stand, for whoever wants to find out more.

use crate::args::{KeysKind, Output, Run, TargetKind};
use crate::measure::{Measure, Tally};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// A generator whose p99 lateness is above this was too slow itself.
const LATE_MAX: Duration = Duration::from_millis(1);
/// Less than this share of the offered rate was not the offered rate.
const ACHIEVED_MIN: f64 = 0.95;

/// CPU microseconds per operation; `None` where they could not be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The generator with its client.
    pub client: Option<f64>,
    /// All servers together.
    pub servers: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct CostReport {
    client: Option<f64>,
    servers: Option<f64>,
    sum: Option<f64>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / 1e3);
        let max = rounded(histogram.max() as f64 / 1e3);
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max,
        }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct OperationReport {
    ops: u64,
    errors: u64,
    unknown: u64,
    latency_us: Percentiles,
    service_us: Percentiles,
}

impl OperationReport {
    fn of(tally: &Tally) -> OperationReport {
        OperationReport {
            ops: tally.ops,
            errors: tally.errors,
            unknown: tally.unknown,
            latency_us: Percentiles::of(&tally.latency),
            service_us: Percentiles::of(&tally.service),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Siblings {
    /// Answers with more than one value.
    answers: u64,
    /// The most values in one answer.
    most: usize,
}

/// Everything that was found out. Serializes to the JSON of `-o json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    target: &'static str,
    workload: &'static str,
    keys: &'static str,
    records: u32,
    value_size: u32,
    in_flight: u16,
    /// `open` (a fixed schedule) or `closed`.
    mode: &'static str,
    duration_s: f64,
    /// Operations per second; null in a closed loop.
    offered_rate: Option<f64>,
    achieved_rate: f64,
    ops: u64,
    errors: u64,
    unknown: u64,
    /// Of `errors`: operations that were due and never found a free slot.
    unstarted: u64,
    /// Reads that found nothing.
    missing: u64,
    siblings: Siblings,
    /// Null if it would mislead; `warnings` says why.
    headline_p99_us: Option<f64>,
    latency_us: Percentiles,
    service_us: Percentiles,
    by_operation: BTreeMap<&'static str, OperationReport>,
    /// How late the generator itself was; all zero in a closed loop.
    generator_late_us: Percentiles,
    cpu_us_per_op: CostReport,
    error_messages: BTreeMap<String, u64>,
    warnings: Vec<String>,
}

impl Report {
    pub(crate) fn new(run: &Run, measure: &Measure, length: Duration, cost: Cost) -> Report {
        let total = measure.total();
        let achieved_rate = rounded(measure.completed as f64 / length.as_secs_f64());
        let late = Percentiles::of(&measure.late);
        let dishonest = dishonest(run.rate, achieved_rate, late);
        let latency_us = Percentiles::of(&total.latency);
        let headline_p99_us = dishonest.is_empty().then_some(latency_us.p99);
        let mut warnings = dishonest;
        if measure.missing > 0 {
            warnings.push(format!(
                "{} reads found nothing: are the records loaded?",
                measure.missing
            ));
        }
        let cpu = |us: Option<f64>| us.map(|us| (us * 100.0).round() / 100.0);
        let sum = cost.client.zip(cost.servers).map(|(client, servers)| client + servers);
        Report {
            target: match run.at.target {
                TargetKind::Quorate => "quorate",
                TargetKind::Http => "http",
            },
            workload: run.workload.name(),
            keys: match run.keys {
                KeysKind::Uniform => "uniform",
                KeysKind::Zipfian => "zipfian",
            },
            records: run.at.records,
            value_size: run.at.value_size,
            in_flight: run.at.in_flight,
            mode: if run.rate.is_some() { "open" } else { "closed" },
            duration_s: length.as_secs_f64(),
            offered_rate: run.rate,
            achieved_rate,
            ops: total.ops,
            errors: total.errors,
            unknown: total.unknown,
            unstarted: measure.unstarted,
            missing: measure.missing,
            siblings: Siblings {
                answers: measure.siblings.0,
                most: measure.siblings.1,
            },
            headline_p99_us,
            latency_us,
            service_us: Percentiles::of(&total.service),
            by_operation: measure
                .kinds()
                .map(|(kind, tally)| (kind.name(), OperationReport::of(tally)))
                .collect(),
            generator_late_us: late,
            cpu_us_per_op: CostReport {
                client: cpu(cost.client),
                servers: cpu(cost.servers),
                sum: cpu(sum),
            },
            error_messages: measure.messages.clone(),
            warnings,
        }
    }

    pub(crate) fn print(&self, output: Output) -> String {
        match output {
            Output::Json => serde_json::to_string_pretty(self).expect("text, numbers and maps of text serialize"),
            Output::Table => self.table(),
        }
    }

    fn table(&self) -> String {
        let mut out = String::new();
        let offered = self
            .offered_rate
            .map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate} offered"));
        let headline = match self.headline_p99_us {
            Some(p99) => format!("p50 {}  p99 {}", ms(self.latency_us.p50), ms(p99)),
            None => "no p99 for this run, see the warnings".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{} ops/s ({offered})  {headline}", self.achieved_rate);
        let _ = writeln!(
            out,
            "{}, workload {}, {} keys, {} records of {} bytes, {} in flight, {} s",
            self.target, self.workload, self.keys, self.records, self.value_size, self.in_flight, self.duration_s
        );
        let _ = writeln!(
            out,
            "{} operations, {} errors, {} unknown",
            self.ops, self.errors, self.unknown
        );
        let header = ["", "p50", "p90", "p95", "p99", "p99.9", "max"];
        let _ = writeln!(out, "\n{}", row(&header.map(str::to_owned)));
        let mut rows = vec![
            ("latency".to_owned(), self.latency_us),
            ("service".to_owned(), self.service_us),
        ];
        for (name, operation) in &self.by_operation {
            rows.push((format!("{name} latency"), operation.latency_us));
            rows.push((format!("{name} service"), operation.service_us));
        }
        for (name, p) in rows {
            let _ = writeln!(
                out,
                "{}",
                row(&[name, ms(p.p50), ms(p.p90), ms(p.p95), ms(p.p99), ms(p.p999), ms(p.max)])
            );
        }
        let cpu = |us: Option<f64>| us.map_or_else(|| "?".to_owned(), |us| format!("{us:.1}"));
        let CostReport { client, servers, sum } = self.cpu_us_per_op;
        let _ = writeln!(
            out,
            "\nCPU µs/op: client {}  servers {}  sum {}",
            cpu(client),
            cpu(servers),
            cpu(sum)
        );
        let _ = writeln!(
            out,
            "siblings: {} answers with several values, at most {}",
            self.siblings.answers, self.siblings.most
        );
        for (message, count) in &self.error_messages {
            let _ = writeln!(out, "failed {count} times: {message}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        out
    }
}

/// Why percentiles of this run would mislead.
fn dishonest(offered: Option<f64>, achieved: f64, late: Percentiles) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(offered) = offered else { return reasons };
    if achieved < offered * ACHIEVED_MIN {
        let share = achieved / offered * 100.0;
        reasons.push(format!(
            "only {share:.1} % of the offered rate was achieved; the system is saturated or failing"
        ));
    }
    if late.p99 > LATE_MAX.as_secs_f64() * 1e6 {
        reasons.push(format!(
            "the generator itself started operations late: p99 {}; offer less, or give it a CPU",
            ms(late.p99)
        ));
    }
    reasons
}

fn ms(us: f64) -> String {
    format!("{:.2} ms", us / 1e3)
}

fn row(cells: &[String; 7]) -> String {
    let mut line = format!("{:<12}", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(line, "{cell:>12}");
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::{Args, Verb};
    use crate::measure::Done;
    use crate::workload::Kind;
    use clap::Parser;

    fn run(options: &str) -> Run {
        let line = format!("quorate-bench run --records 10 --duration 2 {options}");
        match Args::parse_from(line.split_whitespace()).verb {
            Verb::Run(run) => run,
            Verb::Load(_) => panic!(),
        }
    }

    fn measured(ops: u64) -> Measure {
        let mut measure = Measure::new();
        for at in 0..ops {
            let kind = if at % 2 == 0 { Kind::Get } else { Kind::Put };
            let latency = Duration::from_micros(100);
            measure.record(Done {
                kind,
                latency,
                service: Some(latency / 2),
                result: Ok(None),
            });
        }
        measure.completed = ops;
        measure
    }

    const COST: Cost = Cost {
        client: Some(5.0),
        servers: Some(20.004),
    };
    const LENGTH: Duration = Duration::from_secs(2);

    /// The names and types of a JSON value, without the figures.
    fn shape(value: &serde_json::Value) -> String {
        use serde_json::Value::{Array, Bool, Null, Number, Object, String};
        match value {
            Null => "null".to_owned(),
            Bool(_) => "bool".to_owned(),
            Number(_) => "number".to_owned(),
            String(_) => "string".to_owned(),
            Array(_) => "array".to_owned(),
            Object(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}:{}", shape(value)))
                    .collect();
                format!("{{{}}}", fields.join(" "))
            }
        }
    }

    #[test]
    fn the_shape_of_the_json_is_stable() {
        let report = Report::new(&run("--rate 10"), &measured(20), LENGTH, COST);
        let json = serde_json::from_str(&report.print(Output::Json)).unwrap();
        let percentiles = "{max:number p50:number p90:number p95:number p99:number p999:number}";
        let operation =
            format!("{{errors:number latency_us:{percentiles} ops:number service_us:{percentiles} unknown:number}}");
        let expected = format!(
            "{{achieved_rate:number by_operation:{{get:{operation} put:{operation}}} \
             cpu_us_per_op:{{client:number servers:number sum:number}} duration_s:number error_messages:{{}} \
             errors:number generator_late_us:{percentiles} headline_p99_us:number in_flight:number keys:string \
             latency_us:{percentiles} missing:number mode:string offered_rate:number ops:number records:number \
             service_us:{percentiles} siblings:{{answers:number most:number}} target:string unknown:number \
             unstarted:number value_size:number warnings:array workload:string}}"
        );
        assert_eq!(shape(&json), expected);
        assert_eq!(json["cpu_us_per_op"]["sum"], 25.0);
        assert_eq!(json["target"], "quorate");
    }

    #[test]
    fn a_rate_that_was_not_achieved_has_no_headline() {
        let report = Report::new(&run("--rate 100"), &measured(20), LENGTH, COST);
        assert_eq!(report.headline_p99_us, None);
        assert!(
            report.warnings[0].contains("only 10.0 % of the offered rate"),
            "{:?}",
            report.warnings
        );
        assert!(report.table().contains("no p99 for this run"));
    }

    #[test]
    fn a_late_generator_accuses_itself() {
        let mut measure = measured(20);
        measure.late.record(5_000_000).unwrap();
        let report = Report::new(&run("--rate 10"), &measure, LENGTH, COST);
        assert_eq!(report.headline_p99_us, None);
        assert!(
            report.warnings[0].contains("late: p99 5.00 ms"),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn a_closed_loop_offers_no_rate_and_has_a_headline() {
        let report = Report::new(
            &run("--closed"),
            &measured(20),
            LENGTH,
            Cost {
                client: Some(5.0),
                servers: None,
            },
        );
        assert_eq!((report.offered_rate, report.mode), (None, "closed"));
        assert!(report.headline_p99_us.is_some());
        assert!(report.table().contains("client 5.0  servers ?  sum ?"));
    }
}

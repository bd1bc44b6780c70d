//! Is the cluster all right, and if not, what does that mean for reads and writes? In one word and a few sentences.
//!
//! Judged from what all nodes say together: a node that reaches nobody is no harm while others do, and all of them up is no good while none
//! reaches another. Rejected: a colour for each node, which leaves it to the reader to find out whether a key can be written.

use super::output::{self, harmless};
use super::survey::{Report, Request, Survey};
use serde::Serialize;

/// How it looks in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// All is as it should be.
    Healthy,
    /// Something is wrong, and every key can be read and written.
    Degraded,
    /// Some keys cannot be read or written with a majority.
    Unavailable,
}

/// How it looks in a few sentences, the most important first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// In one word.
    pub(crate) state: State,
    /// For people.
    pub(crate) sentences: Vec<String>,
}

impl Health {
    /// Judges a survey, for buckets without properties of their own.
    pub(crate) fn of(survey: &Survey) -> Health {
        let facts = Facts::of(survey);
        let mut sentences = vec![facts.up()];
        sentences.extend(facts.scattered());
        sentences.extend(facts.few_members());
        for (node, peers) in isolated(survey) {
            let effect = facts.effect(node);
            sentences.push(format!("{node} has no connection to {}: {effect}.", peers.join(", ")));
            let reasons = peers.iter().filter_map(|peer| Some((peer, survey.reason(node, peer)?)));
            sentences.extend(reasons.map(|(peer, reason)| format!("{node} to {peer}: {}.", harmless(reason))));
        }
        if !survey.agrees() {
            sentences.push("The nodes do not have the same ring; compare their configurations.".to_owned());
        }
        sentences.extend(rebuilding(survey));
        sentences.extend(refusing(survey));
        sentences.extend(slow(survey));
        let lost = facts.lost(Request::Read) + facts.lost(Request::Write);
        let state = match (lost + facts.scattered, sentences.len()) {
            (1.., _) => State::Unavailable,
            (0, 1) if facts.silent.is_empty() => State::Healthy,
            _ => State::Degraded,
        };
        sentences.extend(catching_up(survey));
        Health { state, sentences }
    }
}

/// In the order in which [`Facts`] has them.
const REQUESTS: [Request; 2] = [Request::Read, Request::Write];

/// What the sentences are made of.
struct Facts<'a> {
    survey: &'a Survey,
    /// Owners of a key, and how many of them are a majority of the copies wanted.
    n: u8,
    majority: u8,
    /// Who does not answer.
    silent: Vec<&'a str>,
    /// For each partition, owners that count in reads, and owners that count in writes.
    owners_up: [Vec<u8>; 2],
    /// The same with fallbacks, where these count.
    counted_up: [Vec<u8>; 2],
    /// Partitions with enough of them, none of which reaches enough others.
    scattered: usize,
}

impl Facts<'_> {
    fn of(survey: &Survey) -> Facts<'_> {
        let majority = survey.n_wanted() / 2 + 1;
        Facts {
            survey,
            n: survey.n(),
            majority,
            silent: survey.silent(),
            scattered: survey.scattered(majority),
            owners_up: REQUESTS.map(|what| survey.owners_up(what)),
            counted_up: REQUESTS.map(|what| match survey.takes_fallbacks() {
                true => survey.listed_up(what),
                false => survey.owners_up(what),
            }),
        }
    }

    /// Partitions with too few owners for a majority.
    fn without(&self, what: Request) -> usize {
        self.too_few(&self.owners_up[what as usize])
    }

    /// Those of them that have too few fallbacks, too, or where these do not count.
    fn lost(&self, what: Request) -> usize {
        self.too_few(&self.counted_up[what as usize])
    }

    fn too_few(&self, up: &[u8]) -> usize {
        up.iter().filter(|up| **up < self.majority).count()
    }

    /// Who answers, and what that is worth.
    fn up(&self) -> String {
        let (n, all, wanted) = (self.n, self.survey.views.len(), self.survey.n_wanted());
        let mut answering = format!("{} of {all} nodes answer", all - self.silent.len());
        if !self.silent.is_empty() {
            answering.push_str(&format!(" ({} not)", do_not(&self.silent)));
        } else if n < self.majority {
            return format!("{answering}; they are too few for a majority of n = {wanted}.");
        }
        if let Some(lack) = self.stand_ins().or_else(|| self.lack()) {
            return format!("{answering}; {lack}");
        }
        let fewest = self.owners_up.iter().flatten().copied().min().unwrap_or(0);
        if fewest == n {
            return format!("{answering}; every partition has {n} of {n} owners up.");
        }
        let effect = match self.scattered {
            0 => ", so reads and writes with a majority succeed",
            _ => "",
        };
        format!("{answering}; every partition has at least {fewest} of {n} owners up{effect}.")
    }

    /// Where fallbacks stand in for owners, if that makes a difference.
    fn stand_ins(&self) -> Option<String> {
        let most = |of: &dyn Fn(Request) -> usize| REQUESTS.map(of).into_iter().max().unwrap_or(0);
        let (without, lost) = (most(&|what| self.without(what)), most(&|what| self.lost(what)));
        let (n, partitions, majority) = (self.n, self.owners_up[0].len(), self.majority);
        let rest = match lost {
            0 => String::new(),
            _ => format!(" In {lost} of them too few fallbacks are up, and reads and writes with a majority fail."),
        };
        (without > lost).then(|| {
            format!(
                "{without} of {partitions} partitions have fewer than {majority} of {n} owners up and are served by fallbacks: sloppy reads and \
                 writes succeed there, and reads may miss what only the owners hold that are away; strict ones fail.{rest}"
            )
        })
    }

    /// Where there are too few owners, and what fails for that.
    fn lack(&self) -> Option<String> {
        let (n, partitions, majority) = (self.n, self.owners_up[0].len(), self.majority);
        let (reads, writes) = (self.without(Request::Read), self.without(Request::Write));
        let (without, which, what) = match (reads, writes) {
            (0, 0) => return None,
            (reads, writes) if reads == writes => (reads, "up", "reads and writes"),
            (reads, writes) if reads > writes => (reads, "up that know what they hold", "reads"),
            (_, writes) => (writes, "up that take writes", "writes"),
        };
        let others = match (what, reads, writes) {
            ("reads", _, 0) => "; writes succeed".to_owned(),
            ("writes", 0, _) => "; reads succeed".to_owned(),
            ("reads", ..) => format!("; writes do in {writes}"),
            ("writes", ..) => format!("; reads do in {reads}"),
            _ => String::new(),
        };
        Some(format!(
            "{without} of {partitions} partitions have fewer than {majority} of {n} owners {which}: {what} with a majority fail there until \
             enough of their owners are back{others}."
        ))
    }

    fn scattered(&self) -> Option<String> {
        let (scattered, partitions) = (self.scattered, self.owners_up[0].len());
        (scattered > 0).then(|| {
            format!(
                "In {scattered} of {partitions} partitions no owner reaches a majority: reads and writes with a majority fail there until \
                 the nodes are connected again."
            )
        })
    }

    fn few_members(&self) -> Option<String> {
        let (n, wanted) = (self.n, self.survey.n_wanted());
        (n < wanted).then(|| {
            format!(
                "n is {wanted} and the cluster has {n} members: each key has {n} copies, and what asks for more answers than that fails."
            )
        })
    }

    /// What it means that a node has lost peers.
    fn effect(&self, node: &str) -> String {
        let reached = self.survey.owners_reached_by(node);
        if reached >= self.majority {
            return format!(
                "requests that {node} coordinates reach at least {reached} of {} owners",
                self.n
            );
        }
        if self.survey.takes_fallbacks() && self.survey.nodes_reached_by(node) >= self.majority {
            return format!(
                "requests that {node} coordinates reach at least {reached} of {} owners, and fallbacks for the others",
                self.n
            );
        }
        let without = self.without(Request::Read) + self.without(Request::Write);
        let others = match self.scattered + without {
            0 => "; the other owners of each key can",
            _ => "",
        };
        format!("{node} cannot coordinate reads and writes with a majority{others}")
    }
}

/// Nodes that have lost their memory and do not count until they have read it again.
fn rebuilding(survey: &Survey) -> impl Iterator<Item = String> {
    let reports = survey.reports().filter(|(_, report)| report.rebuilds());
    reports.map(|(node, report)| {
        let rebuilding = &report.healing.rebuilding;
        format!(
            "{node} has lost its data and is rebuilding {}/{} partitions from the other owners; until then it answers no reads.",
            rebuilding.partitions, rebuilding.of
        )
    })
}

/// Nodes whose disks are nearly full.
fn refusing(survey: &Survey) -> impl Iterator<Item = String> {
    let reports = survey.reports().filter(|(_, report)| report.storage.refusing);
    reports.map(|(node, report)| {
        let free = report.storage.free_bytes.map(output::bytes);
        let free = free.map_or_else(String::new, |free| format!(", {free} are free"));
        format!("{node} takes no writes, because its disk is nearly full (disk_reserve_mib{free}); it serves reads.")
    })
}

/// Nodes that others route round.
fn slow(survey: &Survey) -> impl Iterator<Item = String> {
    survey.views.iter().filter_map(|view| {
        let name = view.member.name.as_str();
        let says = |report: &Report| {
            report
                .peers
                .iter()
                .any(|peer| peer.slow && peer.connected && peer.name == name)
        };
        let by: Vec<&str> = survey
            .reports()
            .filter(|(_, report)| says(report))
            .map(|(node, _)| node)
            .collect();
        (!by.is_empty()).then(|| format!("{name} is slow to answer {}, and is routed round.", by.join(", ")))
    })
}

/// What waits to be brought to nodes that were away. Nothing is wrong about that.
fn catching_up(survey: &Survey) -> Vec<String> {
    let mut sentences = Vec::new();
    let hints: u64 = survey.reports().map(|(_, report)| report.healing.hints_waiting()).sum();
    if hints > 0 {
        let mut owners: Vec<&str> = survey
            .reports()
            .flat_map(|(_, report)| report.healing.hints.iter().map(|hints| hints.node.as_str()))
            .collect();
        owners.sort_unstable();
        owners.dedup();
        sentences.push(format!(
            "{hints} hints are waiting for {} (quorate hints).",
            owners.join(", ")
        ));
    }
    let dirty: u64 = survey.reports().map(|(_, report)| report.healing.exchange.dirty).sum();
    if dirty > 0 {
        sentences.push(format!(
            "{dirty} partitions have to be compared, each counted once for each owner that missed writes there (quorate repair --watch)."
        ));
    }
    sentences
}

/// `n2 does`, `n2, n3 do`.
fn do_not(silent: &[&str]) -> String {
    format!(
        "{} {}",
        silent.join(", "),
        if silent.len() == 1 { "does" } else { "do" }
    )
}

/// Nodes that answer but have lost peers that answer too.
fn isolated(survey: &Survey) -> Vec<(&str, Vec<&str>)> {
    let mut nodes: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, peer) in survey.cuts() {
        match nodes.last_mut() {
            Some((last, peers)) if *last == node => peers.push(peer),
            _ => nodes.push((node, vec![peer])),
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::three;
    use super::*;
    use crate::healing::HintsStatus;

    /// The same where buckets have another n.
    fn wanting(mut survey: Survey, n: u8) -> Survey {
        let reports = survey.views.iter_mut().filter_map(|view| view.answer.as_mut().ok());
        reports.for_each(|report| report.default_n = Some(n));
        survey
    }

    #[test]
    fn what_heals_is_told_and_only_what_is_missing_meanwhile_is_a_fault() {
        let with = |change: fn(&mut Report)| {
            let mut survey = three(&[], &[]);
            if let Ok(report) = &mut survey.views[0].answer {
                change(report);
            }
            Health::of(&survey)
        };
        let rebuilding = with(|report| (report.healing.rebuilding.partitions, report.healing.rebuilding.of) = (12, 64));
        assert_eq!(rebuilding.state, State::Degraded);
        assert!(rebuilding.sentences[1].starts_with("n1 has lost its data and is rebuilding 12/64 partitions"));
        let full = with(|report| (report.storage.refusing, report.storage.free_bytes) = (true, Some(62 << 20)));
        assert_eq!(full.state, State::Degraded);
        assert!(full.sentences[0].contains("at least 2 of 3 owners up, so reads and writes with a majority succeed"));
        assert_eq!(
            full.sentences[1],
            "n1 takes no writes, because its disk is nearly full (disk_reserve_mib, 62.0 MiB are free); it serves reads."
        );
        let slow = with(|report| report.peers[0].slow = true);
        assert_eq!(slow.state, State::Degraded);
        assert_eq!(slow.sentences[1], "n2 is slow to answer n1, and is routed round.");
        let behind = with(|report| {
            let hints = HintsStatus {
                node: "n3".into(),
                count: 120,
                ..HintsStatus::default()
            };
            report.healing.hints.push(hints);
            report.healing.exchange.dirty = 2;
        });
        assert_eq!(behind.state, State::Healthy);
        assert_eq!(
            behind.sentences[1..],
            [
                "120 hints are waiting for n3 (quorate hints).",
                "2 partitions have to be compared, each counted once for each owner that missed writes there (quorate repair --watch)."
            ]
        );
    }

    #[test]
    fn a_node_that_rebuilds_or_is_full_is_no_owner_that_is_up() {
        let rebuilding = |down: &[&str], nodes: &[usize]| {
            let mut survey = three(down, &[]);
            for node in nodes {
                if let Ok(report) = &mut survey.views[*node].answer {
                    report.healing.rebuilding.partitions = 8;
                }
            }
            Health::of(&survey)
        };
        let one = rebuilding(&[], &[1]);
        assert_eq!(one.state, State::Degraded);
        assert_eq!(
            one.sentences[0],
            "3 of 3 nodes answer; every partition has at least 2 of 3 owners up, so reads and writes with a majority succeed."
        );
        let and_one_down = rebuilding(&["n1"], &[1]);
        assert_eq!(and_one_down.state, State::Unavailable);
        assert_eq!(
            and_one_down.sentences[0],
            "2 of 3 nodes answer (n1 does not); 8 of 8 partitions have fewer than 2 of 3 owners up that know what they hold: reads with a \
             majority fail there until enough of their owners are back; writes succeed."
        );
        assert_eq!(rebuilding(&[], &[1, 2]).state, State::Unavailable);
        let mut full = three(&["n1"], &[]);
        if let Ok(report) = &mut full.views[1].answer {
            report.storage.refusing = true;
        }
        let full = Health::of(&full);
        assert_eq!(full.state, State::Unavailable);
        assert!(
            full.sentences[0]
                .contains("8 of 8 partitions have fewer than 2 of 3 owners up that take writes: writes with")
        );
    }

    #[test]
    fn fallbacks_serve_what_owners_do_not_where_they_count() {
        let five = |down: &[&str], default_fallbacks| {
            let mut survey = super::super::survey::tests::many(5, down, &[]);
            for report in survey.views.iter_mut().filter_map(|view| view.answer.as_mut().ok()) {
                report.default_fallbacks = default_fallbacks;
            }
            Health::of(&survey)
        };
        let down = ["n1", "n2", "n3"];
        assert_eq!(five(&down, false).state, State::Unavailable);
        let served = five(&down, true);
        assert_eq!(served.state, State::Degraded);
        assert!(
            served.sentences[0].contains("have fewer than 2 of 3 owners up and are served by fallbacks: sloppy reads"),
            "{:?}",
            served.sentences
        );
        assert_eq!(five(&["n1", "n2", "n3", "n4"], true).state, State::Unavailable);
    }

    #[test]
    fn health_says_what_is_wrong_and_what_it_means() {
        let cases = [
            (
                three(&[], &[]),
                State::Healthy,
                "3 of 3 nodes answer; every partition has 3 of 3 owners up.",
            ),
            (
                three(&["n2"], &[]),
                State::Degraded,
                "2 of 3 nodes answer (n2 does not); every partition has at least 2 of 3 owners up",
            ),
            (
                three(&["n2", "n3"], &[]),
                State::Unavailable,
                "1 of 3 nodes answer (n2, n3 do not); 8 of 8 partitions have fewer than 2 of 3",
            ),
            (
                three(&[], &[("n1", "n3"), ("n2", "n3")]),
                State::Degraded,
                "n3 has no connection to n1, n2: n3 cannot coordinate reads and writes with a majority",
            ),
        ];
        let mut refused = three(&[], &[("n1", "n2")]);
        if let Ok(report) = &mut refused.views[0].answer {
            report.peers[0].last_error = Some("n2 refused: the settings differ".into());
        }
        let nobody = [("n1", "n2"), ("n1", "n3"), ("n2", "n3")];
        let more = [
            (
                three(&[], &nobody),
                State::Unavailable,
                "In 8 of 8 partitions no owner reaches a majority",
            ),
            (
                three(&[], &nobody),
                State::Unavailable,
                "n1 has no connection to n2, n3: n1 cannot coordinate reads and writes with a majority.",
            ),
            (
                three(&["n3"], &[("n1", "n2")]),
                State::Unavailable,
                "every partition has at least 2 of 3 owners up. In 8 of 8",
            ),
            (refused, State::Degraded, "n1 to n2: n2 refused: the settings differ."),
            (
                wanting(three(&[], &[]), 5),
                State::Degraded,
                "n is 5 and the cluster has 3 members: each key has 3 copies",
            ),
            (
                wanting(three(&[], &[]), 7),
                State::Unavailable,
                "3 of 3 nodes answer; they are too few for a majority of n = 7.",
            ),
        ];
        for (survey, state, sentence) in cases.into_iter().chain(more) {
            let health = Health::of(&survey);
            assert_eq!(health.state, state, "{sentence}");
            assert!(health.sentences.join(" ").contains(sentence), "{:?}", health.sentences);
        }
    }
}

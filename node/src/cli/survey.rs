//! Asking every node how it stands, and what the answers mean together.
//!
//! Shared by `quorate status` and by `quorate dev`, which waits until all nodes see each other. A node's answer is read loosely: fields
//! that an older or newer node does not have are not missed.

use crate::healing::HealingStatus;
use quorate_client::{Client, Query, QueryAnswer};
use quorate_ring::{Member, Ring};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::task::JoinSet;

/// Copies of each record in a bucket without properties, unless a node says otherwise.
const N_DEFAULT: u8 = 3;

/// What a node said of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Build version.
    pub(crate) version: String,
    /// Seconds since start.
    pub(crate) uptime_seconds: u64,
    /// Ring version in use.
    pub(crate) ring_version: u64,
    /// The ring's digest, in hexadecimal.
    pub(crate) ring_digest: String,
    /// Copies of each record in buckets without properties of their own.
    pub(crate) default_n: Option<u8>,
    /// Whether fallbacks stand in for owners in such buckets.
    pub(crate) default_fallbacks: bool,
    /// Requests under way.
    pub(crate) operations: u64,
    /// Client connections over QUIC.
    pub(crate) clients: u64,
    /// The other members, as it sees them.
    pub(crate) peers: Vec<PeerReport>,
    /// Sizes.
    pub(crate) storage: StorageReport,
    /// How far it has come with healing.
    pub(crate) healing: HealingStatus,
}

/// What is asked of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// What it holds.
    Read,
    /// To store something.
    Write,
}

impl Report {
    /// Whether the node has lost its memory and is reading it again.
    pub(crate) fn rebuilds(&self) -> bool {
        self.healing.rebuilding.partitions > 0
    }

    /// Whether the node counts in reads or writes of what it owns. One that is rebuilding acknowledges writes, and answers no reads;
    /// one whose disk is nearly full the other way round.
    fn serves(&self, what: Request) -> bool {
        match what {
            Request::Read => !self.rebuilds(),
            Request::Write => !self.storage.refusing,
        }
    }
}

/// How a node sees another one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct PeerReport {
    /// Its name.
    pub(crate) name: String,
    /// Whether there is a connection.
    pub(crate) connected: bool,
    /// Why there is none, if known.
    pub(crate) last_error: Option<String>,
    /// Smoothed round-trip time in microseconds.
    pub(crate) rtt_us: Option<u64>,
    /// Whether it keeps requests waiting.
    pub(crate) slow: bool,
}

/// How much a node holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct StorageReport {
    /// Rows, about: hints and trees too, and overwritten ones until they are compacted away.
    pub(crate) keys: u64,
    /// Sorted tables on disk.
    pub(crate) table_bytes: u64,
    /// Unflushed writes in memory.
    pub(crate) memtable_bytes: u64,
    /// Free on the disk, if known.
    pub(crate) free_bytes: Option<u64>,
    /// Whether it refuses stores because its disk is nearly full.
    pub(crate) refusing: bool,
}

/// One member, and what it said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// The member.
    pub(crate) member: Member,
    /// Its report, or why there is none.
    pub(crate) answer: Result<Report, String>,
}

/// All members.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The ring as the client has it.
    pub(crate) ring: Ring,
    /// One for each member, by name.
    pub(crate) views: Vec<View>,
}

/// Asks every node at once how it stands. Takes about `patience` if one does not answer.
pub(crate) async fn survey(client: &Client, patience: Duration) -> Survey {
    ask_all(client, Query::Status, patience).await
}

/// The same, and has every node that answers compare everything with its peers first.
pub(crate) async fn start_repair(client: &Client, patience: Duration) -> Survey {
    ask_all(client, Query::Repair, patience).await
}

async fn ask_all(client: &Client, query: Query, patience: Duration) -> Survey {
    client.wait_connected(patience).await;
    let ring = client.ring();
    let mut asked = JoinSet::new();
    for member in ring.members().iter().cloned() {
        let client = client.clone();
        asked.spawn(async move {
            let answer = match client.query(member.id, query, patience).await {
                Ok(QueryAnswer::Status(json)) => serde_json::from_str(&json).map_err(|error| error.to_string()),
                Ok(QueryAnswer::Ring(_)) => Err("answered something else".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            View { member, answer }
        });
    }
    let mut views = asked.join_all().await;
    views.sort_by(|a, b| by_number(&a.member.name).cmp(&by_number(&b.member.name)));
    Survey { ring, views }
}

/// n2 comes before n10.
fn by_number(name: &str) -> (&str, usize, &str) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    (&name[..name.len() - digits], digits, &name[name.len() - digits..])
}

impl Survey {
    /// Whether every node answers, is connected to every other, and knows what it holds.
    pub(crate) fn is_complete(&self) -> bool {
        let is_whole = |report: &Report| report.peers.iter().all(|peer| peer.connected) && !report.rebuilds();
        let whole = |view: &View| view.answer.as_ref().is_ok_and(is_whole);
        self.views.iter().all(whole)
    }

    /// The nodes that answer, and what they said.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (&str, &Report)> {
        let views = self.views.iter();
        views.filter_map(|view| Some((view.member.name.as_str(), view.answer.as_ref().ok()?)))
    }

    /// Names of nodes that are configured not to compare what they hold with other owners.
    pub(crate) fn do_not_compare(&self) -> Vec<&str> {
        let off = self.reports().filter(|(_, report)| !report.healing.exchange.enabled);
        off.map(|(node, _)| node).collect()
    }

    /// Names of members that do not answer.
    pub(crate) fn silent(&self) -> Vec<&str> {
        self.views
            .iter()
            .filter(|view| view.answer.is_err())
            .map(|view| view.member.name.as_str())
            .collect()
    }

    /// Pairs (node, peer) where both answer us, and the node has no connection to the peer.
    pub(crate) fn cuts(&self) -> Vec<(&str, &str)> {
        let silent = self.silent();
        let mut cuts = Vec::new();
        for view in &self.views {
            let Ok(report) = &view.answer else { continue };
            let lost = report
                .peers
                .iter()
                .filter(|peer| !peer.connected && !silent.contains(&peer.name.as_str()));
            cuts.extend(lost.map(|peer| (view.member.name.as_str(), peer.name.as_str())));
        }
        cuts
    }

    /// Whether all nodes that answer have the same ring.
    pub(crate) fn agrees(&self) -> bool {
        let mut rings = self.views.iter().filter_map(|view| view.answer.as_ref().ok());
        let first = rings
            .next()
            .map(|report| (report.ring_version, report.ring_digest.clone()));
        rings.all(|report| first.as_ref() == Some(&(report.ring_version, report.ring_digest.clone())))
    }

    /// Copies of each record that a bucket without properties wants.
    pub(crate) fn n_wanted(&self) -> u8 {
        let mut told = self
            .views
            .iter()
            .filter_map(|view| view.answer.as_ref().ok()?.default_n);
        told.next().unwrap_or(N_DEFAULT).max(1)
    }

    /// Owners that a key has on this ring: as many as are wanted, or all members.
    pub(crate) fn n(&self) -> u8 {
        let members = u8::try_from(self.ring.members().len()).unwrap_or(u8::MAX);
        self.n_wanted().min(members).max(1)
    }

    /// The fewest owners of a partition that one node reaches, itself included, over the partitions that it owns.
    pub(crate) fn owners_reached_by(&self, node: &str) -> u8 {
        let owned = self.owners().filter(|owners| owners.contains(&node));
        owned
            .map(|owners| self.reached(node, &owners))
            .min()
            .unwrap_or(self.n())
    }

    /// Whether a node answers, and counts in what it holds.
    fn is_whole(&self, node: &str) -> bool {
        let mut reports = self.reports();
        reports.any(|(name, report)| name == node && !report.rebuilds())
    }

    /// The same with fallbacks.
    pub(crate) fn nodes_reached_by(&self, node: &str) -> u8 {
        let lists = self.owners().zip(self.lists());
        let owned = lists.filter(|(owners, _)| owners.contains(&node));
        owned.map(|(_, list)| self.reached(node, &list)).min().unwrap_or(0)
    }

    /// In how many partitions no owner reaches `majority` of the owners (and fallbacks, where they count), though so many owners answer us.
    pub(crate) fn scattered(&self, majority: u8) -> usize {
        let is_scattered = |(owners, list): &(Vec<&str>, Vec<&str>)| {
            let counted = if self.takes_fallbacks() { list } else { owners };
            let up = owners.iter().filter(|owner| self.is_whole(owner));
            up.clone().count() >= usize::from(majority) && up.clone().all(|up| self.reached(up, counted) < majority)
        };
        self.owners().zip(self.lists()).filter(is_scattered).count()
    }

    /// The names of each partition's owners and fallbacks.
    fn lists(&self) -> impl Iterator<Item = Vec<&str>> {
        self.ring.partition_ids().map(move |p| {
            let nodes = self.ring.preference_list(p).iter();
            nodes.map(|node| self.ring.member(*node).name.as_str()).collect()
        })
    }

    /// The names of each partition's owners.
    fn owners(&self) -> impl Iterator<Item = Vec<&str>> {
        let n = self.n();
        self.ring.partition_ids().map(move |p| {
            let owners = self.ring.owners(p, n).iter();
            owners.map(|owner| self.ring.member(*owner).name.as_str()).collect()
        })
    }

    /// How many of these a node reaches, itself included; not those that are rebuilding.
    fn reached(&self, node: &str, owners: &[&str]) -> u8 {
        let view = self.views.iter().find(|view| view.member.name == node);
        let Some(report) = view.and_then(|view| view.answer.as_ref().ok()) else {
            return 0;
        };
        let is_connected = |name: &str| report.peers.iter().any(|peer| peer.connected && peer.name == name);
        let rebuilds = |name: &str| self.reports().any(|(peer, report)| peer == name && report.rebuilds());
        let reached = owners.iter().filter(|name| **name == node || is_connected(name));
        reached.filter(|name| !rebuilds(name)).count() as u8
    }

    /// Why a node has no connection to a peer, as far as it knows.
    pub(crate) fn reason(&self, node: &str, peer: &str) -> Option<&str> {
        let view = self.views.iter().find(|view| view.member.name == node)?;
        let peers = &view.answer.as_ref().ok()?.peers;
        peers.iter().find(|known| known.name == peer)?.last_error.as_deref()
    }

    /// Whether fallbacks stand in for owners in buckets without properties, as far as the nodes say.
    pub(crate) fn takes_fallbacks(&self) -> bool {
        self.reports().next().is_some() && self.reports().all(|(_, report)| report.default_fallbacks)
    }

    /// For each partition, how many of its owners serve this.
    pub(crate) fn owners_up(&self, what: Request) -> Vec<u8> {
        self.up(what, self.owners())
    }

    /// For each partition, how many of its owners and fallbacks serve this.
    pub(crate) fn listed_up(&self, what: Request) -> Vec<u8> {
        self.up(what, self.lists())
    }

    fn up<'a>(&self, what: Request, lists: impl Iterator<Item = Vec<&'a str>>) -> Vec<u8> {
        let serving = self.reports().filter(|(_, report)| report.serves(what));
        let serving: Vec<&str> = serving.map(|(node, _)| node).collect();
        let up = |nodes: Vec<&str>| nodes.iter().filter(|node| serving.contains(node)).count() as u8;
        lists.map(up).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::healing::ExchangeStatus;
    use quorate_ring::{NodeId, RingVersion};

    /// Three nodes; those in `down` do not answer, `cut` pairs have no connection.
    pub(crate) fn three(down: &[&str], cut: &[(&str, &str)]) -> Survey {
        many(3, down, cut)
    }

    /// The same for up to five nodes.
    pub(crate) fn many(nodes: usize, down: &[&str], cut: &[(&str, &str)]) -> Survey {
        let names = &["n1", "n2", "n3", "n4", "n5"][..nodes];
        let member = |at: u8, name: &str| Member {
            id: NodeId([at; 16]),
            name: name.into(),
            zone: "z1".into(),
            weight: 1,
            quic: format!("127.0.0.1:77{at}1"),
            http: format!("127.0.0.1:77{at}0"),
        };
        let members: Vec<Member> = names.iter().zip(0..).map(|(name, at)| member(at, name)).collect();
        let ring = Ring::new(RingVersion(1), 3, members.clone()).unwrap();
        let connected = |a: &str, b: &str| !down.contains(&b) && !cut.contains(&(a, b)) && !cut.contains(&(b, a));
        let view = |member: Member| {
            let peers = names.iter().filter(|name| **name != member.name);
            let peers = peers.map(|name| PeerReport {
                name: (*name).into(),
                connected: connected(&member.name, name),
                ..PeerReport::default()
            });
            let report = Report {
                version: "0.1.0".into(),
                uptime_seconds: 61,
                ring_version: 1,
                ring_digest: format!("{:016x}", ring.digest()),
                peers: peers.collect(),
                healing: HealingStatus {
                    exchange: ExchangeStatus {
                        enabled: true,
                        ..ExchangeStatus::default()
                    },
                    ..HealingStatus::default()
                },
                ..Report::default()
            };
            let answer = if down.contains(&member.name.as_str()) {
                Err("no answer".into())
            } else {
                Ok(report)
            };
            View { member, answer }
        };
        Survey {
            views: members.into_iter().map(view).collect(),
            ring,
        }
    }

    #[test]
    fn a_cluster_is_complete_when_all_answer_and_all_see_each_other() {
        assert!(three(&[], &[]).is_complete());
        assert!(!three(&["n2"], &[]).is_complete());
        assert!(!three(&[], &[("n1", "n3")]).is_complete());
    }

    #[test]
    fn a_cut_is_between_nodes_that_answer() {
        assert_eq!(three(&["n2"], &[]).cuts(), []);
        assert_eq!(three(&[], &[("n1", "n3")]).cuts(), [("n1", "n3"), ("n3", "n1")]);
    }

    #[test]
    fn owners_are_counted_per_partition() {
        assert_eq!(three(&[], &[]).owners_up(Request::Read), [3; 8]);
        let mut survey = three(&["n2"], &[]);
        assert_eq!(survey.owners_up(Request::Write), [2; 8]);
        if let Ok(report) = &mut survey.views[2].answer {
            report.healing.rebuilding.partitions = 1;
        }
        assert_eq!(survey.owners_up(Request::Read), [1; 8]);
        assert_eq!(survey.owners_up(Request::Write), [2; 8]);
    }

    #[test]
    fn a_report_with_other_fields_is_still_read() {
        let report: Report =
            serde_json::from_str(r#"{"version":"9","new_field":1,"peers":[{"name":"n2","connected":true}]}"#).unwrap();
        assert_eq!((report.version.as_str(), report.peers[0].connected), ("9", true));
    }

    #[test]
    fn names_with_numbers_are_sorted_by_number() {
        let mut names = ["n10", "n2", "n1"];
        names.sort_by_key(|name| by_number(name));
        assert_eq!(names, ["n1", "n2", "n10"]);
    }
}

//! What happened on the way to an answer: who coordinated, who was asked, what each replica said and when.

use super::{Read, Session};
use crate::cli::error::Replica;
use crate::cli::output;
use quorate_client::{Attempts, Client, ReplicaState, Role};
use serde::Serialize;

/// The story of one read.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Explain {
    /// `bucket/key`, escaped.
    pub(super) key: String,
    /// The key's place on the ring.
    pub(super) token: String,
    /// The partition that the token falls in.
    pub(super) partition: u32,
    /// How many partitions there are.
    pub(super) partitions: u32,
    /// The ring's version, as the client has it.
    pub(super) ring_version: u64,
    /// Names of nodes in the order in which they are tried.
    pub(super) preference_list: Vec<String>,
    /// Who answered us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) coordinator: Option<String>,
    /// Requests that were sent, and what became of those that brought no answer.
    pub(super) requests: u32,
    /// Whether a second owner was asked because the first was slow.
    pub(super) hedged: bool,
    /// `node: reason`, in order.
    pub(super) failed_attempts: Vec<String>,
    /// What each replica answered.
    pub(super) replicas: Vec<Replica>,
}

/// Tells the story of `read`.
pub(super) fn explain(session: &Session, read: &Read) -> Explain {
    let ring = session.client.ring();
    let partition = ring.partition_of(session.key.token());
    let names = ring
        .preference_list(partition)
        .iter()
        .map(|node| ring.member(*node).name.clone());
    let failed = read
        .attempts
        .failed
        .iter()
        .map(|attempt| format!("{}: {}", attempt.node, attempt.reason));
    Explain {
        key: session.key.to_string(),
        token: session.key.token().to_string(),
        partition: partition.0,
        partitions: ring.partitions(),
        ring_version: ring.version().0,
        preference_list: names.collect(),
        coordinator: coordinator(&session.client, &read.attempts),
        requests: read.attempts.sent,
        hedged: read.attempts.hedged,
        failed_attempts: failed.collect(),
        replicas: session
            .client
            .name_replicas(&read.replicas)
            .iter()
            .map(Replica::from)
            .collect(),
    }
}

/// The name of the node that answered.
pub(super) fn coordinator(client: &Client, attempts: &Attempts) -> Option<String> {
    let ring = client.ring();
    let index = ring.index_of(attempts.answered_by?)?;
    Some(ring.member(index).name.clone())
}

/// `acknowledged by n1 (0.4 ms), n4 (fallback, 0.9 ms); n2 no answer yet`.
pub(super) fn acks(replicas: &[Replica]) -> String {
    let (acked, others): (Vec<&Replica>, Vec<&Replica>) = replicas
        .iter()
        .partition(|replica| matches!(replica.state, ReplicaState::Acked | ReplicaState::Accepted));
    let acked: Vec<String> = acked.iter().map(|replica| ack(replica)).collect();
    let others: Vec<String> = others
        .iter()
        .map(|replica| format!("{} {}", replica.node, replica.state))
        .collect();
    let mut text = format!("acknowledged by {}", acked.join(", "));
    if !others.is_empty() {
        text.push_str("; ");
        text.push_str(&others.join(", "));
    }
    text
}

fn ack(replica: &Replica) -> String {
    let role = match replica.role {
        Role::Primary => "",
        Role::Fallback => "fallback, ",
    };
    let kind = match replica.state {
        ReplicaState::Accepted => "not on disk yet, ",
        _ => "",
    };
    format!("{} ({role}{kind}{})", replica.node, milliseconds(replica.elapsed_us))
}

/// The story for people.
pub(super) fn text(explain: &Explain) -> String {
    let mut text = format!(
        "{}: token {}, partition {} of {}, ring version {}\npreference list: {}\n",
        explain.key,
        explain.token,
        explain.partition,
        explain.partitions,
        explain.ring_version,
        explain.preference_list.join(" ")
    );
    let hedged = if explain.hedged {
        ", a second owner was asked because the first was slow"
    } else {
        ""
    };
    let coordinator = explain.coordinator.as_deref().unwrap_or("unknown");
    text.push_str(&format!(
        "coordinator: {coordinator}; requests sent: {}{hedged}\n",
        explain.requests
    ));
    for failed in &explain.failed_attempts {
        text.push_str(&format!("without an answer: {failed}\n"));
    }
    let rows: Vec<Vec<String>> = explain.replicas.iter().map(row).collect();
    text.push_str(&output::table(&["NODE", "ROLE", "ANSWER", "TIME"], &rows));
    text
}

fn row(replica: &Replica) -> Vec<String> {
    let role = match replica.role {
        Role::Primary => "primary",
        Role::Fallback => "fallback",
    };
    let answer = match replica.state {
        ReplicaState::Acked => "full record".to_owned(),
        state => state.to_string(),
    };
    let time = match replica.state {
        ReplicaState::NotAsked => String::new(),
        _ => milliseconds(replica.elapsed_us),
    };
    vec![replica.node.clone(), role.to_owned(), answer, time]
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

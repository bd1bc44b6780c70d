//! The commands that `quorate dev` takes from a terminal or a pipe, one a line.

/// What to do to the cluster. Nodes are positions counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// SIGKILL.
    Kill(usize),
    /// Start what is down, resume what is paused.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// Cut the groups off from each other. Nodes in no group keep all their connections.
    Partition(Vec<Vec<usize>>),
    /// Undo every cut.
    Heal,
    /// Say how things stand.
    Status,
    /// Say what can be said.
    Help,
}

/// What `help` prints.
pub(super) const HELP: &str = "kill 2             kill -9 node 2
start 2            start node 2 again, or resume it
pause 2            stop node 2 where it stands (SIGSTOP)
partition 1,2 3    cut nodes 1 and 2 off from node 3; clients still reach all
heal               undo all cuts
status             how every node stands
help               this
^C or SIGTERM stops the cluster";

const HINT: &str = "try help";

/// Reads one line, for a cluster of so many nodes. `Ok(None)` for an empty one; errors are for the one who typed it.
pub(super) fn parse(line: &str, nodes: usize) -> Result<Option<Command>, String> {
    let mut words = line.split_whitespace();
    let Some(verb) = words.next() else { return Ok(None) };
    let rest: Vec<&str> = words.collect();
    let command = match (verb, &rest[..]) {
        ("kill", [node]) => Command::Kill(number(node, nodes)?),
        ("start", [node]) => Command::Start(number(node, nodes)?),
        ("pause", [node]) => Command::Pause(number(node, nodes)?),
        ("kill" | "start" | "pause", _) => return Err(format!("{verb} takes one node, like: {verb} {nodes}")),
        ("partition", groups) => Command::Partition(partition(groups, nodes)?),
        ("heal", []) => Command::Heal,
        ("status", []) => Command::Status,
        ("help" | "?", _) => Command::Help,
        ("heal" | "status", _) => return Err(format!("{verb} takes nothing else")),
        ("add" | "remove", _) => {
            return Err(format!(
                "{verb} changes who is a member, and that is not served yet; the members are fixed at the start"
            ));
        }
        ("quit" | "exit" | "stop", _) => return Err("^C or SIGTERM stops the cluster".to_owned()),
        _ => {
            return Err(format!(
                "unknown command {:?}; {HINT}",
                verb.chars().take(32).collect::<String>()
            ));
        }
    };
    Ok(Some(command))
}

/// `2` or `n2`, as a position.
fn number(word: &str, nodes: usize) -> Result<usize, String> {
    let digits = word.strip_prefix('n').unwrap_or(word);
    match digits.parse::<usize>() {
        Ok(number) if (1..=nodes).contains(&number) => Ok(number - 1),
        _ => Err(format!(
            "there is no node {:?}; nodes are 1 to {nodes}",
            word.chars().take(32).collect::<String>()
        )),
    }
}

fn partition(words: &[&str], nodes: usize) -> Result<Vec<Vec<usize>>, String> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut seen = Vec::new();
    for word in words {
        let group: Vec<usize> = word
            .split(',')
            .map(|word| number(word, nodes))
            .collect::<Result<_, _>>()?;
        if let Some(twice) = group
            .iter()
            .enumerate()
            .find(|(at, node)| seen.contains(*node) || group[..*at].contains(node))
        {
            return Err(format!("node {} stands in two places", twice.1 + 1));
        }
        seen.extend(&group);
        groups.push(group);
    }
    if groups.len() < 2 {
        return Err("partition takes two groups or more, like: partition 1,2 3".to_owned());
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_is_read() {
        let cases = [
            ("kill 2", Some(Command::Kill(1))),
            ("  kill   n3 ", Some(Command::Kill(2))),
            ("start 1", Some(Command::Start(0))),
            ("pause 2", Some(Command::Pause(1))),
            ("partition 1,2 3", Some(Command::Partition(vec![vec![0, 1], vec![2]]))),
            (
                "partition 1 n2 3",
                Some(Command::Partition(vec![vec![0], vec![1], vec![2]])),
            ),
            ("heal", Some(Command::Heal)),
            ("status", Some(Command::Status)),
            ("help", Some(Command::Help)),
            ("", None),
            ("   ", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line, 3), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn every_mistake_gets_a_hint() {
        let cases = [
            ("kill", "kill takes one node"),
            ("kill 1 2", "kill takes one node"),
            ("kill 0", "there is no node \"0\"; nodes are 1 to 3"),
            ("kill 4", "nodes are 1 to 3"),
            ("kill -1", "there is no node"),
            ("start x", "there is no node"),
            ("partition", "two groups or more"),
            ("partition 1,2,3", "two groups or more"),
            ("partition 1,2 2", "node 2 stands in two places"),
            ("partition 1,1 2", "node 1 stands in two places"),
            ("partition 1, 2", "there is no node \"\""),
            ("heal 1", "heal takes nothing else"),
            ("add", "add changes who is a member, and that is not served yet"),
            ("remove 2", "not served yet"),
            ("exit", "SIGTERM stops"),
            ("frobnicate", "unknown command \"frobnicate\"; try help"),
        ];
        for (line, expected) in cases {
            let told = parse(line, 3).unwrap_err();
            assert!(told.contains(expected) && !told.contains('\n'), "{line:?}: {told}");
        }
    }
}

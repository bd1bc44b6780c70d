//! `quorate put`, `get` and `delete`: one key at a time, without losing what somebody else wrote.
//!
//! A write reads first and gives the context back, so it replaces exactly what was there. If that would cover several values, the
//! command refuses and shows them, unless `--resolve` says that the new value follows from all of them. `--blind` writes without
//! looking: the value stands beside what is there. Off a terminal `get` prints the bare value and nothing else.

mod args;
mod explain;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use args::{DeleteArgs, GetArgs, PutArgs};

use super::error::{Replica, plain};
use super::{CliError, Exit, Terminal};
use args::Target;
use quorate_client::{
    Attempts, Client, Context, Error, Key, Operation, ReadOptions, ReplicaReport, Reply, Value, View,
};
use serde::Serialize;
use show::Found;
use std::time::{Duration, Instant};

/// The least that is waited for an answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// A connected client, the key it is about, and how patient to be.
struct Session {
    client: Client,
    key: Key,
    /// For everything together: connecting if it was given, reading, writing.
    timeout: Duration,
    deadline: Instant,
}

/// What a read brought.
struct Read {
    view: View,
    replicas: Vec<ReplicaReport>,
    attempts: Attempts,
}

impl Session {
    async fn open(target: &Target) -> Result<Session, CliError> {
        let key = target.key()?;
        let started = Instant::now();
        let client = target.connect().await?;
        let (timeout, from) = match target.timeout() {
            Some(timeout) => (timeout, started),
            None => (client.patience().operation, Instant::now()),
        };
        Ok(Session {
            client,
            key,
            timeout,
            deadline: from + timeout,
        })
    }

    async fn execute(&self, operation: Operation) -> Result<(Reply, Attempts), CliError> {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(TIMEOUT_MIN);
        let result = self.client.execute(operation, left).await;
        Ok(result.map_err(|error| of_whole(error, self.timeout))?)
    }

    async fn read(&self, options: ReadOptions) -> Result<Read, CliError> {
        let operation = Operation::Get {
            key: self.key.clone(),
            minimum: None,
            options,
        };
        match self.execute(operation).await? {
            (Reply::Found { view, replicas }, attempts) => Ok(Read {
                view,
                replicas,
                attempts,
            }),
            (_, attempts) => Err(wrong_answer(&attempts)),
        }
    }

    /// The context of what is there now. Refuses if there are several values and nobody says that they were resolved.
    async fn context(
        &self,
        resolve: bool,
        verb: &str,
        terminal: &Terminal,
    ) -> Result<(Option<Context>, View), CliError> {
        let read = self.read(ReadOptions::default()).await?;
        let values = read.view.values().count();
        if values > 1 && !resolve {
            if !terminal.is_json() {
                let found = Found::new(&self.key, &read.view);
                eprint!("{}", show::siblings(&found, terminal));
            }
            let message = format!(
                "{} holds {values} siblings, and this {verb} would cover them all",
                self.key
            );
            let hint = "look at them with get; if your value follows from all of them, say --resolve";
            return Err(CliError::new(Exit::Precondition, message).hint(hint));
        }
        Ok((read.view.context.clone().map(Context::from_bytes), read.view))
    }

    async fn write(&self, operation: Operation, terminal: &Terminal) -> Result<(), CliError> {
        let done = match operation {
            Operation::Delete { .. } => "deleted",
            _ => "written",
        };
        let (reply, attempts) = self.execute(operation).await?;
        let Reply::Written { context, replicas, .. } = reply else {
            return Err(wrong_answer(&attempts));
        };
        let replicas: Vec<Replica> = self.client.name_replicas(&replicas).iter().map(Replica::from).collect();
        let written = Written {
            bucket: self.key.bucket().escape_ascii().to_string(),
            key: self.key.partition_key().escape_ascii().to_string(),
            sort: self.key.sort_key().map(|sort| sort.escape_ascii().to_string()),
            context: Context::from_bytes(context).to_string(),
            coordinator: explain::coordinator(&self.client, &attempts),
            replicas,
        };
        if terminal.is_json() {
            return terminal.print_json(&written);
        }
        let text = format!("{} {done}: {}\n", self.key, explain::acks(&written.replicas));
        terminal.print(text.as_bytes())
    }
}

/// People know the timeout that they gave, not what was left of it for the last step.
fn of_whole(error: Error, whole: Duration) -> Error {
    match error {
        Error::Deadline {
            outcome,
            attempts,
            last,
            ..
        } => Error::Deadline {
            outcome,
            timeout: whole,
            attempts,
            last,
        },
        error => error,
    }
}

fn wrong_answer(attempts: &Attempts) -> CliError {
    let node = attempts
        .answered_by
        .map_or_else(|| "a node".to_owned(), |id| id.to_string());
    Error::WrongAnswer { node }.into()
}

/// What `put` and `delete` print with `-o json`.
#[derive(Debug, Serialize)]
struct Written {
    bucket: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<String>,
    replicas: Vec<Replica>,
}

/// Writes a value.
pub(crate) async fn put(args: PutArgs, terminal: &Terminal) -> Result<(), CliError> {
    let given = args.context.as_deref().map(parse_context).transpose()?;
    // Before anything is asked of the cluster: a file that is not there, or a key that is none.
    let value = args.value()?;
    let session = Session::open(&args.target).await?;
    let context = match given {
        Some(context) => Some(context),
        None if args.blind => None,
        None => session.context(args.resolve, "put", terminal).await?.0,
    };
    let operation = Operation::Put {
        key: session.key.clone(),
        context: context.map(|context| context.as_bytes().clone()),
        value,
        request: session.client.request_id(),
        retry: false,
        options: args.quorum.options(),
    };
    session.write(operation, terminal).await
}

/// Deletes what is there.
pub(crate) async fn delete(args: DeleteArgs, terminal: &Terminal) -> Result<(), CliError> {
    let given = args.context.as_deref().map(parse_context).transpose()?;
    let session = Session::open(&args.target).await?;
    let context = match given {
        Some(context) => context,
        None => {
            let (context, view) = session.context(args.resolve, "delete", terminal).await?;
            match context {
                Some(context) if view.values().next().is_some() => context,
                _ => return Err(not_found(&session.key, &view)),
            }
        }
    };
    let operation = Operation::Delete {
        key: session.key.clone(),
        context: Some(context.as_bytes().clone()),
        request: session.client.request_id(),
        retry: false,
        options: args.quorum.options(),
    };
    session.write(operation, terminal).await
}

/// Reads what is there.
pub(crate) async fn get(args: GetArgs, terminal: &Terminal) -> Result<(), CliError> {
    let session = Session::open(&args.target).await?;
    let read = session.read(args.quorum.options()).await?;
    let mut found = Found::new(&session.key, &read.view);
    if terminal.is_json() {
        found.explain = args.explain.then(|| explain::explain(&session, &read));
        terminal.print_json(&found)?;
        return match found.found {
            true => Ok(()),
            false => Err(not_found(&session.key, &read.view)),
        };
    }
    if args.explain {
        eprint!("{}", explain::text(&explain::explain(&session, &read)));
    }
    let values: Vec<&Value> = read.view.values().collect();
    match (args.sibling, &values[..]) {
        (_, []) => Err(not_found(&session.key, &read.view)),
        (Some(number), _) => {
            let at = usize::from(number).checked_sub(1).and_then(|at| values.get(at));
            let none = || {
                CliError::new(
                    Exit::NotFound,
                    format!("there are {} values, no number {number}", values.len()),
                )
            };
            terminal.print(&show::value(at.ok_or_else(none)?, terminal))
        }
        (None, [value]) => terminal.print(&show::value(value, terminal)),
        (None, _) if terminal.is_terminal => terminal.print(show::siblings(&found, terminal).as_bytes()),
        (None, several) => {
            let message = format!("{} holds {} siblings", session.key, several.len());
            Err(CliError::new(Exit::Precondition, message)
                .hint("-o json prints them all, --sibling 1 the first one; put --resolve replaces them"))
        }
    }
}

fn not_found(key: &Key, view: &View) -> CliError {
    let how = if view.has_tombstone() {
        "was deleted"
    } else {
        "does not exist"
    };
    CliError::new(Exit::NotFound, format!("{key} {how}"))
}

fn parse_context(text: &str) -> Result<Context, CliError> {
    text.parse().map_err(plain)
}

//! `dev.toml`: what has to be the same when a cluster is taken up again.

use super::DevArgs;
use crate::certs::{PUBLIC, write_whole};
use crate::cli::error::plain;
use crate::cli::{CliError, Exit};
use quorate_ring::NodeId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Nodes of a new cluster unless told otherwise.
const NODES: u16 = 3;
/// First HTTP port unless told otherwise.
const HTTP_PORT: u16 = 7700;
/// Ports from one node to the next.
pub(super) const PORTS_PER_NODE: u16 = 10;

const HEADER: &str = "# `quorate dev` keeps here what it needs to take this cluster up again.\n";

/// The part of a cluster that the command line cannot change later, and the ports that it used last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevState {
    pub(super) zones: u16,
    pub(super) http_port: u16,
    pub(super) nodes: Vec<NodeId>,
}

impl DevState {
    /// What the command line and an earlier state make together. Nothing is written.
    pub(super) fn plan(args: &DevArgs, earlier: Option<&DevState>) -> Result<DevState, CliError> {
        let state = match earlier {
            Some(earlier) => {
                let (had, dir) = (earlier.nodes.len(), args.dir().display());
                check(&dir, "--nodes", had, args.nodes)?;
                check(&dir, "--zones", usize::from(earlier.zones), args.zones)?;
                DevState {
                    http_port: args.http_port.unwrap_or(earlier.http_port),
                    ..earlier.clone()
                }
            }
            None => DevState {
                zones: args.zones.unwrap_or(1),
                http_port: args.http_port.unwrap_or(HTTP_PORT),
                nodes: (0..args.nodes.unwrap_or(NODES))
                    .map(|_| NodeId::from(uuid::Uuid::new_v4()))
                    .collect(),
            },
        };
        let (nodes, zones) = (state.nodes.len(), usize::from(state.zones));
        if zones > nodes {
            let message = format!("--zones {zones} is more than there are nodes, {nodes}; each zone needs a node");
            return Err(CliError::new(Exit::Usage, message).hint(format!("--nodes {zones}, or fewer zones")));
        }
        let last = usize::from(state.http_port) + (state.nodes.len() - 1) * usize::from(PORTS_PER_NODE) + 2;
        if last > usize::from(u16::MAX) {
            let message = format!("the last node would need port {last}; choose a lower --http-port");
            return Err(CliError::new(Exit::Usage, message));
        }
        Ok(state)
    }

    /// Reads the state of a directory, if there is one.
    pub(super) fn read(path: &Path) -> Result<Option<DevState>, CliError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| plain(format!("cannot read {}: {error}", path.display())))?,
        };
        let damaged = |why: String| {
            let hint = "restore it, or remove the directory to start afresh";
            plain(format!("{} is damaged: {why}", path.display())).hint(hint)
        };
        let state: DevState = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        if state.nodes.is_empty() || state.zones == 0 {
            return Err(damaged("it names no nodes or no zones".to_owned()));
        }
        Ok(Some(state))
    }

    /// Writes the state.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = HEADER.to_owned() + &toml::to_string(self).map_err(plain)?;
        write_whole(path, text.as_bytes(), PUBLIC)
            .map_err(|error| plain(format!("cannot write {}: {error}", path.display())))
    }
}

/// What a cluster was born with cannot be changed by starting it differently.
fn check(dir: &std::path::Display<'_>, flag: &str, had: usize, asked: Option<u16>) -> Result<(), CliError> {
    match asked {
        Some(asked) if usize::from(asked) != had => {
            let message = format!("the cluster in {dir} was made with {flag} {had}, not {asked}");
            let hint = format!(
                "leave {flag} out to take it up again, give another --dir for a second cluster, or remove {dir} to start afresh"
            );
            Err(CliError::new(Exit::Error, message).hint(hint))
        }
        _ => Ok(()),
    }
}

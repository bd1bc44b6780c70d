//! The directory of a cluster: made once, completed if something is missing, taken up again as it is.
//!
//! ```text
//! DIR/dev.toml                     ids, zones, ports: decided first, so whatever happens next can be repeated
//! DIR/lock                         held while `quorate dev` runs
//! DIR/ca.pem ca.key context.key    the cluster's CA and the key that seals contexts
//! DIR/client.toml client.pem .key  for clients
//! DIR/n1/quorate.toml              a node's configuration
//! DIR/n1/node.pem node.key         its certificate
//! DIR/n1/data log pid              what it leaves while it runs
//! ```
//!
//! Certificates stay unless they are about to end. A configuration stays as it is while the ports are the same, so it can be edited.
//! A directory that is to be thrown away goes with the [`Layout`], and so does one in which nothing was made because the ports are busy, say.

use super::lock::Lock;
use super::state::{DevState, PORTS_PER_NODE};
use super::{DevArgs, ports};
use crate::certs::{Authority, CA_DAYS, CertificateInfo, LEAF_DAYS, PRIVATE, PUBLIC, Validity, write_whole};
use crate::cli::CliError;
use crate::cli::cert::create_private_dir;
use crate::cli::error::plain;
use crate::tls::Identity;
use quorate_ring::NodeId;
use rand::TryRngCore;
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What the cluster is called.
const CLUSTER: &str = "dev";
/// 64 partitions are plenty for so few nodes.
const PARTITION_BITS: u8 = 6;
/// Certificates with fewer days left are made anew.
const RENEW_DAYS: i64 = 30;

/// One node: who it is, where it lives, where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from 1.
    pub(super) number: usize,
    /// `n1` for node 1.
    pub(super) name: String,
    pub(super) id: NodeId,
    pub(super) zone: String,
    pub(super) dir: PathBuf,
    pub(super) http: SocketAddr,
    pub(super) quic: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Place {
    /// A file in the node's directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A directory in which everything is there that a cluster needs. Nobody else uses it while this value lives.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    places: Vec<Place>,
    /// Whether the directory goes at the end.
    temporary: bool,
    _lock: Lock,
}

impl Layout {
    /// Makes the directory, or takes it up again. If anything is wrong, no node has been started.
    pub(super) fn prepare(args: &DevArgs) -> Result<Layout, CliError> {
        let dir = args.dir().to_owned();
        if args.temp {
            refuse_used(&dir)?;
        }
        let is_new = !dir.exists();
        make(&dir)?;
        let lock = Lock::take(&dir)?;
        if args.temp {
            // Another one may have been here in between.
            refuse_used(&dir)?;
        }
        let mut layout = Layout {
            dir,
            places: Vec::new(),
            temporary: args.temp,
            _lock: lock,
        };
        match layout.fill(args) {
            Ok(()) => Ok(layout),
            Err(error) => {
                layout.leave_as_found(is_new);
                Err(error)
            }
        }
    }

    /// Decides who and where the nodes are, and writes what is missing.
    fn fill(&mut self, args: &DevArgs) -> Result<(), CliError> {
        let earlier = DevState::read(&self.dir.join("dev.toml"))?;
        let state = DevState::plan(args, earlier.as_ref())?;
        self.places = places(&self.dir, &state);
        ports::check(&self.places)?;
        if earlier.as_ref() != Some(&state) {
            state.write(&self.dir.join("dev.toml"))?;
        }
        self.places.iter().try_for_each(|place| make(&place.dir))?;
        self.certificates()?;
        self.context_key()?;
        let moved = earlier.is_none_or(|earlier| earlier.http_port != state.http_port);
        self.configurations(moved)
    }

    /// Removes the lock's file, and the directory if it is ours, unless there is something else in it.
    fn leave_as_found(&self, is_new: bool) {
        // What cannot be removed stays, and does no harm.
        if !holds_something(&self.dir) {
            let _ = fs::remove_file(Lock::path(&self.dir));
            if is_new {
                let _ = fs::remove_dir(&self.dir);
            }
        }
    }

    /// The cluster's directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The nodes, in order.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// What clients need.
    pub(super) fn client_config(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// The CA, and what it issues: kept while it holds.
    fn certificates(&self) -> Result<(), CliError> {
        let (ca, ca_key) = (self.dir.join("ca.pem"), self.dir.join("ca.key"));
        let keep = holds(&ca, "CA") && ca_key.exists();
        let authority = match keep {
            true => Authority::load(&ca, &ca_key).map_err(plain)?,
            false => {
                let (authority, issued) = Authority::create(CLUSTER, Validity::days(CA_DAYS)).map_err(plain)?;
                issued.write(&ca, &ca_key).map_err(plain)?;
                authority
            }
        };
        let nodes = self
            .places
            .iter()
            .map(|place| (Identity::Node(place.id), place.file("node")));
        let client = (Identity::client("dev").map_err(plain)?, self.dir.join("client"));
        for (identity, stem) in nodes.chain([client]) {
            let (certificate, key) = (stem.with_extension("pem"), stem.with_extension("key"));
            if keep && key.exists() && holds(&certificate, &identity.to_string()) {
                continue;
            }
            let issued = authority.issue(&identity, Validity::days(LEAF_DAYS)).map_err(plain)?;
            issued.write(&certificate, &key).map_err(plain)?;
        }
        Ok(())
    }

    fn context_key(&self) -> Result<(), CliError> {
        let path = self.dir.join("context.key");
        if path.exists() {
            return Ok(());
        }
        let mut secret = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut secret).map_err(plain)?;
        let mut text = String::new();
        for byte in secret {
            let _infallible = write!(text, "{byte:02x}");
        }
        text.push('\n');
        write(&path, &text, PRIVATE)
    }

    fn configurations(&self, moved: bool) -> Result<(), CliError> {
        for place in &self.places {
            let path = place.file("quorate.toml");
            if moved || !path.exists() {
                write(&path, &node_toml(place, &self.places), PUBLIC)?;
            }
        }
        if moved || !self.client_config().exists() {
            write(&self.client_config(), &client_toml(&self.places), PUBLIC)?;
        }
        Ok(())
    }
}

/// Still under the lock, so it is nobody else's by now.
impl Drop for Layout {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            super::say(&format!("cannot remove {}: {error}", self.dir.display()));
        }
    }
}

fn make(dir: &Path) -> Result<(), CliError> {
    create_private_dir(dir).map_err(|error| plain(format!("cannot make {}: {error}", dir.display())))
}

/// Whether there is anything besides the lock's file.
fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| entry.path() != Lock::path(dir)))
}

/// What is thrown away at the end must hold nothing at the start. A link is refused too: only itself would be removed.
fn refuse_used(dir: &Path) -> Result<(), CliError> {
    let usable = match fs::symlink_metadata(dir) {
        Ok(found) => found.is_dir() && !holds_something(dir),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if usable {
        return Ok(());
    }
    let message = format!(
        "--temp would remove {} at the end, and it is no new or empty directory",
        dir.display()
    );
    Err(plain(message).hint("give another --dir, or leave --temp out to keep the cluster"))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    write_whole(path, text.as_bytes(), mode).map_err(|error| plain(format!("cannot write {}: {error}", path.display())))
}

/// Whether a certificate is there, is the one we want, and holds for some time.
fn holds(path: &Path, identity: &str) -> bool {
    let wanted =
        |info: &CertificateInfo| info.identity == identity && info.is_valid_now() && info.days_left >= RENEW_DAYS;
    CertificateInfo::read(path).is_ok_and(|found| found.first().is_some_and(wanted))
}

fn places(dir: &Path, state: &DevState) -> Vec<Place> {
    let place = |(at, id): (usize, &NodeId)| {
        let name = format!("n{}", at + 1);
        let port = state.http_port + at as u16 * PORTS_PER_NODE;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Place {
            number: at + 1,
            id: *id,
            zone: format!("z{}", at % usize::from(state.zones) + 1),
            dir: dir.join(&name),
            name,
            http: address(port),
            quic: address(port + 1),
            admin: address(port + 2),
        }
    };
    state.nodes.iter().enumerate().map(place).collect()
}

fn node_toml(me: &Place, all: &[Place]) -> String {
    let mut text = format!(
        "# Written by `quorate dev`, which leaves it alone until the ports change. Restart the node after an edit.\n\
         name = \"{}\"\ndata_dir = \"data\"\n\n\
         [cluster]\nname = \"{CLUSTER}\"\npartition_bits = {PARTITION_BITS}\ncontext_key_file = \"../context.key\"\n",
        me.name
    );
    for place in all {
        let Place {
            id,
            name,
            zone,
            quic,
            http,
            ..
        } = place;
        let _infallible = write!(
            text,
            "\n[[cluster.members]]\nid = \"{id}\"\nname = \"{name}\"\nzone = \"{zone}\"\nweight = 1\nquic = \"{quic}\"\nhttp = \"{http}\"\n"
        );
    }
    let Place { quic, http, admin, .. } = me;
    let _infallible = write!(
        text,
        "\n[listen]\nquic = \"{quic}\"\nhttp = \"{http}\"\nadmin = \"{admin}\"\n\n\
         [tls]\nca = \"../ca.pem\"\ncertificate = \"node.pem\"\nkey = \"node.key\"\n\n\
         [buckets.default]\nn = {}\n\n[log]\nlevel = \"info\"\nformat = \"human\"\n",
        all.len().min(3)
    );
    text
}

fn client_toml(all: &[Place]) -> String {
    let quic: Vec<String> = all.iter().map(|place| format!("\"{}\"", place.quic)).collect();
    let http: Vec<String> = all.iter().map(|place| format!("\"http://{}\"", place.http)).collect();
    format!(
        "cluster = \"{CLUSTER}\"\nendpoints = [{}]\nhttp = [{}]\nca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n",
        quic.join(", "),
        http.join(", ")
    )
}

#[cfg(test)]
mod tests;

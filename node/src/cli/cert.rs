//! `quorate cert`: a CA for a cluster, certificates for its nodes and clients, and what a certificate says.

use super::error::plain;
use super::{CliError, Exit, Terminal};
use crate::certs::{Authority, CA_DAYS, CertificateInfo, Issued, LEAF_DAYS, Validity};
use crate::tls::Identity;
use quorate_ring::NodeId;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What `quorate cert` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    verb: CertVerb,
}

#[derive(Debug, clap::Subcommand)]
enum CertVerb {
    /// Make a CA: ca.pem for everybody, ca.key to be kept safe
    Ca {
        /// The cluster's name, for people
        #[arg(long, default_value = "quorate")]
        cluster: String,
        /// How long it is valid
        #[arg(long, default_value_t = CA_DAYS)]
        days: u32,
        #[command(flatten)]
        out: Out,
    },
    /// Issue a certificate to a node: node.pem and node.key
    Node {
        /// The node's id; a new one if left out
        #[arg(long, value_name = "UUID")]
        id: Option<NodeId>,
        #[command(flatten)]
        issuer: Issuer,
        #[command(flatten)]
        out: Out,
    },
    /// Issue a certificate to a client: NAME.pem and NAME.key
    Client {
        /// The client's name: a-z, 0-9 and '-'
        name: String,
        /// May also change the cluster
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        issuer: Issuer,
        #[command(flatten)]
        out: Out,
    },
    /// Show what certificates say
    Show {
        /// PEM files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Issuer {
    /// The CA's certificate
    #[arg(long, default_value = "ca.pem", value_name = "FILE")]
    ca: PathBuf,
    /// The CA's key
    #[arg(long, default_value = "ca.key", value_name = "FILE")]
    ca_key: PathBuf,
    /// How long the certificate is valid
    #[arg(long, default_value_t = LEAF_DAYS)]
    days: u32,
}

#[derive(Debug, clap::Args)]
struct Out {
    /// Where the files go
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// Makes or shows certificates.
pub(crate) fn run(args: CertArgs, terminal: &Terminal) -> Result<(), CliError> {
    match args.verb {
        CertVerb::Ca { cluster, days, out } => {
            let (_, issued) = Authority::create(&cluster, Validity::days(days)).map_err(plain)?;
            write(&issued, "ca", &out, terminal)
        }
        CertVerb::Node { id, issuer, out } => {
            let id = id.unwrap_or_else(|| NodeId::from(uuid::Uuid::new_v4()));
            write(&issue(&issuer, &Identity::Node(id))?, "node", &out, terminal)
        }
        CertVerb::Client {
            name,
            admin,
            issuer,
            out,
        } => {
            let identity = if admin {
                Identity::admin(&name)
            } else {
                Identity::client(&name)
            };
            let identity = identity.map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
            write(&issue(&issuer, &identity)?, &name, &out, terminal)
        }
        CertVerb::Show { files } => {
            let mut found = Vec::new();
            for file in files {
                found.extend(CertificateInfo::read(&file).map_err(plain)?);
            }
            print(&found, terminal)
        }
    }
}

fn issue(issuer: &Issuer, identity: &Identity) -> Result<Issued, CliError> {
    let authority = Authority::load(&issuer.ca, &issuer.ca_key).map_err(plain)?;
    authority.issue(identity, Validity::days(issuer.days)).map_err(plain)
}

/// Writes NAME.pem and NAME.key, and shows the certificate.
fn write(issued: &Issued, name: &str, out: &Out, terminal: &Terminal) -> Result<(), CliError> {
    let paths = [out.out.join(format!("{name}.pem")), out.out.join(format!("{name}.key"))];
    if let Some(taken) = paths.iter().find(|path| !out.force && path.exists()) {
        let message = format!("{} is there already", taken.display());
        return Err(CliError::new(Exit::Error, message).hint("--force replaces it, --out DIR writes elsewhere"));
    }
    create_private_dir(&out.out).map_err(|error| plain(format!("cannot make {}: {error}", out.out.display())))?;
    issued.write(&paths[0], &paths[1]).map_err(plain)?;
    print(&CertificateInfo::read(&paths[0]).map_err(plain)?, terminal)
}

/// Makes a directory that only its owner may enter, unless it is there.
pub(super) fn create_private_dir(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn print(found: &[CertificateInfo], terminal: &Terminal) -> Result<(), CliError> {
    if terminal.is_json() {
        return terminal.print_json(&found);
    }
    let texts: Vec<String> = found.iter().map(text).collect();
    terminal.print(texts.join("\n").as_bytes())
}

fn text(info: &CertificateInfo) -> String {
    let validity = match info.is_valid_now() {
        true => format!("{} days left", info.days_left),
        false => "NOT valid now".to_owned(),
    };
    format!(
        "{}\n  identity  {}\n  subject   {}\n  issuer    {}\n  names     {}\n  valid     {} to {} ({validity})\n",
        info.file.display(),
        super::output::harmless(&info.identity),
        super::output::harmless(&info.subject),
        super::output::harmless(&info.issuer),
        super::output::harmless(&info.names.join(", ")),
        info.begins(),
        info.ends(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Output;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn out(dir: &Path) -> Out {
        Out {
            out: dir.to_owned(),
            force: false,
        }
    }

    fn run_verb(verb: CertVerb) -> Result<(), CliError> {
        run(CertArgs { verb }, &Terminal::piped(Output::Json))
    }

    fn issuer(dir: &Path) -> Issuer {
        Issuer {
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            days: 7,
        }
    }

    #[test]
    fn a_ca_then_a_node_then_a_client() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = &temporary.path().join("new");
        run_verb(CertVerb::Ca {
            cluster: "demo".into(),
            days: 30,
            out: out(dir),
        })
        .unwrap();
        let id: NodeId = "0a1b2c3d-4e5f-4000-8000-0123456789ab".parse().unwrap();
        run_verb(CertVerb::Node {
            id: Some(id),
            issuer: issuer(dir),
            out: out(dir),
        })
        .unwrap();
        for (name, admin) in [("alice", false), ("root", true)] {
            run_verb(CertVerb::Client {
                name: name.into(),
                admin,
                issuer: issuer(dir),
                out: out(dir),
            })
            .unwrap();
        }
        let identity = |file: &str| CertificateInfo::read(&dir.join(file)).unwrap()[0].identity.clone();
        assert_eq!(identity("ca.pem"), "CA");
        assert_eq!(identity("node.pem"), format!("node {id}"));
        assert_eq!(identity("alice.pem"), "client alice");
        assert_eq!(identity("root.pem"), "admin root");
        for key in ["ca.key", "node.key", "alice.key"] {
            assert_eq!(
                fs::metadata(dir.join(key)).unwrap().permissions().mode() & 0o777,
                0o600,
                "{key}"
            );
        }
        assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_replaced_without_force() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let ca = |force| CertVerb::Ca {
            cluster: "demo".into(),
            days: 30,
            out: Out {
                out: dir.to_owned(),
                force,
            },
        };
        run_verb(ca(false)).unwrap();
        let before = fs::read(dir.join("ca.key")).unwrap();
        assert!(
            run_verb(ca(false))
                .unwrap_err()
                .message
                .contains("ca.pem is there already")
        );
        assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);
        run_verb(ca(true)).unwrap();
        assert_ne!(fs::read(dir.join("ca.key")).unwrap(), before);
    }

    #[test]
    fn a_client_name_that_cannot_stand_in_a_certificate_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let verb = CertVerb::Client {
            name: "Alice!".into(),
            admin: false,
            issuer: issuer(dir.path()),
            out: out(dir.path()),
        };
        assert_eq!(run_verb(verb).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_json_keeps_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        run_verb(CertVerb::Ca {
            cluster: "demo".into(),
            days: 30,
            out: out(dir.path()),
        })
        .unwrap();
        let found = CertificateInfo::read(&dir.path().join("ca.pem")).unwrap();
        let json = serde_json::to_value(&found).unwrap();
        for field in ["file", "subject", "issuer", "identity", "serial"] {
            assert!(json[0][field].is_string(), "{field}");
        }
        assert_eq!(json[0]["is_ca"], true);
        assert!((29..=30).contains(&json[0]["days_left"].as_i64().unwrap()));
        assert!(json[0]["not_before"].is_i64() && json[0]["not_after"].is_i64() && json[0]["names"].is_array());
        let text = text(&found[0]);
        assert!(
            text.contains("subject   CN=Quorate CA of demo") && text.contains(" days left"),
            "{text}"
        );
    }
}

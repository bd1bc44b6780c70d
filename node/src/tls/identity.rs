//! Who holds a certificate, read from its DNS names.

use quorate_client::tls::{NODE_SERVER_NAME, node_server_name};
use quorate_ring::NodeId;
use rustls::pki_types::CertificateDer;
use std::fmt;
use webpki::EndEntityCert;

/// Longest name of a client or admin, in bytes: that of a DNS label.
pub const NAME_BYTES_MAX: usize = 63;

const CLIENT_SUFFIX: &str = ".client.quorate";
const ADMIN_SUFFIX: &str = ".admin.quorate";

/// Who somebody is, by certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A node, with the id that it has in the ring.
    Node(NodeId),
    /// An application.
    Client(String),
    /// An operator.
    Admin(String),
}

/// Why a certificate is nobody's. The connection is closed; nothing that came on it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The peer showed no certificate.
    #[error("no certificate was shown")]
    NoCertificate,
    /// The certificate does not parse.
    #[error("the certificate does not parse: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It carries no DNS name.
    #[error("the certificate carries no DNS name")]
    NoName,
    /// It carries a name that is not one of ours.
    #[error("the certificate carries the name {name:?}, which names neither a node nor a client nor an admin")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// It names two holders.
    #[error("the certificate names both {first} and {second}")]
    Ambiguous {
        /// The one.
        first: Identity,
        /// The other.
        second: Identity,
    },
    /// A name for a client or admin that cannot stand in a certificate.
    #[error("{name:?} is no name: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', not beginning or ending with '-'")]
    BadName {
        /// The name.
        name: String,
    },
}

impl Identity {
    /// A client of this name, if it can be one.
    pub fn client(name: &str) -> Result<Identity, IdentityError> {
        checked(name).map(Identity::Client)
    }

    /// An admin of this name, if it can be one.
    pub fn admin(name: &str) -> Result<Identity, IdentityError> {
        checked(name).map(Identity::Admin)
    }

    /// The names that its certificate carries, the most specific first.
    pub fn dns_names(&self) -> Vec<String> {
        match self {
            Identity::Node(id) => vec![node_server_name(*id), NODE_SERVER_NAME.to_owned()],
            Identity::Client(name) => vec![format!("{name}{CLIENT_SUFFIX}")],
            Identity::Admin(name) => vec![format!("{name}{ADMIN_SUFFIX}")],
        }
    }

    /// Whose certificate this is. Does not verify it: that was done in the handshake.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| IdentityError::Malformed {
            reason: error.to_string(),
        })?;
        Identity::of_names(parsed.valid_dns_names())
    }

    fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Identity, IdentityError> {
        let mut found: Option<Identity> = None;
        let mut any_node = false;
        for name in names {
            if name == NODE_SERVER_NAME {
                any_node = true;
                continue;
            }
            let identity = Identity::of_name(name)?;
            match found.take() {
                Some(first) if first != identity => {
                    return Err(IdentityError::Ambiguous {
                        first,
                        second: identity,
                    });
                }
                _ => found = Some(identity),
            }
        }
        match found {
            // A client that also carried the nodes' common name could pass for a node to other clients.
            Some(Identity::Client(_) | Identity::Admin(_)) if any_node => Err(IdentityError::UnknownName {
                name: NODE_SERVER_NAME.to_owned(),
            }),
            Some(identity) => Ok(identity),
            None if any_node => Err(IdentityError::UnknownName {
                name: NODE_SERVER_NAME.to_owned(),
            }),
            None => Err(IdentityError::NoName),
        }
    }

    fn of_name(name: &str) -> Result<Identity, IdentityError> {
        let unknown = || IdentityError::UnknownName {
            name: name.chars().take(128).collect(),
        };
        if let Some(id) = name
            .strip_suffix(NODE_SERVER_NAME)
            .and_then(|rest| rest.strip_suffix('.'))
        {
            return id.parse().map(Identity::Node).map_err(|_| unknown());
        }
        if let Some(client) = name.strip_suffix(CLIENT_SUFFIX) {
            return Identity::client(client).map_err(|_| unknown());
        }
        let admin = name.strip_suffix(ADMIN_SUFFIX).ok_or_else(unknown)?;
        Identity::admin(admin).map_err(|_| unknown())
    }
}

/// `node 0a1b…`, `client alice`, `admin bob`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node(id) => write!(f, "node {id}"),
            Identity::Client(name) => write!(f, "client {name}"),
            Identity::Admin(name) => write!(f, "admin {name}"),
        }
    }
}

fn checked(name: &str) -> Result<String, IdentityError> {
    let letters = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let ends = name.starts_with('-') || name.ends_with('-');
    if letters && !ends && (1..=NAME_BYTES_MAX).contains(&name.len()) {
        Ok(name.to_owned())
    } else {
        Err(IdentityError::BadName {
            name: name.chars().take(128).collect(),
        })
    }
}

/// Who is at the other end of a connection, whose certificate has been verified in the handshake.
pub fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    let shown = connection.peer_identity().ok_or(IdentityError::NoCertificate)?;
    let chain = shown
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| IdentityError::NoCertificate)?;
    Identity::of(chain.first().ok_or(IdentityError::NoCertificate)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "0a1b2c3d-4e5f-4000-8000-0123456789ab";

    fn of(names: &[&str]) -> Result<Identity, IdentityError> {
        Identity::of_names(names.iter().copied())
    }

    #[test]
    fn names_tell_who_somebody_is() {
        let node = Identity::Node(ID.parse().unwrap());
        assert_eq!(of(&[&format!("{ID}.node.quorate"), "node.quorate"]), Ok(node.clone()));
        assert_eq!(of(&["node.quorate", &format!("{ID}.node.quorate")]), Ok(node.clone()));
        assert_eq!(of(&["alice.client.quorate"]), Ok(Identity::Client("alice".into())));
        assert_eq!(of(&["root.admin.quorate"]), Ok(Identity::Admin("root".into())));
        for identity in [node, Identity::client("a-1").unwrap(), Identity::admin("b").unwrap()] {
            let names = identity.dns_names();
            assert_eq!(of(&names.iter().map(String::as_str).collect::<Vec<_>>()), Ok(identity));
        }
    }

    #[test]
    fn every_other_name_is_nobody() {
        let foreign = [
            "*.node.quorate",
            "*.client.quorate",
            "node.quorate",
            "quorate",
            "client.quorate",
            ".client.quorate",
            "a.b.client.quorate",
            "Alice.client.quorate",
            "alice.client.quorate.example.com",
            "example.com",
            "x.node.quorate",
            "0A1B2C3D-4E5F-4000-8000-0123456789AB.node.quorate",
        ];
        for name in foreign {
            assert!(
                matches!(of(&[name]), Err(IdentityError::UnknownName { .. })),
                "{name}: {:?}",
                of(&[name])
            );
        }
        assert_eq!(of(&[]), Err(IdentityError::NoName));
    }

    #[test]
    fn a_certificate_of_two_holders_is_nobodys() {
        let (node, other) = (
            format!("{ID}.node.quorate"),
            format!("{}.node.quorate", ID.replace('a', "b")),
        );
        for pair in [
            [node.as_str(), "a.client.quorate"],
            [&node, &other],
            ["a.client.quorate", "a.admin.quorate"],
        ] {
            assert!(matches!(of(&pair), Err(IdentityError::Ambiguous { .. })), "{pair:?}");
        }
        assert!(matches!(
            of(&["a.client.quorate", "node.quorate"]),
            Err(IdentityError::UnknownName { .. })
        ));
        assert!(matches!(
            of(&["a.client.quorate", "example.com"]),
            Err(IdentityError::UnknownName { .. })
        ));
    }
}

//! Which handler answers which path, on which of the two ports.

use super::connection::Progress;
use super::problem::Problem;
use super::render::Answer;
use super::{Gateway, Surface, admin, health, kv, path};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{Method, Request, Version};

/// How comparing with other owners stands; by POST it begins.
const REPAIR: &str = "/v1/cluster/repair";

/// Answers one request.
pub(super) async fn handle(
    gateway: &Gateway,
    surface: Surface,
    request: Request<Incoming>,
    progress: &Progress,
) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let answer = if let Err(problem) = check_host(&head) {
        problem.answer()
    } else if let (Surface::Public, Some(rest)) = (surface, path.strip_prefix(path::PREFIX)) {
        kv::handle(gateway, &head, rest, body, progress).await
    } else {
        let query = head.uri.query().unwrap_or_default();
        fixed(gateway, surface, &head.method, path, query)
            .await
            .unwrap_or_else(Problem::answer)
    };
    gateway
        .metrics
        .responded(surface == Surface::Admin, answer.status().as_u16());
    answer
}

/// A request of HTTP/1.1 names its host, and none names two (RFC 9112, section 3.2). Which one it is does not matter here; but a proxy
/// in front may have taken another one for it.
fn check_host(head: &Parts) -> Result<(), Problem> {
    match head.headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if head.version < Version::HTTP_11 => Ok(()),
        0 => Err(Problem::bad_request("a request of HTTP/1.1 must have a Host header")),
        _ => Err(Problem::bad_request("the header host is given twice")),
    }
}

/// Paths without a variable part; all but one are read only.
async fn fixed(
    gateway: &Gateway,
    surface: Surface,
    method: &Method,
    path: &str,
    query: &str,
) -> Result<Answer, Problem> {
    let health = matches!(path, "/livez" | "/readyz" | "/startupz");
    let admin = matches!(
        path,
        "/metrics" | "/v1/cluster/status" | "/v1/cluster/ring" | "/v1/cluster/hints" | REPAIR
    );
    let known = health || (admin && surface == Surface::Admin);
    if !known {
        return Err(Problem::not_found(match surface {
            Surface::Public => "keys are under /v1/kv/{bucket}/{key}; health is at /livez, /readyz and /startupz",
            Surface::Admin => {
                "this port has /metrics, /v1/cluster/status, /v1/cluster/ring, /v1/cluster/hints, /v1/cluster/repair, /livez, /readyz \
                 and /startupz"
            }
        }));
    }
    match (method, path) {
        (&Method::GET | &Method::HEAD, _) => {}
        (&Method::POST, REPAIR) => return admin::repair(gateway, true).await,
        (_, REPAIR) => return Err(Problem::method_not_allowed(method, "GET, HEAD, POST")),
        _ => return Err(Problem::method_not_allowed(method, "GET, HEAD")),
    }
    match path {
        "/metrics" => Ok(admin::metrics(gateway).await),
        "/v1/cluster/status" => admin::status(gateway).await,
        "/v1/cluster/ring" => admin::ring(gateway, query),
        "/v1/cluster/hints" => admin::hints(gateway).await,
        REPAIR => admin::repair(gateway, false).await,
        _ => Ok(health::check(gateway, path, query).await),
    }
}

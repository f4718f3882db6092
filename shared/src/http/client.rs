//! Which address a request comes from, as far as the proxies in between can be believed.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use lambda_http::{http::HeaderMap, request::RequestContext};

use crate::{
    app::{App, Client},
    config::Network,
    problem::Problem,
};

/// The client's address: from the `ConnectInfo<SocketAddr>` that the gateway puts into the request's extensions, or from the
/// event of API Gateway.
#[derive(Debug, Clone)]
pub struct ClientAddress(pub Client);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let peer = match (parts.extensions.get::<ConnectInfo<SocketAddr>>(), parts.extensions.get::<RequestContext>()) {
            (Some(ConnectInfo(peer)), _) => Some(peer.ip()),
            (None, Some(RequestContext::ApiGatewayV2(context))) => {
                context.http.source_ip.as_deref().and_then(|address| address.parse().ok())
            }
            _ => None,
        };
        // Without an address there is nothing to limit by: a fault of the host, not of the caller.
        let peer = peer.ok_or_else(|| {
            tracing::error!("a request came without the address of its sender");
            Problem::Internal
        })?;
        Ok(Self(Client { address: behind_proxies(peer, &parts.headers, &app.config.trusted_proxies) }))
    }
}

/// The right-most address of the chain that is no trusted proxy: whatever stands left of it may be made up.
fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let values: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        if !is_trusted(address) {
            break;
        }
        let Ok(next) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        address = next.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| Network::try_from((*network).to_owned()).unwrap()).collect();
        behind_proxies(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let own = ["127.0.0.1/32", "10.0.0.0/8"];
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"], &own), "192.0.2.1");
        assert_eq!(seen("127.0.0.1", &["203.0.113.9"], &[]), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &["203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["6.6.6.6, 203.0.113.9"], &own), "203.0.113.9", "the left one is the client's own word");
        assert_eq!(seen("127.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.2.3"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["6.6.6.6", "203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["garbage"], &own), "127.0.0.1");
        assert_eq!(seen("::ffff:127.0.0.1", &["203.0.113.9"], &own), "203.0.113.9");
    }
}

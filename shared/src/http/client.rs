//! The client's address: the peer's, or one from `X-Forwarded-For` as far as its proxies are
//! trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use lambda_http::{
    http::{HeaderMap, HeaderValue},
    request::RequestContext,
};

use crate::{
    app::{App, Client},
    config::{Network, is_private},
    logging::OncePerMinute,
    problem::Problem,
};

/// The client's address. It comes from the `ConnectInfo<SocketAddr>` that the gateway adds to the
/// request's extensions, or from the event of API Gateway.
#[derive(Debug, Clone)]
pub struct ClientAddress(pub Client);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let peer = match (
            parts.extensions.get::<ConnectInfo<SocketAddr>>(),
            parts.extensions.get::<RequestContext>(),
        ) {
            (Some(ConnectInfo(peer)), _) => Some(peer.ip()),
            (None, Some(RequestContext::ApiGatewayV2(context))) => {
                context.http.source_ip.as_deref().and_then(|address| address.parse().ok())
            }
            _ => None,
        };
        // Limits need an address. A missing one is a fault of the host, not of the caller.
        let peer = peer.ok_or_else(|| {
            tracing::error!("a request came without the address of its sender");
            Problem::Internal
        })?;
        let trusted = &app.config.trusted_proxies;
        if forwards_untrusted(peer, &parts.headers, trusted)
            && let Some(left_out) = UNTRUSTED_FORWARDER.pass()
        {
            tracing::warn!(
                %peer,
                left_out,
                "X-Forwarded-For of a private address that is no trusted proxy is ignored, so all its clients share one \
                 address and its limits: if it is your reverse proxy, name it in trusted_proxies"
            );
        }
        Ok(Self(Client { address: client_address(peer, &parts.headers, trusted)? }))
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";
/// Once a minute, because a proxy that the configuration lacks sends the header with every request.
static UNTRUSTED_FORWARDER: OncePerMinute = OncePerMinute::new();

pub(super) fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The client's address: the right-most of the chain that is not a trusted proxy; entries to its
/// left may be forged.
///
/// # Errors
/// `bad-header` when an entry that a trusted proxy added can't be parsed: falling back to the
/// proxy's address would exempt the client from its own bans and limits.
pub fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[Network],
) -> Result<IpAddr, Problem> {
    let mut address = peer.to_canonical();
    // Repeated headers form one list. They are read as bytes, because one byte that is not ASCII
    // must not hide the other entries.
    let lines: Vec<&[u8]> =
        headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    if lines.iter().all(|line| line.trim_ascii().is_empty()) {
        return Ok(address);
    }
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        if !is_trusted(address, trusted) {
            break;
        }
        address = hop_address(hop).ok_or(Problem::BadHeader(
            "X-Forwarded-For: the entry that the last trusted proxy added is no address; expected an IP address, or one with a port",
        ))?;
    }
    Ok(address)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| {
        text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    });
    address.map(|address| address.to_canonical())
}

/// Whether a private address that is not trusted names another address as the client: it is most
/// likely a proxy that the configuration lacks. An API gateway adds the peer's own address, which
/// does not count.
fn forwards_untrusted(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> bool {
    let peer = peer.to_canonical();
    let mut hops = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    is_private(peer) && !is_trusted(peer, trusted) && hops.any(|hop| hop_address(hop) != Some(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|network| Network::try_from((*network).to_owned()).unwrap()).collect()
    }

    fn headers(forwarded: &[&[u8]]) -> HeaderMap {
        forwarded
            .iter()
            .map(|value| (FORWARDED_FOR.parse().unwrap(), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    fn seen_bytes(peer: &str, forwarded: &[&[u8]], trusted: &[&str]) -> String {
        match client_address(peer.parse().unwrap(), &headers(forwarded), &networks(trusted)) {
            Ok(address) => address.to_string(),
            Err(problem) => format!("{} {}", problem.explained().status, problem.detail()),
        }
    }

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        seen_bytes(
            peer,
            &forwarded.iter().map(|value| value.as_bytes()).collect::<Vec<_>>(),
            trusted,
        )
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let own = ["127.0.0.1/32", "10.0.0.0/8"];
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"], &own), "192.0.2.1");
        assert_eq!(seen("127.0.0.1", &["203.0.113.9"], &[]), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &["203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(
            seen("127.0.0.1", &["6.6.6.6, 203.0.113.9"], &own),
            "203.0.113.9",
            "the left one is the client's own word"
        );
        assert_eq!(seen("127.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.2.3"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["6.6.6.6", "203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(seen("::ffff:127.0.0.1", &["203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &[], &own), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &[" "], &own), "127.0.0.1", "an empty header is none");
    }

    #[test]
    fn a_byte_that_is_no_ascii_hides_no_address() {
        let own = ["127.0.0.1/32"];
        assert_eq!(seen_bytes("127.0.0.1", &[b"\xff, 203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["\u{e9}", "203.0.113.9"], &own), "203.0.113.9");
        // As in an API Gateway event: headers joined into one, invalid bytes replaced.
        assert_eq!(seen("127.0.0.1", &["\u{fffd},203.0.113.9"], &own), "203.0.113.9");
        assert_eq!(
            seen_bytes("203.0.113.9", &[b"\xff"], &own),
            "203.0.113.9",
            "nobody asks what a client writes"
        );
    }

    #[test]
    fn what_a_trusted_proxy_adds_must_be_an_address() {
        let own = ["127.0.0.1/32", "10.0.0.0/8"];
        for unreadable in [
            "garbage",
            "203.0.113.9,",
            "203.0.113.9, unknown",
            "203.0.113.9, \u{e9}",
            "6.6.6.6, _hidden, 10.1.2.3",
            "1.2.3.4:x",
        ] {
            let told = seen("127.0.0.1", &[unreadable], &own);
            assert!(told.starts_with("400 X-Forwarded-For: "), "{unreadable}: {told}");
        }
        assert!(seen("127.0.0.1", &["203.0.113.9", ""], &own).starts_with("400 "));
    }

    #[test]
    fn an_entry_may_have_a_port() {
        for (entry, address) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
        ] {
            assert_eq!(seen("127.0.0.1", &[entry], &["127.0.0.1"]), address, "{entry}");
        }
    }

    #[test]
    fn a_proxy_that_the_configuration_lacks_is_noticed() {
        let noticed = |peer: &str, forwarded: &[&[u8]], trusted: &[&str]| {
            forwards_untrusted(peer.parse().unwrap(), &headers(forwarded), &networks(trusted))
        };
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(noticed(private, &[b"203.0.113.9"], &[]), "{private}");
            assert!(!noticed(private, &[], &[]), "{private}");
        }
        assert!(!noticed("10.0.0.1", &[b"10.0.0.1"], &[]), "as in the event of a function");
        assert!(!noticed("10.0.0.1", &[b"203.0.113.9"], &["10.0.0.0/8"]));
        assert!(!noticed("192.0.2.1", &[b"203.0.113.9"], &[]), "a stranger on the internet");
    }
}

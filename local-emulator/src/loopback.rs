//! Checks that a request names a listener on this machine. A page in a browser can send requests to
//! its own host name, which its owner may resolve to 127.0.0.1 (DNS rebinding); `Host` then
//! contains that name.

use std::net::SocketAddr;

use hyper::{HeaderMap, Uri, header::HOST};

/// Whether the request names the listener at `address`, by a loopback address or `localhost` and
/// its port.
pub fn names_listener(headers: &HeaderMap, uri: &Uri, address: SocketAddr) -> bool {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = match (uri.authority(), host) {
        (Some(authority), Some(host)) if authority.as_str() != host => return false,
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return false,
    };
    let named = |name: &str| match authority.strip_prefix(name) {
        // The default port of HTTP.
        Some("") => address.port() == 80,
        Some(port) => {
            port.strip_prefix(':').and_then(|port| port.parse().ok()) == Some(address.port())
        }
        None => false,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| named(name))
        || authority == address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_with_the_port_name_a_listener() {
        let seen = |host: Option<&str>, uri: &str, address: &str| {
            let headers = host.iter().map(|host| (HOST, host.parse().unwrap())).collect();
            names_listener(&headers, &uri.parse().unwrap(), address.parse().unwrap())
        };
        let listener = "127.0.0.1:9001";
        for own in ["127.0.0.1:9001", "localhost:9001", "[::1]:9001"] {
            assert!(seen(Some(own), "/", listener), "{own}");
        }
        for other in [
            "evil.example:9001",
            "127.0.0.1:9002",
            "127.0.0.1",
            "localhost",
            "127.0.0.1.evil.example:9001",
            "localhost:9001.evil.example",
            "",
        ] {
            assert!(!seen(Some(other), "/", listener), "{other}");
        }
        assert!(!seen(None, "/", listener));
        assert!(seen(Some("localhost"), "/", "127.0.0.1:80"));
        assert!(seen(Some("127.0.0.5:9001"), "/", "127.0.0.5:9001"));
        assert!(
            !seen(Some("127.0.0.1:9001"), "http://evil.example:9001/", listener),
            "`Host` and the url must both name the listener"
        );
    }
}

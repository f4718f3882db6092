//! The primary that Redis Sentinel names. It is looked up for every new connection, and so after
//! every failover.

use redis::{
    AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::TcpSettings,
    sentinel::{Sentinel, SentinelNodeConnectionInfo},
};

use super::slot::Dial;

/// The sentinels, and the name of the primary that they watch.
pub(super) struct Sentinels {
    nodes: Vec<ConnectionInfo>,
    service: String,
    primary: SentinelNodeConnectionInfo,
    config: AsyncConnectionConfig,
}

impl Sentinels {
    /// Parses `[user:password@]host[:port][,host[:port]…]/service`, the part of the address after
    /// the scheme. The credentials are for Redis; sentinels are queried without any. `None` when it
    /// can't be parsed.
    pub(super) fn new(
        rest: &str,
        tls: bool,
        tcp: &TcpSettings,
        config: AsyncConnectionConfig,
    ) -> Option<Self> {
        let (authority, service) = rest.split_once('/')?;
        let (credentials, hosts) = authority
            .rsplit_once('@')
            .map_or(("", authority), |(before, after)| (&authority[..=before.len()], after));
        let named = !service.is_empty()
            && service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !named {
            return None;
        }
        let scheme = if tls { "rediss" } else { "redis" };
        let read = |credentials: &str, host: &str| -> RedisResult<ConnectionInfo> {
            Ok(format!("{scheme}://{credentials}{host}")
                .into_connection_info()?
                .set_tcp_settings(tcp.clone()))
        };
        // The sentinels' default port.
        let node = |host: &str| {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            let host = if has_port { host.to_owned() } else { format!("{host}:26379") };
            read("", &host).ok()
        };
        let nodes = hosts.split(',').map(node).collect::<Option<Vec<_>>>()?;
        let login: RedisConnectionInfo =
            read(credentials, "primary").ok()?.redis_settings().clone();
        let mut primary = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(login)
            .set_tcp_settings(tcp.clone());
        if tls {
            primary = primary.set_tls_mode(TlsMode::Secure);
        }
        Some(Self { nodes, service: service.to_owned(), primary, config })
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // A new client every time, because a sentinel may have moved too. It takes the first answer
        // whose server confirms that it is the primary.
        let mut sentinel = Sentinel::build(self.nodes.clone())?;
        let client = sentinel.async_master_for(&self.service, Some(&self.primary)).await?;
        client.get_multiplexed_async_connection_with_config(&self.config).await
    }
}

impl Dial for Sentinels {
    type Connection = MultiplexedConnection;
    const KEEPS_FAILED: bool = false;

    async fn dial(&self) -> Result<MultiplexedConnection, String> {
        self.connect().await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> Option<Sentinels> {
        Sentinels::new(rest, false, &TcpSettings::default(), AsyncConnectionConfig::new())
    }

    #[test]
    fn addresses_are_read() {
        let sentinels = read("user:pa%2Fss@a:1,b,[fd00::1],[fd00::1]:2/shop.1").unwrap();
        let nodes: Vec<String> =
            sentinels.nodes.iter().map(|node| node.addr().to_string()).collect();
        assert_eq!(nodes, ["a:1", "b:26379", "fd00::1:26379", "fd00::1:2"]);
        assert_eq!(sentinels.service, "shop.1");
        assert!(sentinels.nodes.iter().all(|node| node.redis_settings().password().is_none()));
        assert!(
            format!("{:?}", sentinels.primary).contains("\"user\""),
            "the credentials are for the primary"
        );
        assert!(read("a,b/shop").is_some());
    }

    #[test]
    fn what_is_no_list_of_sentinels_is_refused() {
        for wrong in [
            "a:1,b:2",
            "a/",
            "/shop",
            "a,,b/shop",
            "a:port/shop",
            "a/shop/1",
            "a/shop?x=y",
            "u:p/w@a/shop",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}

//! How the server or cluster is reached, and how commands are sent.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    RedisError, RedisResult, ServerErrorKind,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::{
    calls::COMMANDS,
    errors::{STORE, replaced_from, stored},
    script::Script,
    sentinel::Sentinels,
    slot::{Dial, Live, Slot},
};
use crate::ports::{StoreError, Stored};

/// Longest time to connect to one server, including the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for one node of a cluster: a node that is down must leave time to reach the others.
const NODE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for an answer. A command that timed out may still run, so scripts are idempotent.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is probed after this time, and then at this interval, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// ... and the system closes it when probes or sent data stay unacknowledged for this long.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(4);

/// A Redis server or cluster. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    prefix: String,
}

enum Target {
    Single(Arc<Slot<Client>>),
    Sentinel(Arc<Slot<Sentinels>>),
    Cluster(Arc<Slot<ClusterClient>>),
}

impl Dial for Client {
    type Connection = MultiplexedConnection;
    const KEEPS_FAILED: bool = false;

    async fn dial(&self) -> Result<MultiplexedConnection, String> {
        self.get_multiplexed_async_connection_with_config(&limits())
            .await
            .map_err(|error| error.to_string())
    }
}

impl Dial for ClusterClient {
    type Connection = ClusterConnection;
    // One node may have failed while the others serve their keys.
    const KEEPS_FAILED: bool = true;

    async fn dial(&self) -> Result<ClusterConnection, String> {
        self.get_async_connection().await.map_err(|error| error.to_string())
    }
}

/// The time limits for connecting to one server and for its answers.
fn limits() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

/// Makes the system detect a host that vanished silently.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let settings = TcpSettings::default().set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    settings
}

/// The address is invalid.
#[derive(Debug, thiserror::Error)]
#[error("redis-url: {0}")]
pub struct RedisUrlError(String);

impl Redis {
    /// Prepares a connection to `redis://`, `rediss://` or `redis+cluster://` (`rediss+cluster://`
    /// with TLS; further nodes of a cluster may follow after commas as `host:port`), or to the
    /// primary that the sentinels in `redis+sentinel://[user:password@]host[:port],…/service` name.
    /// No connection is made before the first command. Every key begins with `prefix`.
    ///
    /// # Errors
    /// When the address can't be parsed.
    pub fn new(url: &str, prefix: &str) -> Result<Self, RedisUrlError> {
        // The library's message may repeat the address, and with it the password.
        let unreadable = |_: RedisError| {
            RedisUrlError(
                "expected redis://[user:password@]host[:port][/db], rediss:// or redis+cluster://"
                    .to_owned(),
            )
        };
        let sentinels = [("redis+sentinel://", false), ("rediss+sentinel://", true)]
            .into_iter()
            .find_map(|(scheme, tls)| url.strip_prefix(scheme).map(|rest| (rest, tls)));
        let cluster = [("redis+cluster://", "redis://"), ("rediss+cluster://", "rediss://")]
            .into_iter()
            .find_map(|(scheme, plain)| url.strip_prefix(scheme).map(|rest| (plain, rest)));
        let target = if let Some((rest, tls)) = sentinels {
            let wrong = || {
                RedisUrlError(
                    "expected redis+sentinel://[user:password@]host[:port],…/service".to_owned(),
                )
            };
            Target::Sentinel(Slot::new(
                Sentinels::new(rest, tls, &tcp_settings(), limits()).ok_or_else(wrong)?,
            ))
        } else if let Some((scheme, rest)) = cluster {
            let (credentials, hosts) = rest
                .rsplit_once('@')
                .map_or(("", rest), |(before, after)| (&rest[..=before.len()], after));
            let nodes = hosts.split(',').map(|host| format!("{scheme}{credentials}{host}"));
            let client = ClusterClientBuilder::new(nodes)
                .connection_timeout(NODE_CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .tcp_settings(tcp_settings())
                .retries(2)
                .build()
                .map_err(unreadable)?;
            Target::Cluster(Slot::new(client))
        } else {
            let info =
                url.into_connection_info().map_err(unreadable)?.set_tcp_settings(tcp_settings());
            Target::Single(Slot::new(Client::open(info).map_err(unreadable)?))
        };
        Ok(Self { inner: Arc::new(Inner { target, prefix: prefix.to_owned() }) })
    }

    /// Whether keys with different hash tags may live on different servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.inner.target, Target::Cluster(_))
    }

    /// `prefix` + `name`.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.inner.prefix)
    }

    /// Runs a script with its keys and arguments already set.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Stored<T> {
        script.calls.measure(self.run_or_send(script, keys, arguments)).await
    }

    async fn run_or_send<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Stored<T> {
        match self.query(&script.by_hash(keys, arguments)).await? {
            // Sending the text also stores the script on this server, and only there: SCRIPT LOAD
            // would go to every node of a cluster, and fail while one of them is down.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&script.by_text(keys, arguments)).await?
            }
            answer => answer,
        }
        .map_err(|error| stored(&error))
    }

    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Stored<T> {
        COMMANDS.measure(async { self.query(command).await?.map_err(|error| stored(&error)) }).await
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Stored<RedisResult<T>> {
        match &self.inner.target {
            Target::Single(slot) => query(slot, command).await,
            Target::Sentinel(slot) => query(slot, command).await,
            Target::Cluster(slot) => query(slot, command).await,
        }
    }
}

async fn query<D: Dial<Connection: ConnectionLike + Clone>, T: FromRedisValue>(
    slot: &Arc<Slot<D>>,
    command: &Cmd,
) -> Stored<RedisResult<T>> {
    let live = connected(slot).await?;
    let answer = command.query_async(&mut live.connection.clone()).await;
    judge(slot, &live, &answer);
    Ok(answer)
}

async fn connected<D: Dial>(slot: &Arc<Slot<D>>) -> Stored<Arc<Live<D::Connection>>> {
    // A failure to connect means that no command was sent.
    slot.get().await.map_err(|cause| StoreError::Unavailable { store: STORE, cause })
}

/// Replaces the connection when the error shows that it is unusable.
fn judge<D: Dial, T>(
    slot: &Arc<Slot<D>>,
    live: &Arc<Live<D::Connection>>,
    answer: &RedisResult<T>,
) {
    if let Err(error) = answer
        && let Some(age) = replaced_from(error)
    {
        slot.replace(live, age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_looks_after_silent_connections() {
        let redis = Redis::new("redis://localhost:6379", "x:").unwrap();
        let Target::Single(slot) = &redis.inner.target else {
            panic!("a single server");
        };
        let settings = slot.dial.get_connection_info().tcp_settings();
        assert!(settings.keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(settings.user_timeout(), Some(UNACKNOWLEDGED_MAX));
    }
}

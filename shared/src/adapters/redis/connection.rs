//! How the server or cluster is reached, and how commands are sent to it.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError, RedisResult, Script,
    ServerErrorKind,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::{
    errors::{STORE, replaced_from, stored},
    slot::{Dial, Live, Slot},
};
use crate::ports::{StoreError, Stored};

/// Longest time to connect to one server, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for one node of a cluster: a node that is down must leave time to hear from the others.
const NODE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for an answer. A command that timed out may still run: scripts are idempotent.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is probed after this time, and then at this interval, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// ... and given up by the system when probes, or what was sent, are not acknowledged for this long.
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
    Cluster(Arc<Slot<ClusterClient>>),
}

impl Dial for Client {
    type Connection = MultiplexedConnection;
    const KEEPS_FAILED: bool = false;

    async fn dial(&self) -> Result<MultiplexedConnection, String> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(RESPONSE_TIMEOUT));
        self.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| error.to_string())
    }
}

impl Dial for ClusterClient {
    type Connection = ClusterConnection;
    // One node may have failed; the others go on serving their keys.
    const KEEPS_FAILED: bool = true;

    async fn dial(&self) -> Result<ClusterConnection, String> {
        self.get_async_connection().await.map_err(|error| error.to_string())
    }
}

/// Makes the system notice a host that vanished without a word.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let settings = TcpSettings::default().set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    settings
}

/// The address can't be used.
#[derive(Debug, thiserror::Error)]
#[error("redis-url: {0}")]
pub struct RedisUrlError(String);

impl Redis {
    /// Prepares a connection to `redis://`, `rediss://` or `redis+cluster://` (`rediss+cluster://` with TLS; further
    /// nodes of a cluster may follow after commas as `host:port`). No connection is made before the first command.
    /// Every key begins with `prefix`.
    ///
    /// # Errors
    /// When the address can't be read.
    pub fn new(url: &str, prefix: &str) -> Result<Self, RedisUrlError> {
        // The library's message may repeat the address, and with it the password.
        let unreadable =
            |_: RedisError| RedisUrlError("expected redis://[user:password@]host[:port][/db], rediss:// or redis+cluster://".to_owned());
        let cluster = [("redis+cluster://", "redis://"), ("rediss+cluster://", "rediss://")]
            .into_iter()
            .find_map(|(scheme, plain)| url.strip_prefix(scheme).map(|rest| (plain, rest)));
        let target = if let Some((scheme, rest)) = cluster {
            let (credentials, hosts) = rest.rsplit_once('@').map_or(("", rest), |(before, after)| (&rest[..=before.len()], after));
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
            let info = url.into_connection_info().map_err(unreadable)?.set_tcp_settings(tcp_settings());
            Target::Single(Slot::new(Client::open(info).map_err(unreadable)?))
        };
        Ok(Self { inner: Arc::new(Inner { target, prefix: prefix.to_owned() }) })
    }

    /// Whether keys of different hash tags may live on different servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.inner.target, Target::Cluster(_))
    }

    /// `prefix` + `name`.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.inner.prefix)
    }

    /// Runs a script with its keys and arguments already set.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &Script, keys: &[String], arguments: &[Vec<u8>]) -> Stored<T> {
        // Not `Script::invoke_async`: it copies every key and argument into a vector of its own first.
        let bytes = keys.iter().map(String::len).chain(arguments.iter().map(Vec::len)).sum::<usize>();
        let mut call = Cmd::with_capacity(3 + keys.len() + arguments.len(), bytes + 64);
        call.arg("EVALSHA").arg(script.get_hash()).arg(keys.len()).arg(keys);
        for argument in arguments {
            call.arg(argument.as_slice());
        }
        match self.query(&call).await? {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                match &self.inner.target {
                    Target::Single(slot) => load(slot, script).await?,
                    Target::Cluster(slot) => load(slot, script).await?,
                }
                self.query(&call).await?
            }
            answer => answer,
        }
        .map_err(|error| stored(&error))
    }

    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Stored<T> {
        self.query(command).await?.map_err(|error| stored(&error))
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Stored<RedisResult<T>> {
        match &self.inner.target {
            Target::Single(slot) => query(slot, command).await,
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

/// Gives the script to the server, or to every node of the cluster.
async fn load<D: Dial<Connection: ConnectionLike + Clone>>(slot: &Arc<Slot<D>>, script: &Script) -> Stored<()> {
    let live = connected(slot).await?;
    let answer = script.load_async(&mut live.connection.clone()).await;
    judge(slot, &live, &answer);
    answer.map(drop).map_err(|error| stored(&error))
}

async fn connected<D: Dial>(slot: &Arc<Slot<D>>) -> Stored<Arc<Live<D::Connection>>> {
    // Whatever goes wrong while a connection is made, no command has been sent.
    slot.get().await.map_err(|cause| StoreError::Unavailable { store: STORE, cause })
}

/// Has the connection replaced when the answer says that it is of no use.
fn judge<D: Dial, T>(slot: &Arc<Slot<D>>, live: &Arc<Live<D::Connection>>, answer: &RedisResult<T>) {
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

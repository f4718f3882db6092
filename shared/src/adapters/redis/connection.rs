//! One multiplexed connection that is made at first use and again whenever it breaks.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
};
use tokio::sync::OnceCell;

use crate::ports::{StoreError, Stored};

/// The store's name in errors.
const STORE: &str = "Redis";
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer. A command that timed out may still run: scripts are idempotent.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    Single(ConnectionManager),
    // Boxed: far larger than the other.
    Cluster(Box<(redis::cluster::ClusterClient, OnceCell<ClusterConnection>)>),
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
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .retries(2)
                .build()
                .map_err(unreadable)?;
            Target::Cluster(Box::new((client, OnceCell::new())))
        } else {
            let client = Client::open(url).map_err(unreadable)?;
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT))
                .set_number_of_retries(1)
                .set_min_delay(Duration::from_millis(20))
                .set_max_delay(Duration::from_millis(500));
            Target::Single(ConnectionManager::new_lazy_with_config(client, config).map_err(unreadable)?)
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
                    Target::Single(connection) => script.load_async(&mut connection.clone()).await,
                    Target::Cluster(_) => script.load_async(&mut self.cluster().await?).await,
                }
                .map_err(stored)?;
                self.query(&call).await?
            }
            answer => answer,
        }
        .map_err(stored)
    }

    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Stored<T> {
        self.query(command).await?.map_err(stored)
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Stored<RedisResult<T>> {
        Ok(match &self.inner.target {
            Target::Single(connection) => command.query_async(&mut connection.clone()).await,
            Target::Cluster(_) => command.query_async(&mut self.cluster().await?).await,
        })
    }

    async fn cluster(&self) -> Stored<ClusterConnection> {
        let Target::Cluster(cluster) = &self.inner.target else {
            unreachable!("only called for a cluster");
        };
        // Whatever goes wrong while the first connection is made, no command has been sent.
        let connection = cluster.1.get_or_try_init(|| cluster.0.get_async_connection()).await;
        connection.cloned().map_err(|error| StoreError::Unavailable { store: STORE, cause: error.to_string() })
    }
}

/// What Redis's errors mean to a caller.
pub(super) fn stored(error: RedisError) -> StoreError {
    let cause = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        )
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig => StoreError::Unavailable { store: STORE, cause },
        // Also -OOM and -MISCONF (a full disk): the server refuses to write.
        ErrorKind::Extension => StoreError::Unavailable { store: STORE, cause },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::Server(_) => StoreError::Corrupt { store: STORE, cause },
        _ if error.is_connection_refusal() => StoreError::Unavailable { store: STORE, cause },
        _ => StoreError::Unknown { store: STORE, cause },
    }
}

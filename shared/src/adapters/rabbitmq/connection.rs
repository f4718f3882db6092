//! One connection, from the first packet to its end, and its publishing channels.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties,
    options::ConfirmSelectOptions,
    tcp::OwnedTLSConfig,
    types::ShortString,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    errors::{not_done, unavailable},
    socket::{SocketGuard, SocketHandle},
    topology,
};
use crate::ports::Stored;

/// Longest time to make a connection and declare its queues.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for a free channel, and then for the server's answer to a call.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for a clean close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// The heartbeat: a silent server is given up after twice this time.
const HEARTBEAT_S: u16 = 5;
/// Concurrent publishes on one connection; further ones wait for a permit.
const CHANNELS_MAX: usize = 64;

/// Everything needed to make a connection.
#[derive(Clone)]
pub(super) struct Connector {
    uri: AMQPUri,
    purpose: &'static str,
    queue: ShortString,
    parked: ShortString,
    attempts: Arc<AtomicUsize>,
}

impl Connector {
    pub(super) fn new(
        mut uri: AMQPUri,
        purpose: &'static str,
        queue: ShortString,
        parked: ShortString,
    ) -> Self {
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Self { uri, purpose, queue, parked, attempts: Arc::default() }
    }

    /// What the connection is for, in logs.
    pub(super) fn purpose(&self) -> &'static str {
        self.purpose
    }

    /// Makes a connection and declares its queues. The error is a text for logs.
    pub(super) async fn connect(&self) -> Result<BrokerConnection, String> {
        match timeout(CONNECT_LIMIT, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no connection within {} s", CONNECT_LIMIT.as_secs())),
        }
    }

    async fn attempt(&self) -> Result<BrokerConnection, String> {
        let socket = SocketHandle::default();
        let turn = self.attempts.fetch_add(1, Ordering::Relaxed);
        let guard = SocketGuard(socket.clone());
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("flashsale {}", self.purpose).into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connection = Connection::connector(
            self.uri.clone(),
            runtime,
            async move |uri: AMQPUri, runtime| {
                let connecting = async {
                    let mut addresses: Vec<SocketAddr> =
                        tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port))
                            .await?
                            .collect();
                    // The addresses of a cluster's nodes under one name. If the first refuses, the
                    // next ones are tried. If its host does not answer at all, this attempt ends,
                    // and the next attempt starts with another node.
                    let first = turn % addresses.len().max(1);
                    addresses.rotate_left(first);
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(tcp) = &stream {
                        socket.attach(tcp.get_ref().as_fd().try_clone_to_owned()?.into())?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => {
                            stream
                                .into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref())
                                .await
                        }
                    }
                };
                // The timeout is needed here because the library's thread does not notice that its
                // caller has given up.
                let opened = timeout(CONNECT_LIMIT, connecting)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                Ok(opened?)
            },
            properties,
        )
        .await
        .map_err(|error| error.to_string())?;
        let connection = BrokerConnection {
            inner: Arc::new(connection),
            socket: Some(guard),
            idle_channels: Mutex::default(),
            permits: Semaphore::new(CHANNELS_MAX),
        };
        topology::declare(&connection.inner, &self.queue, &self.parked).await?;
        Ok(connection)
    }
}

/// A connection whose queues exist. When the last reference is dropped it is closed, cleanly where
/// possible.
pub(super) struct BrokerConnection {
    inner: Arc<Connection>,
    socket: Option<SocketGuard>,
    idle_channels: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

impl BrokerConnection {
    /// Whether the connection is up, as far as is known.
    pub(super) fn usable(&self) -> bool {
        self.inner.status().connected()
    }

    /// Whether the server blocks publishers because its memory or disk is nearly full.
    pub(super) fn blocked(&self) -> bool {
        self.inner.status().blocked()
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.inner.create_channel().await
    }

    /// A channel with publisher confirms for one call at a time. [`ConfirmChannel::keep`] keeps it
    /// for the next call.
    ///
    /// Only one publish is in flight per channel, because with several lapin can give a confirm to
    /// the wrong one: it hands a returned (unroutable) message to the publish that is confirmed
    /// next, and counts a publish before its frames are queued.
    pub(super) async fn confirm_channel(&self) -> Stored<ConfirmChannel<'_>> {
        let permit = self.permits.acquire().await.map_err(unavailable)?;
        loop {
            let idle = self.idle_channels().pop();
            let channel = match idle {
                Some(channel) if !channel.status().connected() => continue,
                Some(channel) => channel,
                None => {
                    let channel = self.channel().await.map_err(|error| not_done(&error))?;
                    channel
                        .confirm_select(ConfirmSelectOptions::default())
                        .await
                        .map_err(|error| not_done(&error))?;
                    channel
                }
            };
            return Ok(ConfirmChannel { connection: self, channel, _permit: permit });
        }
    }

    /// Closes the connection at once. Calls in flight fail.
    pub(super) async fn close(&self) {
        close(&self.inner).await;
    }

    fn idle_channels(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle_channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close(connection: &Connection) {
    // Do not wait for a server that does not answer; its side ends with the socket.
    let _ = timeout(CLOSE_LIMIT, connection.close(200, "OK".into())).await;
}

impl Drop for BrokerConnection {
    fn drop(&mut self) {
        let socket = self.socket.take();
        if let Ok(runtime) = Handle::try_current() {
            let connection = Arc::clone(&self.inner);
            runtime.spawn(async move {
                close(&connection).await;
                drop(socket);
            });
        }
    }
}

/// A channel with publisher confirms, used by one call.
pub(super) struct ConfirmChannel<'c> {
    connection: &'c BrokerConnection,
    channel: Channel,
    _permit: SemaphorePermit<'c>,
}

impl ConfirmChannel<'_> {
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Keeps the channel, which has nothing in flight, for the next call. Without this call it is
    /// closed.
    pub(super) fn keep(self) {
        self.connection.idle_channels().push(self.channel);
    }
}

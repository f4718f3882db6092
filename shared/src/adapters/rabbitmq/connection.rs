//! One connection, from dialling to its end, and the channels on it that publish.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
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

use super::{not_done, topology, unavailable};
use crate::ports::Stored;

/// Longest wait for a connection with its queues.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for a clean end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// A silent server is given up after twice this time.
const HEARTBEAT_S: u16 = 5;
/// Publishes that are in flight at once on one connection; others wait for their turn.
const CHANNELS_MAX: usize = 64;

/// What is needed to make a connection.
#[derive(Clone)]
pub(super) struct Dial {
    uri: AMQPUri,
    purpose: &'static str,
    queue: ShortString,
    parked: ShortString,
    attempts: Arc<AtomicUsize>,
}

impl Dial {
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

    /// Makes a connection and its queues. The error is for people.
    pub(super) async fn connect(&self) -> Result<Live, String> {
        match timeout(CONNECT_LIMIT, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no connection within {} s", CONNECT_LIMIT.as_secs())),
        }
    }

    async fn attempt(&self) -> Result<Live, String> {
        let plug = Plug::default();
        let turn = self.attempts.fetch_add(1, Ordering::Relaxed);
        let wire = Wire(plug.clone());
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
                    // The nodes of a cluster under one name. Those behind the first are tried when it refuses; when its host
                    // does not answer at all, this attempt ends, and the next begins with another.
                    let first = turn % addresses.len().max(1);
                    addresses.rotate_left(first);
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(tcp) = &stream {
                        plug.put(tcp.get_ref().as_fd().try_clone_to_owned()?.into())?;
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
                // The library's thread waits here without hearing that its caller has given up.
                let opened = timeout(CONNECT_LIMIT, connecting)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                Ok(opened?)
            },
            properties,
        )
        .await
        .map_err(|error| error.to_string())?;
        let live = Live {
            connection: Arc::new(connection),
            wire: Some(wire),
            idle: Mutex::default(),
            slots: Semaphore::new(CHANNELS_MAX),
        };
        topology::declare(&live, &self.queue, &self.parked).await?;
        Ok(live)
    }
}

/// A second handle to a connection's socket. lapin has a thread per connection, which a server that accepts and then
/// stays silent would keep for ever; shutting the socket down is what ends it.
#[derive(Clone, Default)]
struct Plug(Arc<Mutex<Plugged>>);

#[derive(Default)]
enum Plugged {
    #[default]
    NotYet,
    In(TcpStream),
    Pulled,
}

impl Plug {
    fn put(&self, socket: TcpStream) -> io::Result<()> {
        let mut plugged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*plugged, Plugged::Pulled) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *plugged = Plugged::In(socket);
        Ok(())
    }

    fn pull(&self) {
        let mut plugged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Plugged::In(socket) = std::mem::replace(&mut *plugged, Plugged::Pulled) {
            // Fails only when the other side has ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Ends the socket, and with it the library's thread, when dropped.
struct Wire(Plug);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.pull();
    }
}

/// A connection whose queues exist. Ends, cleanly where it can, when the last user lets go.
pub(super) struct Live {
    connection: Arc<Connection>,
    wire: Option<Wire>,
    idle: Mutex<Vec<Channel>>,
    slots: Semaphore,
}

impl Live {
    /// Whether the connection stands, as far as is known.
    pub(super) fn usable(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the server holds back what is published: its memory or disk is nearly full.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// A channel with publisher confirms for one call at a time, kept for the next when [`Slot::keep`] is called.
    ///
    /// One publish at a time, because with several in flight on one channel lapin can give a confirm to the wrong one:
    /// it hands a returned (unroutable) message to whichever publish is confirmed next, and counts a publish before
    /// its frames are queued.
    pub(super) async fn slot(&self) -> Stored<Slot<'_>> {
        let permit = self.slots.acquire().await.map_err(unavailable)?;
        loop {
            let idle = self.idle().pop();
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
            return Ok(Slot { live: self, channel, _permit: permit });
        }
    }

    /// Ends it now. What is on its way fails.
    pub(super) async fn close(&self) {
        farewell(&self.connection).await;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn farewell(connection: &Connection) {
    // A server that does not answer is left; its side ends with the socket.
    let _ = timeout(CLOSE_LIMIT, connection.close(200, "OK".into())).await;
}

impl Drop for Live {
    fn drop(&mut self) {
        let wire = self.wire.take();
        if let Ok(runtime) = Handle::try_current() {
            let connection = Arc::clone(&self.connection);
            runtime.spawn(async move {
                farewell(&connection).await;
                drop(wire);
            });
        }
    }
}

/// The use of a channel.
pub(super) struct Slot<'l> {
    live: &'l Live,
    channel: Channel,
    _permit: SemaphorePermit<'l>,
}

impl Slot<'_> {
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Leaves the channel, which has nothing in flight, to the next. Without this it is closed.
    pub(super) fn keep(self) {
        self.live.idle().push(self.channel);
    }
}

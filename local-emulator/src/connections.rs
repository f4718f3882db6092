//! Who may hold a connection, and for how long: an upper bound for all and for each address, and an end for peers that do not
//! read.
//!
//! When there is no room, the connection that has been idle for longest makes it: a crowd that only connects keeps nobody out.
//! A connection with a request or an answer in progress is never closed for another, but for one whose client has not sent the
//! whole request yet: a head without its body keeps nobody out either.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use flashsale::{
    config::{Config, Network},
    logging::OncePerSecond,
    metrics::{
        CONNECTIONS_DISPLACED, CONNECTIONS_MAX, CONNECTIONS_OPEN, CONNECTIONS_REFUSED, number,
    },
};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use metrics::{Counter, Gauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, timeout},
};

/// Descriptors that are not for connections: stores, their servers, listeners, logs, pipes.
const DESCRIPTORS_RESERVED: u64 = 64 + 2 * ASIDE_MAX as u64;
/// Connections of each listener beside the public one. They have places of their own: whoever fills the public port up must
/// not close health checks and metrics.
const ASIDE_MAX: usize = 32;
/// And those of one function process beside the connections it makes: its listener, its pipes.
const DESCRIPTORS_OF_AN_INSTANCE: u64 = 8;
/// Fewer connections than these are no service.
const CONNECTIONS_MIN: u64 = 16;
/// How long a newcomer waits before it is looked again whether a connection has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What the kernel holds of an answer that is not read. The kernel reports progress when about a third of it has gone, so a
/// peer that reads drop by drop makes none.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
static REFUSED: OncePerSecond = OncePerSecond::new();

/// Raises the soft limit of open descriptors to the hard one, and returns what it is then.
pub fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays at {}", current.unwrap_or(u64::MAX));
            current.unwrap_or(u64::MAX)
        }
    }
}

/// How many connections the configuration and the descriptors allow.
pub fn connections_max(config: &Config, descriptors: u64) -> usize {
    let instances = |name: &str| {
        let settings = config.function(name);
        u64::from(settings.instances_max + 1)
            * (u64::from(settings.concurrency) + DESCRIPTORS_OF_AN_INSTANCE)
    };
    let functions: u64 = match config.host {
        flashsale::config::HostMode::InProcess => 0,
        flashsale::config::HostMode::Processes => config.function_names().map(instances).sum(),
    };
    let left = descriptors.saturating_sub(DESCRIPTORS_RESERVED + functions).max(CONNECTIONS_MIN);
    let wanted = config.gateway.connections_max;
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
    if most < wanted {
        tracing::warn!(
            "at most {most} connections, not {wanted}: this process may open {descriptors} files (ulimit -n)"
        );
    }
    most
}

/// All connections of the process.
pub struct Connections {
    room: Arc<Semaphore>,
    per_address_max: usize,
    /// Their connections are those of many clients.
    proxies: Vec<Network>,
    write_timeout: Duration,
    began: Instant,
    held: Mutex<Held>,
    measures: Measures,
}

/// The metrics of the public port; those of the other listeners go nowhere.
struct Measures {
    open: Gauge,
    refused: Counter,
    displaced: Counter,
}

impl Measures {
    fn public(most: usize) -> Self {
        CONNECTIONS_MAX.gauge(&[]).set(number(most as u64));
        Self {
            open: CONNECTIONS_OPEN.gauge(&[]),
            refused: CONNECTIONS_REFUSED.counter(&[]),
            displaced: CONNECTIONS_DISPLACED.counter(&[]),
        }
    }

    fn none() -> Self {
        Self { open: Gauge::noop(), refused: Counter::noop(), displaced: Counter::noop() }
    }
}

#[derive(Default)]
struct Held {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
    by_address: HashMap<IpAddr, usize>,
}

/// What is known of one connection.
struct Seat {
    /// Requests whose answers are not finished.
    busy: AtomicUsize,
    /// Whether a request waits for the rest of its body.
    arriving: AtomicBool,
    /// Whether the peer is being waited for to read.
    writing: AtomicBool,
    /// When something last happened, in milliseconds since the beginning.
    used_ms: AtomicU64,
    leave: Notify,
}

impl Seat {
    fn is_idle(&self) -> bool {
        (self.busy.load(Ordering::Acquire) == 0 || self.arriving.load(Ordering::Acquire))
            && !self.writing.load(Ordering::Acquire)
    }
}

impl Connections {
    /// For this configuration, with so many descriptors.
    pub fn new(config: &Config, descriptors: u64) -> Arc<Self> {
        let (gateway, most) = (&config.gateway, connections_max(config, descriptors));
        let proxies = config.trusted_proxies.clone();
        Self::with(
            most,
            gateway.connections_per_address_max,
            proxies,
            gateway.write_timeout_ms,
            Measures::public(most),
        )
    }

    /// For a listener beside the public one.
    pub fn aside(config: &Config) -> Arc<Self> {
        Self::with(
            ASIDE_MAX,
            ASIDE_MAX,
            Vec::new(),
            config.gateway.write_timeout_ms,
            Measures::none(),
        )
    }

    fn with(
        most: usize,
        per_address_max: usize,
        proxies: Vec<Network>,
        write_timeout_ms: u64,
        measures: Measures,
    ) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(most)),
            per_address_max,
            proxies,
            write_timeout: Duration::from_millis(write_timeout_ms),
            began: Instant::now(),
            held: Mutex::default(),
            measures,
        })
    }

    /// Gives a connection its place, closing an idle one where there is no room. `None`: the address holds as many as it may.
    pub async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Guest> {
        let address = counted(peer);
        // Counted from here on, so that those who wait for room count too.
        let counted = self.count(address, peer)?;
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                break permit;
            }
            self.close_idlest();
            if let Ok(permit) = timeout(LOOK_AGAIN, Arc::clone(&self.room).acquire_owned()).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let seat = Arc::new(Seat {
            busy: AtomicUsize::new(0),
            arriving: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            used_ms: AtomicU64::new(self.now_ms()),
            leave: Notify::new(),
        });
        let mut held = self.held();
        held.next += 1;
        let id = held.next;
        held.seats.insert(id, Arc::clone(&seat));
        drop(held);
        self.measures.open.increment(1.0);
        Some(Guest { connections: Arc::clone(self), seat, id, _counted: counted, _permit: permit })
    }

    fn count(self: &Arc<Self>, address: IpAddr, peer: IpAddr) -> Option<Counted> {
        let exempt = self.proxies.iter().any(|proxy| proxy.contains(peer));
        let mut held = self.held();
        let count = held.by_address.entry(address).or_default();
        if *count >= self.per_address_max && !exempt {
            drop(held);
            self.measures.refused.increment(1);
            if let Some(left_out) = REFUSED.pass() {
                tracing::warn!(%peer, left_out, "refused: the address holds {} connections already", self.per_address_max);
            }
            return None;
        }
        *count += 1;
        drop(held);
        Some(Counted { connections: Arc::clone(self), address })
    }

    /// Asks the connection that has been idle for longest to end.
    pub fn close_idlest(&self) {
        let held = self.held();
        let idle = held.seats.values().filter(|seat| seat.is_idle());
        if let Some(seat) = idle.min_by_key(|seat| seat.used_ms.load(Ordering::Relaxed)) {
            seat.leave.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// An IPv6 client has a whole /64.
fn counted(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 => v4,
    }
}

/// Counts one connection of an address.
struct Counted {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut held = self.connections.held();
        if let Some(count) = held.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

/// A connection's place, given back when dropped.
pub struct Guest {
    connections: Arc<Connections>,
    seat: Arc<Seat>,
    id: u64,
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

impl Guest {
    /// The stream, with an end for a peer that does not read.
    pub fn guard(&self, stream: TcpStream) -> Guarded {
        // Without either, answers are slower, or unread ones cost more.
        if let Err(error) = stream.set_nodelay(true).and_then(|()| {
            Ok(rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?)
        }) {
            tracing::debug!(%error, "socket options");
        }
        Guarded {
            stream,
            connections: Arc::clone(&self.connections),
            seat: Arc::clone(&self.seat),
            waiting: None,
        }
    }

    /// Makes what is to be held while a request is answered, for the connection's own service.
    pub fn requests(&self) -> impl Fn() -> Busy + Send + Sync + 'static {
        let (connections, seat) = (Arc::clone(&self.connections), Arc::clone(&self.seat));
        move || Busy::new(&connections, &seat)
    }

    /// Returns when the connection is to end for another one. Asked of by the connection's own task, so no request can begin
    /// between this and the end.
    pub async fn asked_to_leave(&self) {
        loop {
            self.seat.leave.notified().await;
            if self.seat.is_idle() {
                self.connections.measures.displaced.increment(1);
                return;
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections.measures.open.decrement(1.0);
        self.connections.held().seats.remove(&self.id);
    }
}

/// A request is under way.
pub struct Busy {
    connections: Arc<Connections>,
    seat: Arc<Seat>,
}

impl Busy {
    fn new(connections: &Arc<Connections>, seat: &Arc<Seat>) -> Self {
        seat.busy.fetch_add(1, Ordering::AcqRel);
        Self { connections: Arc::clone(connections), seat: Arc::clone(seat) }
    }

    /// The body of the request.
    pub fn receiving(&self, body: Incoming) -> Body {
        Body::new(Receiving { body, seat: Arc::clone(&self.seat) })
    }

    /// Until the body has been sent, or given up.
    pub fn until_sent(self, body: Body) -> Answering {
        Answering { body, _busy: self }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seat.used_ms.store(self.connections.now_ms(), Ordering::Relaxed);
        self.seat.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of a request. While it is waited for, its connection may be closed for another.
struct Receiving {
    body: Incoming,
    seat: Arc<Seat>,
}

impl HttpBody for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(cx);
        self.seat.arriving.store(outcome.is_pending(), Ordering::Release);
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.seat.arriving.store(false, Ordering::Release);
    }
}

/// The body of an answer, which keeps its connection busy.
pub struct Answering {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
pub struct Guarded {
    stream: TcpStream,
    connections: Arc<Connections>,
    seat: Arc<Seat>,
    /// Runs while there is something to write and the socket takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn written(
        &mut self,
        outcome: Poll<std::io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        if outcome.is_ready() {
            if self.waiting.take().is_some() {
                self.seat.writing.store(false, Ordering::Release);
            }
            self.seat.used_ms.store(self.connections.now_ms(), Ordering::Relaxed);
            return outcome;
        }
        let patience = self.connections.write_timeout;
        if self.waiting.is_none() {
            self.seat.writing.store(true, Ordering::Release);
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        // What the kernel still holds would stay until the peer's end: it goes with the connection.
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "linger");
        }
        Poll::Ready(Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the peer does not read",
        )))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_holds_only_so_many_connections() {
        let proxies = vec![Network::try_from("10.0.0.0/8".to_owned()).unwrap()];
        let connections = Connections::with(100, 2, proxies, 1_000, Measures::none());
        let first = connections.admit(address("192.0.2.1")).await.unwrap();
        let _second = connections.admit(address("::ffff:192.0.2.1")).await.unwrap();
        assert!(connections.admit(address("192.0.2.1")).await.is_none());
        let _other = connections.admit(address("192.0.2.2")).await.unwrap();
        drop(first);
        let _again = connections.admit(address("192.0.2.1")).await.unwrap();
        // An IPv6 client has as many addresses as it likes.
        let _v6 = [
            connections.admit(address("2001:db8::1")).await.unwrap(),
            connections.admit(address("2001:db8::2")).await.unwrap(),
        ];
        assert!(connections.admit(address("2001:db8::3")).await.is_none());
        let proxied =
            futures_util::future::join_all((0..5).map(|_| connections.admit(address("10.0.0.1"))))
                .await;
        assert!(proxied.iter().all(Option::is_some), "a proxy speaks for many");
        drop((_second, _other, _again, _v6, proxied));
        let held = connections.held();
        assert!(
            held.by_address.is_empty() && held.seats.is_empty(),
            "nothing is remembered of those who left"
        );
    }

    #[tokio::test]
    async fn the_idlest_connection_makes_room_and_a_busy_one_never() {
        let connections = Connections::with(2, 100, Vec::new(), 1_000, Measures::none());
        let one = connections.admit(address("192.0.2.1")).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        let other = connections.admit(address("192.0.2.2")).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        // The older one answers a request: the younger one is idlest.
        let busy = one.requests()();
        let leaving = tokio::spawn(async move {
            other.asked_to_leave().await;
        });
        let third = connections.admit(address("192.0.2.3")).await.unwrap();
        leaving.await.unwrap();
        let answering = third.requests()();
        assert!(
            timeout(Duration::from_millis(300), connections.admit(address("192.0.2.4")))
                .await
                .is_err(),
            "all are at work"
        );
        drop(busy);
        let leaving = tokio::spawn(async move { one.asked_to_leave().await });
        let fourth = connections.admit(address("192.0.2.4")).await;
        assert!(fourth.is_some());
        leaving.await.unwrap();
        drop(answering);
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        let config = Config::defaults();
        assert_eq!(connections_max(&config, 1_024), 896);
        assert_eq!(connections_max(&config, u64::MAX), config.gateway.connections_max);
        assert_eq!(connections_max(&config, 10), 16);
    }
}

//! Limits on connections: an upper bound for all and for each address, and a timeout for peers that
//! do not read.
//!
//! When the limit is reached, the connection that has been idle for longest is closed, so clients
//! that only connect can't lock others out. A connection with a request or an answer in progress is
//! not closed for another. The exception is a connection whose client has not sent the whole
//! request yet, so clients that send a head without its body can't lock others out either.

mod activity;
mod body;
mod descriptors;
mod stream;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flashsale::{
    config::{Config, Network},
    logging::OncePerSecond,
    metrics::{
        CONNECTIONS_DISPLACED, CONNECTIONS_MAX, CONNECTIONS_OPEN, CONNECTIONS_REFUSED, number,
    },
};
use metrics::{Counter, Gauge};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use activity::Activity;
use body::ActiveRequest;
pub use descriptors::raise_descriptors;
use descriptors::{ASIDE_MAX, connections_max};
use stream::TimedStream;

/// How long a new connection waits before it is checked again whether another has become idle.
const RECHECK_PERIOD: Duration = Duration::from_millis(20);
static REFUSED: OncePerSecond = OncePerSecond::new();

/// All connections of the process.
pub struct Connections {
    room: Arc<Semaphore>,
    per_address_max: usize,
    /// Addresses of proxies, which are exempt from the limit per address: each has many clients.
    proxies: Vec<Network>,
    write_timeout: Duration,
    began: Instant,
    open: Mutex<Open>,
    measures: Measures,
}

/// The metrics of the public port; other listeners have none.
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
struct Open {
    next_id: u64,
    activities: HashMap<u64, Arc<Activity>>,
    by_address: HashMap<IpAddr, usize>,
}

impl Connections {
    /// The limits of this configuration for a process that may open this number of descriptors.
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

    /// The limits of a listener other than the public one.
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
            open: Mutex::default(),
            measures,
        })
    }

    /// Admits a connection, closing an idle one when the limit is reached. `None`: the address has
    /// reached its own limit.
    pub async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPermit> {
        // Counted first, so that connections that wait for room count too.
        let address = self.count(peer)?;
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                break permit;
            }
            self.close_idlest();
            if let Ok(permit) =
                timeout(RECHECK_PERIOD, Arc::clone(&self.room).acquire_owned()).await
            {
                break permit.expect("the semaphore is never closed");
            }
        };
        let activity = Arc::new(Activity::new(self.began));
        let mut open = self.open();
        open.next_id += 1;
        let id = open.next_id;
        open.activities.insert(id, Arc::clone(&activity));
        drop(open);
        self.measures.open.increment(1.0);
        Some(ConnectionPermit {
            connections: Arc::clone(self),
            activity,
            id,
            _address: address,
            _permit: permit,
        })
    }

    fn count(self: &Arc<Self>, peer: IpAddr) -> Option<AddressPermit> {
        let address = counted_address(peer);
        let exempt = self.proxies.iter().any(|proxy| proxy.contains(peer));
        let mut open = self.open();
        let count = open.by_address.entry(address).or_default();
        if *count >= self.per_address_max && !exempt {
            drop(open);
            self.measures.refused.increment(1);
            if let Some(left_out) = REFUSED.pass() {
                tracing::warn!(%peer, left_out, "refused: the address holds {} connections already", self.per_address_max);
            }
            return None;
        }
        *count += 1;
        drop(open);
        Some(AddressPermit { connections: Arc::clone(self), address })
    }

    /// Closes the connection that has been idle for longest.
    pub fn close_idlest(&self) {
        let open = self.open();
        let idle = open.activities.values().filter(|activity| activity.is_idle());
        if let Some(activity) = idle.min_by_key(|activity| activity.used_ms()) {
            activity.close();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An IPv6 client usually has a whole /64: it counts as one address.
fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 => v4,
    }
}

/// Counts one connection of an address.
struct AddressPermit {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// An admitted connection; it counts until this permit is dropped.
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    activity: Arc<Activity>,
    id: u64,
    _address: AddressPermit,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermit {
    /// The stream, with a write timeout.
    pub fn with_timeout(&self, stream: TcpStream) -> TimedStream {
        TimedStream::new(stream, Arc::clone(&self.activity), self.connections.write_timeout)
    }

    /// Returns a function for the connection's service: it makes the guard that is held while a
    /// request is answered.
    pub fn requests(&self) -> impl Fn() -> ActiveRequest + Send + Sync + 'static {
        let activity = Arc::clone(&self.activity);
        move || ActiveRequest::new(Arc::clone(&activity))
    }

    /// Completes when the connection is to be closed for another one.
    pub async fn displaced(&self) {
        self.activity.closed().await;
        self.connections.measures.displaced.increment(1);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.measures.open.decrement(1.0);
        self.connections.open().activities.remove(&self.id);
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
        // An IPv6 client can use any address of its /64.
        let _v6 = [
            connections.admit(address("2001:db8::1")).await.unwrap(),
            connections.admit(address("2001:db8::2")).await.unwrap(),
        ];
        assert!(connections.admit(address("2001:db8::3")).await.is_none());
        let proxied =
            futures_util::future::join_all((0..5).map(|_| connections.admit(address("10.0.0.1"))))
                .await;
        assert!(proxied.iter().all(Option::is_some), "a proxy has many clients");
        drop((_second, _other, _again, _v6, proxied));
        let open = connections.open();
        assert!(
            open.by_address.is_empty() && open.activities.is_empty(),
            "addresses without connections are forgotten"
        );
    }

    #[tokio::test]
    async fn the_idlest_connection_makes_room_and_a_busy_one_never() {
        let connections = Connections::with(2, 100, Vec::new(), 1_000, Measures::none());
        let one = connections.admit(address("192.0.2.1")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let other = connections.admit(address("192.0.2.2")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        // The older one answers a request, so the younger one has been idle for longest.
        let busy = one.requests()();
        let leaving = tokio::spawn(async move {
            other.displaced().await;
        });
        let third = connections.admit(address("192.0.2.3")).await.unwrap();
        leaving.await.unwrap();
        let answering = third.requests()();
        assert!(
            timeout(Duration::from_millis(300), connections.admit(address("192.0.2.4")))
                .await
                .is_err(),
            "no connection is idle"
        );
        drop(busy);
        let leaving = tokio::spawn(async move { one.displaced().await });
        let fourth = connections.admit(address("192.0.2.4")).await;
        assert!(fourth.is_some());
        leaving.await.unwrap();
        drop(answering);
    }
}

//! Chooses free loopback ports.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};

/// The bus of a Redis Cluster node listens this much above its client port.
pub(crate) const CLUSTER_BUS_OFFSET: u16 = 10_000;

const LOWEST: u16 = 10_240;
const HIGHEST: u16 = 20_000;

/// Whether a server could listen on this port now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Finds a port for which `fits` holds and that is free.
///
/// The port is below the kernel's range of ephemeral ports: otherwise, while a server is down (a
/// fault test, or RabbitMQ's slow start), an outgoing connection of a load test would sooner or
/// later take its port. If none is free there, the kernel picks any free port.
pub(crate) fn find(fits: impl Fn(u16) -> bool) -> io::Result<u16> {
    let highest = HIGHEST.min(lowest_outgoing().saturating_sub(1));
    let span = u32::from(highest.saturating_sub(LOWEST)).max(1);
    let mut noise = [0; 4 * 200];
    File::open("/dev/urandom")?.read_exact(&mut noise)?;
    for bytes in noise.as_chunks::<4>().0 {
        let offset = u32::from_ne_bytes(*bytes) % span;
        let port = LOWEST + u16::try_from(offset).expect("span fits u16");
        if fits(port) && is_free(port) {
            return Ok(port);
        }
    }
    for _ in 0..50 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if fits(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port was found"))
}

/// Whether the bus port of a cluster node with this port exists and is free.
pub(crate) fn has_free_cluster_bus(port: u16) -> bool {
    port.checked_add(CLUSTER_BUS_OFFSET).is_some_and(is_free)
}

fn lowest_outgoing() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

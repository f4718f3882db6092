//! Private Redis, MySQL and RabbitMQ servers for tests and for `local-emulator --servers local`.
//!
//! [`Servers`] starts the programs that are installed on this machine on free loopback ports, with
//! all their state in one directory. They end with the [`Servers`] value, and also when the process
//! that owns it is killed. Starting again on the same directory finds the same data, passwords and,
//! where they are still free, ports.
//!
//! ```no_run
//! # fn main() -> Result<(), flashsale_servers::StartError> {
//! let servers = flashsale_servers::Servers::builder("/tmp/flashsale").all().start()?;
//! println!("{}", servers.redis_url().expect("redis was chosen"));
//! # Ok(())
//! # }
//! ```
//!
//! Everything blocks: from async code call it inside `spawn_blocking`, dropping included.
//!
//! How no process is left behind, whichever ends first:
//!
//! * Each server leads its own process group, and its program starts only when the watchdog (a
//!   small `/bin/sh`, see `watchdog.rs`) knows that group. The watchdog reads from a pipe whose
//!   other end only the owner has, so it sees end of file when the owner dies.
//! * Two locks guard the directory. Only the owner holds `owner.lock`: while it is locked, other
//!   processes can use the servers. The owner, the watchdog and every server share `servers.lock`:
//!   while it is locked, a server may still write its data, so a new start waits for it.
//!
//! Deliberately absent: downloads, containers, TLS, and Windows.

mod dir;
mod error;
mod kind;
mod mysql;
mod ports;
mod process;
mod programs;
mod rabbitmq;
mod redis;
mod server;
mod servers;
mod urls;
mod watchdog;

pub use error::StartError;
pub use kind::ServerKind;
pub use programs::{Missing, missing};
pub use servers::{Builder, Servers};
pub use urls::Urls;
pub use watchdog::{EndOrder, Watchdog};

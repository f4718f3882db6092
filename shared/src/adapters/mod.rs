//! The stores behind the ports. An adapter knows the domain, the ports and its own library, never
//! another adapter. `sql` is not an adapter: it is the ledger's SQL, shared by both databases.

pub mod absent;
mod http_client;
pub mod memory;
pub mod mysql;
pub mod rabbitmq;
pub mod redis;
pub mod siteverify;
pub mod sms;
mod sql;
pub mod sqlite;
pub mod system;

pub use http_client::AddressError;

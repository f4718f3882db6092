//! One set of private servers for the whole binary; they end with the process.

use std::sync::OnceLock;

use flashsale::contract;
use flashsale_servers::Servers;

/// The servers, started at first use. Tests keep apart by using names of their own ([`unique`]).
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("fs-{}", std::process::id()));
        Servers::builder(dir).redis().redis_cluster().mysql().rabbitmq().start().unwrap_or_else(|error| panic!("{error}"))
    })
}

/// A name that no other test uses: a key prefix, a database, a queue.
pub fn unique(what: &str) -> String {
    format!("{what}_{}", contract::order_id().to_string().replace('-', ""))
}

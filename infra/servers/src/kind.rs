//! The kinds of servers.

use std::fmt;

/// One of the servers that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerKind {
    /// A single Redis.
    Redis,
    /// A Redis Cluster of one node that has all the slots.
    RedisCluster,
    /// MariaDB or MySQL.
    MySql,
    /// RabbitMQ.
    RabbitMq,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::RedisCluster => "Redis Cluster",
            Self::MySql => "MySQL",
            Self::RabbitMq => "RabbitMQ",
        })
    }
}

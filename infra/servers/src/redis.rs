//! Redis, alone or as a cluster of one node.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use crate::dir::write_private;
use crate::kind::ServerKind;
use crate::ports;
use crate::process::Launch;
use crate::server::{Host, Recipe, probe};
use crate::watchdog::EndOrder;

const SLOTS: u32 = 16_384;

#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) program: PathBuf,
    pub(crate) cluster: bool,
}

impl Redis {
    fn name(&self) -> &'static str {
        if self.cluster { "redis-cluster" } else { "redis" }
    }
}

impl Recipe for Redis {
    fn kind(&self) -> ServerKind {
        if self.cluster { ServerKind::RedisCluster } else { ServerKind::Redis }
    }

    fn ports(&self, host: &Host, refused: bool) -> io::Result<Vec<u16>> {
        let fits = |port| !self.cluster || ports::has_free_cluster_bus(port);
        Ok(vec![host.dir.port(self.name(), refused, fits)?])
    }

    fn launch(&self, host: &Host, ports: &[u16]) -> io::Result<Launch> {
        let dir = host.dir.subdir(self.name())?;
        // Only settings that Redis 6.0 knows.
        let mut config = format!(
            "bind 127.0.0.1\n\
             port {}\n\
             daemonize no\n\
             appendonly yes\n\
             appendfsync everysec\n\
             save \"\"\n\
             maxmemory-policy noeviction\n",
            ports[0]
        );
        if self.cluster {
            config.push_str(
                "cluster-enabled yes\n\
                 cluster-config-file nodes.conf\n\
                 cluster-announce-ip 127.0.0.1\n",
            );
        }
        // The working directory is the data directory, so the configuration needs no path and no
        // quoting.
        let file = dir.join("redis.conf");
        write_private(&file, &config)?;
        Ok(Launch {
            program: self.program.clone(),
            args: vec!["redis.conf".into()],
            env: Vec::new(),
            cwd: dir,
            log: host.dir.log(self.name())?,
            order: EndOrder::First,
        })
    }

    fn is_ready(&self, port: u16) -> io::Result<bool> {
        let mut redis = BufReader::new(probe(port)?);
        if command(&mut redis, "PING")? != "PONG" {
            return Ok(false);
        }
        if !self.cluster {
            return Ok(true);
        }
        let info = command(&mut redis, "CLUSTER INFO")?;
        if info.contains("cluster_slots_assigned:0\r") {
            // ADDSLOTSRANGE is shorter, but Redis 6 does not know it.
            let slots = (0..SLOTS).fold(String::from("CLUSTER ADDSLOTS"), |mut all, slot| {
                let _ = write!(all, " {slot}");
                all
            });
            command(&mut redis, &slots)?;
        }
        // A restarted node accepts commands only after 2 s, in which it learns whether it was
        // replaced.
        Ok(info.contains("cluster_state:ok\r")
            && info.contains(&format!("cluster_slots_assigned:{SLOTS}\r")))
    }
}

/// Sends a command of words without spaces; returns a simple or bulk string, or the error reply as
/// an error.
fn command(redis: &mut BufReader<std::net::TcpStream>, words: &str) -> io::Result<String> {
    const LONGEST_REPLY: u64 = 1 << 20;
    let words: Vec<&str> = words.split(' ').collect();
    let request = words.iter().fold(format!("*{}\r\n", words.len()), |mut all, word| {
        let _ = write!(all, "${}\r\n{word}\r\n", word.len());
        all
    });
    redis.get_mut().write_all(request.as_bytes())?;

    let mut line = String::new();
    redis.take(LONGEST_REPLY).read_line(&mut line)?;
    let line = line.trim_end();
    match (line.get(..1), line.get(1..)) {
        (Some("+"), Some(reply)) => Ok(reply.to_owned()),
        (Some("$"), Some(length)) => {
            let length: u64 = length.parse().map_err(io::Error::other)?;
            let mut reply = String::new();
            redis.take(length.min(LONGEST_REPLY)).read_to_string(&mut reply)?;
            redis.read_exact(&mut [0; 2])?;
            Ok(reply)
        }
        _ => Err(io::Error::other(line.to_owned())),
    }
}

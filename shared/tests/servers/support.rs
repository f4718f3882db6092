//! One set of private servers for the whole binary. They end with the process.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::{path::PathBuf, process::Command, sync::OnceLock};

use flashsale::testing;
use flashsale_servers::Servers;

/// The servers, started at first use. Tests stay independent by using unique names ([`unique`]).
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        Servers::builder(dir())
            .redis()
            .redis_cluster()
            .mysql()
            .rabbitmq()
            .start()
            .unwrap_or_else(|error| panic!("{error}"))
    })
}

fn dir() -> PathBuf {
    std::env::temp_dir().join(format!("fs-{}", std::process::id()))
}

/// Runs RabbitMQ's own tool on the shared server, as an operator would. Returns its output.
pub fn rabbitmqctl(arguments: &[&str]) -> String {
    servers();
    let read = |name: &str| std::fs::read_to_string(dir().join(name)).unwrap();
    let ports = read("ports");
    let epmd = ports.lines().find_map(|line| line.strip_prefix("rabbitmq-epmd=")).unwrap();
    let node = format!("flashsale-{}@localhost", &read("secrets/rabbitmq-node")[..12]);
    // The wrapper in /usr/sbin switches to its own user, which can't reach our server, so it comes
    // last.
    let own = std::env::var("PATH").unwrap();
    let others: Vec<&str> =
        own.split(':').filter(|dir| !["/usr/sbin", "/sbin"].contains(dir)).collect();
    let path = format!("{}:/usr/lib/rabbitmq/bin:/usr/sbin", others.join(":"));
    let output = Command::new("rabbitmqctl")
        .args(["--node", &node])
        .args(arguments)
        .env("PATH", path)
        .env("HOME", dir().join("rabbitmq/home"))
        .env("ERL_EPMD_PORT", epmd)
        .env("ERL_AFLAGS", "-start_epmd false")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// A name that no other test uses: a key prefix, a database, a queue.
pub fn unique(what: &str) -> String {
    format!("{what}_{}", testing::order_id().to_string().replace('-', ""))
}

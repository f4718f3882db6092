//! Injected faults: crash, restart, pause.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use flashsale_servers::{ServerKind, StartError};

use crate::TestDir;
use crate::clients::{Amqp, connect, mysql, redis};

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn restart_and_crash_keep_url_and_data() {
    let dir = TestDir::new();
    let servers = dir.builder().all().start().unwrap();
    let urls = servers.urls().clone();
    let (redis_url, mysql_url) = (urls.redis.clone().unwrap(), urls.mysql.clone().unwrap());
    let amqp_url = urls.amqp.clone().unwrap();
    redis(&redis_url, "SET a 1").unwrap();
    mysql(&mysql_url, &["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (7)"]).unwrap();
    Amqp::open(&amqp_url).unwrap().declare("q", false).unwrap();

    for crash in [false, true] {
        for kind in [ServerKind::Redis, ServerKind::MySql, ServerKind::RabbitMq] {
            if crash {
                servers.stop_hard(kind).unwrap();
                let again = servers.stop_hard(kind).unwrap_err();
                assert!(matches!(again, StartError::NotRunning { .. }));
            }
            let begin = Instant::now();
            servers.restart(kind).unwrap();
            println!("restart of {kind}, crashed: {crash}: {:.2?}", begin.elapsed());
        }
        assert_eq!(servers.urls(), &urls);
        assert_eq!(redis(&redis_url, "GET a").unwrap(), "1");
        assert_eq!(mysql(&mysql_url, &["SELECT a FROM t"]).unwrap(), [b"7"]);
        Amqp::open(&amqp_url).unwrap().declare("q", true).unwrap();
    }
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_paused_server_answers_only_after_it_was_resumed() {
    let dir = TestDir::new();
    let servers = dir.builder().redis().start().unwrap();
    let mut stream = connect(&servers.redis_url().unwrap());
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    servers.pause(ServerKind::Redis).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap_err();
    servers.resume(ServerKind::Redis).unwrap();
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");

    // A restart and a stop do not wait for a paused server to continue.
    servers.pause(ServerKind::Redis).unwrap();
    let begin = Instant::now();
    servers.restart(ServerKind::Redis).unwrap();
    servers.pause(ServerKind::Redis).unwrap();
    drop(servers);
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_server_that_was_not_chosen_is_refused() {
    let dir = TestDir::new();
    let servers = dir.builder().redis().start().unwrap();
    let error = servers.pause(ServerKind::MySql).unwrap_err();
    assert_eq!(error.to_string(), "MySQL is not one of these servers");
}

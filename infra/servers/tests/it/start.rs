//! Each server starts and serves its clients.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use flashsale_servers::{ServerKind, Servers, StartError, Urls, missing};

use crate::TestDir;
use crate::clients::{Amqp, mysql, parse, redis};

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn all_the_servers_start_and_keep_their_data_ports_and_passwords() {
    assert_eq!(missing(), Vec::new());
    let dir = TestDir::new();
    let begin = Instant::now();
    let servers = dir.builder().all().start().unwrap();
    println!("all, first start: {:.2?}", begin.elapsed());
    let urls = servers.urls().clone();
    let mysql_url = servers.mysql_url().unwrap();
    let admin_url = servers.mysql_admin_url().unwrap();

    assert_eq!(redis(&servers.redis_url().unwrap(), "SET a 1").unwrap(), "+OK");
    let statements = ["CREATE TABLE t (a INT CHECK (a < 9))", "INSERT INTO t VALUES (7)"];
    mysql(&mysql_url, &statements).unwrap();
    let mut amqp = Amqp::open(&servers.amqp_url().unwrap()).unwrap();
    amqp.declare("q", false).unwrap();
    drop(amqp);

    // The normal user stays in its database, the admin makes databases for tests.
    mysql(&mysql_url, &["CREATE DATABASE d1"]).unwrap_err();
    mysql(&format!("{admin_url}/mysql"), &["CREATE DATABASE d1"]).unwrap();
    mysql(&format!("{admin_url}/d1"), &["CREATE TABLE t (a INT)"]).unwrap();
    // Wrong passwords are refused.
    mysql(&mysql_url.replace("Aa1-", "Aa2-"), &[]).unwrap_err();
    let wrong = servers.amqp_url().unwrap().replacen("@", "x@", 1);
    assert!(Amqp::open(&wrong).is_err());
    // A statement that MySQL refuses does not break the server.
    mysql(&mysql_url, &["INSERT INTO t VALUES (9)"]).unwrap_err();

    for secret in std::fs::read_dir(dir.path().join("secrets")).unwrap() {
        assert_eq!(secret.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }

    let begin = Instant::now();
    drop(servers);
    println!("all, stop: {:.2?}", begin.elapsed());
    let begin = Instant::now();
    let servers = dir.builder().all().start().unwrap();
    println!("all, second start: {:.2?}", begin.elapsed());
    assert_eq!(servers.urls(), &urls);
    assert_eq!(redis(&servers.redis_url().unwrap(), "GET a").unwrap(), "1");
    assert_eq!(mysql(&mysql_url, &["SELECT a FROM t"]).unwrap(), [b"7"]);
    let mut amqp = Amqp::open(&servers.amqp_url().unwrap()).unwrap();
    amqp.declare("q", true).unwrap();
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn the_cluster_has_all_slots_and_announces_its_loopback_address() {
    let dir = TestDir::new();
    for _ in 0..2 {
        let begin = Instant::now();
        let servers = dir.builder().redis_cluster().start().unwrap();
        println!("redis cluster: {:.2?}", begin.elapsed());
        let url = servers.redis_cluster_url().unwrap();
        assert!(url.starts_with("redis+cluster://127.0.0.1:"));
        assert_eq!(servers.redis_url(), None);
        assert_eq!(redis(&url, "CLUSTER INFO").unwrap(), "cluster_state:ok");
        assert_eq!(redis(&url, "SET {sale}:a 1").unwrap(), "+OK");
        let nodes = redis(&url, "CLUSTER NODES").unwrap();
        assert!(nodes.contains(&format!(" {}@", parse(&url).address)), "{nodes}");
        assert!(nodes.ends_with(" 0-16383"), "{nodes}");
    }
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_port_that_was_taken_meanwhile_is_replaced() {
    let dir = TestDir::new();
    let old = dir.builder().redis().start().unwrap().redis_url().unwrap();
    let _thief = TcpListener::bind(parse(&old).address).unwrap();
    let servers = dir.builder().redis().start().unwrap();
    let new = servers.redis_url().unwrap();
    assert_ne!(old, new);
    assert_eq!(redis(&new, "PING").unwrap(), "+PONG");
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn the_answer_of_a_thief_is_not_taken_for_that_of_our_server() {
    // Another Redis has the port and answers on it while ours is still failing to listen there.
    let (ours, theirs) = (TestDir::new(), TestDir::new());
    let servers = ours.builder().redis().start().unwrap();
    let url = servers.redis_url().unwrap();
    servers.stop_hard(ServerKind::Redis).unwrap();
    let port = parse(&url).address.rsplit_once(':').unwrap().1;
    std::fs::create_dir_all(theirs.path()).unwrap();
    std::fs::write(theirs.path().join("ports"), format!("redis={port}\n")).unwrap();
    let thief = theirs.builder().redis().start().unwrap();
    assert_eq!(thief.redis_url().unwrap(), url);

    let error = servers.restart(ServerKind::Redis).unwrap_err();
    assert!(matches!(error, StartError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(thief);
    servers.restart(ServerKind::Redis).unwrap();
    assert_eq!(redis(&url, "PING").unwrap(), "+PONG");
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_server_that_fails_shows_the_end_of_its_log_and_stops_the_others() {
    let dir = TestDir::new();
    let data = dir.path().join("mysql/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("ibdata1"), "not a tablespace").unwrap();
    let begin = Instant::now();
    let error = dir.builder().all().start().unwrap_err();
    println!("{error}");
    assert!(begin.elapsed().as_secs() < 20);
    let StartError::Exited { kind, tail, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(kind, ServerKind::MySql);
    assert!((1..=30).contains(&tail.len()));
    crate::owner::assert_nobody_holds(dir.path());
    assert_eq!(Servers::attach(dir.path()), None::<Urls>);
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_server_that_is_too_slow_is_named_with_its_log() {
    let dir = TestDir::new();
    let limit = std::time::Duration::from_millis(600);
    let error = dir.builder().rabbitmq().time_limit(limit).start().unwrap_err();
    assert!(matches!(error, StartError::Timeout { kind: ServerKind::RabbitMq, .. }), "{error}");
    crate::owner::assert_nobody_holds(dir.path());
}

//! Ownership of a directory, attaching to it, and the cleanup after the owner's death.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flashsale_servers::{ServerKind, Servers, StartError};

use crate::TestDir;
use crate::clients::{Amqp, mysql, parse, redis};

const OWNED_DIR: &str = "FLASHSALE_SERVERS_TEST_OWNED_DIR";

/// Not a test: the owner process that `start_owner` runs and the tests kill.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn owner_process() {
    let Some(dir) = std::env::var_os(OWNED_DIR) else {
        return;
    };
    let servers = Servers::builder(dir).all().redis_cluster().start().unwrap();
    servers.pause(ServerKind::RedisCluster).unwrap();
    println!("\nready");
    thread::sleep(Duration::from_secs(600));
}

fn start_owner(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner::owner_process", "--ignored", "--nocapture"])
        .env(OWNED_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn await_ready(owner: &mut Child) {
    let output = BufReader::new(owner.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "ready"));
}

/// The living processes that have the servers' lock open: the owner, the watchdog, the servers.
fn holders(dir: &Path) -> Vec<u32> {
    let lock = dir.canonicalize().unwrap().join("servers.lock");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == lock))
        })
        .collect()
}

/// A killed process needs a moment to end on a busy machine.
pub(crate) fn assert_nobody_holds(dir: &Path) {
    assert!(eventually(Duration::from_secs(10), || holders(dir).is_empty()), "{:?}", holders(dir));
}

/// Every living process whose environment or command line names the directory, including helpers of
/// the servers.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.parent().unwrap().file_name().unwrap().to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| process.file_name() != *std::process::id().to_string())
        .filter_map(|process| {
            let read = |file| fs::read(process.path().join(file)).unwrap_or_default();
            let text = [read("environ"), read("cmdline")].concat();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            text.contains(name).then_some(text)
        })
        .collect()
}

fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn all_servers_end_when_the_owner_is_killed_and_the_next_start_finds_the_data() {
    let dir = TestDir::new();
    let mut owner = start_owner(dir.path());
    await_ready(&mut owner);
    let urls = Servers::attach(dir.path()).unwrap();
    let redis_url = urls.redis.clone().unwrap();
    redis(&redis_url, "SET a 1").unwrap();
    mysql(urls.mysql.as_ref().unwrap(), &["CREATE TABLE t (a INT)"]).unwrap();
    Amqp::open(urls.amqp.as_ref().unwrap()).unwrap();
    // Watchdog, owner, two Redis, MySQL, RabbitMQ, epmd.
    assert!(holders(dir.path()).len() >= 6, "{:?}", processes_of(dir.path()));

    owner.kill().unwrap();
    let begin = Instant::now();
    owner.wait().unwrap();
    assert_eq!(Servers::attach(dir.path()), None);

    // A new owner waits for the end of the old servers by itself.
    let servers = dir.builder().redis().start().unwrap();
    println!("gone and started again after {:.2?}", begin.elapsed());
    assert_eq!(servers.redis_url().unwrap(), redis_url);
    assert_eq!(redis(&redis_url, "GET a").unwrap(), "1");
    drop(servers);

    for url in [urls.redis, urls.redis_cluster, urls.mysql, urls.amqp] {
        TcpStream::connect(parse(&url.unwrap()).address).unwrap_err();
    }
    assert!(
        eventually(Duration::from_secs(5), || processes_of(dir.path()).is_empty()),
        "{:#?}",
        processes_of(dir.path())
    );
    assert_nobody_holds(dir.path());
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn nothing_is_left_of_an_owner_that_is_killed_while_it_starts() {
    let dir = TestDir::new();
    for delay in [50, 300, 1_200, 3_000] {
        let mut owner = start_owner(dir.path());
        thread::sleep(Duration::from_millis(delay));
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(
            eventually(Duration::from_secs(10), || processes_of(dir.path()).is_empty()
                && holders(dir.path()).is_empty()),
            "{delay} ms: {:#?}",
            processes_of(dir.path())
        );
    }
    // Half-made data directories are replaced.
    let servers = dir.builder().mysql().start().unwrap();
    mysql(&servers.mysql_url().unwrap(), &["CREATE TABLE t (a INT)"]).unwrap();
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_directory_in_use_is_refused_and_can_be_attached_to() {
    let dir = TestDir::new();
    assert_eq!(Servers::attach(dir.path()), None);
    let servers = dir.builder().redis().start().unwrap();
    assert_eq!(Servers::attach(dir.path()).as_ref(), Some(servers.urls()));

    let error = dir.builder().redis().start().unwrap_err();
    let StartError::InUse { pid, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*pid, Some(std::process::id()));
    let message = format!("is in use by the servers of process {}", std::process::id());
    assert!(error.to_string().contains(&message), "{error}");
    // The refusal left the owner's servers alone.
    assert_eq!(Servers::attach(dir.path()).as_ref(), Some(servers.urls()));
    assert_eq!(redis(&servers.redis_url().unwrap(), "PING").unwrap(), "+PONG");

    drop(servers);
    assert_eq!(Servers::attach(dir.path()), None);
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn the_servers_outlive_the_thread_that_started_them_and_can_be_shared() {
    fn shareable<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let dir = TestDir::new();
    let builder = dir.builder().redis();
    let servers = shareable(thread::spawn(|| builder.start().unwrap()).join().unwrap());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(redis(&servers.redis_url().unwrap(), "PING").unwrap(), "+PONG");
}

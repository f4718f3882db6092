//! That every baseline does its job: `infra/bench` divides by what they print.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

fn baseline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-baseline"));
    command.args(arguments);
    command
}

/// Runs one to its end: the number that it prints.
fn rate(arguments: &[&str]) -> f64 {
    let output = baseline(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// One that runs until it is dropped.
struct Running {
    child: Child,
    /// Whether it ends by itself when its standard input does.
    reads: bool,
}

impl Running {
    /// With its first lines.
    fn start(arguments: &[&str], lines: usize) -> (Self, Vec<String>) {
        let mut child =
            baseline(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().take(lines);
        let said = said.map(|line| line.unwrap()).collect();
        (Self { child, reads: arguments[0] == "servers" }, said)
    }

    /// The status line of a server's answer.
    fn ask(arguments: &[&str]) -> String {
        let (_server, said) = Self::start(arguments, 1);
        let address = said[0].strip_prefix("listening on http://").unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        let request = "POST /any HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !self.reads {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("fs-baseline-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn commits_are_counted() {
    let dir = directory("commits");
    assert!(rate(&["commits", dir.to_str().unwrap(), "0.2"]) > 1.0);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn hello_answers() {
    assert_eq!(Running::ask(&["hello", "127.0.0.1:0"]), "HTTP/1.1 200 OK");
}

#[test]
fn a_wrong_command_says_which_there_are() {
    let output = baseline(&["evalsha"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn servers_admit_and_confirm() {
    let dir = directory("servers");
    let (servers, said) = Running::start(&["servers", dir.to_str().unwrap()], 3);
    let urls: HashMap<&str, &str> = said.iter().map(|line| line.split_once('=').unwrap()).collect();
    let admitted = Running::ask(&["evalsha", "127.0.0.1:0", urls["redis"]]);
    assert_eq!(admitted, "HTTP/1.1 201 Created");
    // The queue is deleted at the end, so that a second run starts empty.
    for _ in 0..2 {
        assert!(rate(&["confirms", urls["amqp"], "0.5", "64"]) > 1.0);
    }
    drop(servers);
    std::fs::remove_dir_all(dir).unwrap();
}

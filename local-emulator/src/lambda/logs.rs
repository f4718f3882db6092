//! The output of a function's process: passed on line by line, and its end kept for invocations
//! with a log tail.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::net::unix::pipe;

use crate::cli;

/// The length of a log tail in the Invoke API.
const TAIL_BYTES: usize = 4 * 1024;
/// A longer line is passed on in pieces of this size.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The last bytes that one process wrote.
#[derive(Debug, Default)]
pub struct Logs(Mutex<Tail>);

#[derive(Debug, Default)]
struct Tail {
    /// The last bytes of the output.
    bytes: Vec<u8>,
    /// How many bytes were written in total.
    written: u64,
}

impl Logs {
    /// Where the log ends now.
    pub fn mark(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).written
    }

    /// The bytes written after the mark, at most the last 4 KiB.
    pub fn since(&self, mark: u64) -> Vec<u8> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = usize::try_from(tail.written.saturating_sub(mark))
            .unwrap_or(usize::MAX)
            .min(tail.bytes.len());
        tail.bytes[tail.bytes.len() - wanted..].to_vec()
    }

    fn keep(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.written += bytes.len() as u64;
        tail.bytes.extend_from_slice(bytes);
        let surplus = tail.bytes.len().saturating_sub(TAIL_BYTES);
        tail.bytes.drain(..surplus);
    }

    /// Passes on the lines from the pipe until it ends, each after `name` if there is one.
    pub async fn follow(&self, pipe: pipe::Receiver, name: Option<&str>) {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while pipe.readable().await.is_ok() {
            match pipe.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.keep(&buffer[..count]);
                    for byte in &buffer[..count] {
                        if *byte != b'\n' {
                            line.push(*byte);
                        }
                        if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                            pass_on(name, &line);
                            line.clear();
                        }
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        if !line.is_empty() {
            pass_on(name, &line);
        }
    }
}

fn pass_on(name: Option<&str>, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    match name {
        Some(name) => cli::complain(&format!("{name} | {line}")),
        None => cli::complain(&line),
    }
}

/// The log of one invocation between the lines that Lambda adds before and after it, cut to the
/// last 4 KiB.
pub fn framed(id: &str, lines: &[u8], took: Duration, memory_mb: u32) -> Vec<u8> {
    let took_ms = took.as_secs_f64() * 1e3;
    let mut log = format!("START RequestId: {id} Version: $LATEST\n").into_bytes();
    log.extend_from_slice(lines);
    if !lines.is_empty() && !lines.ends_with(b"\n") {
        log.push(b'\n');
    }
    log.extend_from_slice(
        format!("END RequestId: {id}\nREPORT RequestId: {id}\tDuration: {took_ms:.2} ms\tMemory Size: {memory_mb} MB\n").as_bytes(),
    );
    log.drain(..log.len().saturating_sub(TAIL_BYTES));
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_at_its_mark_and_is_bounded() {
        let logs = Logs::default();
        logs.keep(b"before\n");
        let mark = logs.mark();
        logs.keep(b"one\n");
        logs.keep(b"two\n");
        assert_eq!(logs.since(mark), b"one\ntwo\n");
        logs.keep(&[b'x'; 3 * TAIL_BYTES]);
        assert_eq!(logs.since(mark), vec![b'x'; TAIL_BYTES]);
        assert!(logs.since(logs.mark()).is_empty());
    }
}

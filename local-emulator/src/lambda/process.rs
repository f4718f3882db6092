//! One function process and its process group.
//!
//! The process must not outlive the emulator: Lambda's runtime clients spin when their Runtime API
//! is gone. So each process leads its own group, and its program starts only when the watchdog
//! knows that group. Whatever ends the emulator, the watchdog then ends the group.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
};

use flashsale_servers::{EndOrder, Watchdog};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::unix::pipe,
    process::{Child, Command},
};

/// Environment variables that a program may need to run at all; functions inherit no others.
const PASSED_ON: [&str; 8] =
    ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Waits for a line before it executes the program; end of file means that the emulator is gone.
const GATE: &str = r#"read -r go || exit 1; exec "$@" </dev/null"#;

/// What to run.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub variables: Vec<(String, String)>,
    pub memory_mb: u32,
}

/// A running process group, killed when dropped.
pub struct Process {
    child: Child,
    group: Pid,
    watchdog: Arc<Watchdog>,
}

impl Process {
    /// Starts the program. The pipe carries its standard output and standard error.
    pub fn spawn(
        launch: &Launch,
        more: &[(&str, &str)],
        watchdog: &Arc<Watchdog>,
    ) -> io::Result<(Self, pipe::Receiver)> {
        let (gate, mut opener) = io::pipe()?;
        let (output, writer) = io::pipe()?;
        let child = {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", GATE, "flashsale-function-gate"])
                .arg(&launch.program)
                .args(&launch.args)
                .env_clear()
                .envs(
                    PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))),
                )
                .envs(more.iter().copied())
                .envs(launch.variables.iter().map(|(name, value)| (name, value)))
                .stdin(gate)
                .stdout(writer.try_clone()?)
                .stderr(writer)
                .process_group(0)
                .kill_on_drop(true);
            command.spawn()?
            // The command is dropped here, and with it our copies of the pipe's writing end: the
            // pipe then closes with the child.
        };
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?))
            .ok_or_else(|| io::Error::other("no process id"))?;
        let process = Self { child, group, watchdog: Arc::clone(watchdog) };
        process.watchdog.add(group, EndOrder::First)?;
        limit_memory(group, launch.memory_mb)?;
        opener.write_all(b"go\n")?;
        Ok((process, pipe::Receiver::from_owned_fd(OwnedFd::from(output))?))
    }

    /// Waits for the end. Cancel safe.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) {
        // This fails when no process of the group is left.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also if the leader has ended, because processes that it started may still run. The kernel
        // does not reuse the group's number while one of them lives, nor immediately afterwards.
        self.signal(Signal::KILL);
        self.watchdog.remove(self.group);
    }
}

/// Limits the memory of the process and of each of its children. Set on the gate's shell, and
/// inherited by the program.
#[cfg(target_os = "linux")]
fn limit_memory(process: Pid, memory_mb: u32) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
    // A hard limit can't be raised.
    let ours = getrlimit(Resource::Data).maximum;
    let bytes = Some((u64::from(memory_mb) * 1024 * 1024).min(ours.unwrap_or(u64::MAX)));
    prlimit(Some(process), Resource::Data, Rlimit { current: bytes, maximum: bytes }).map_err(
        |error| io::Error::other(format!("memory_mb = {memory_mb} can't be set: {error}")),
    )?;
    Ok(())
}

/// Other systems can't limit another process.
#[cfg(not(target_os = "linux"))]
fn limit_memory(_: Pid, _: u32) -> io::Result<()> {
    Ok(())
}

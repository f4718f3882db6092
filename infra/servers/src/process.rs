//! One server process and its process group.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::programs::search_path;
use crate::watchdog::{EndOrder, Watchdog};

// The program starts when the owner writes a line, after the watchdog knows the group. If the owner
// is killed before that, `read` meets end of file and the shell exits. Standard error carries the
// directory's lock; the program keeps it as its standard input.
const GATE: &str = r#"read -r go || exit 1; exec "$@" <&2 2>&1"#;

const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 30;
const LOG_TAIL_BYTES: u64 = 64 * 1024;

/// What to run.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) cwd: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) order: EndOrder,
}

/// A running process group, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    reaped: bool,
    watchdog: Arc<Watchdog>,
}

impl Process {
    pub(crate) fn spawn(
        launch: &Launch,
        watchdog: &Arc<Watchdog>,
        lock: &File,
    ) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&launch.log)?;
        // The environment starts empty: a RABBITMQ_* or ERL_* variable of the caller would redirect
        // the server.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GATE, "flashsale-servers-gate"])
            .arg(&launch.program)
            .args(&launch.args)
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8")
            .envs(
                ["LD_LIBRARY_PATH", "TZ", "TMPDIR"]
                    .into_iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.cwd)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(lock.try_clone()?)
            .process_group(0);
        let mut child = command.spawn()?;
        let gate = child.stdin.take();
        let process = Self {
            group: Pid::from_child(&child),
            child,
            reaped: false,
            watchdog: Arc::clone(watchdog),
        };
        process.watchdog.add(process.group, launch.order)?;
        if let Some(mut gate) = gate {
            gate.write_all(b"go\n")?;
        }
        Ok(process)
    }

    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Whether the leader has ended. It is not reaped yet, so the kernel does not reuse the group's
    /// number.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.reaped || !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.reaped {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(kill_process_group(self.group, signal)?)
    }

    /// Asks the group to end, waits, and kills what is left of it.
    pub(crate) fn terminate(&mut self, timeout: Duration) {
        let _ = self.signal(Signal::TERM);
        // A paused server handles SIGTERM only after SIGCONT.
        let _ = self.signal(Signal::CONT);
        let deadline = Instant::now() + timeout;
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.kill();
    }

    /// Kills the group with SIGKILL and reaps its leader.
    pub(crate) fn kill(&mut self) {
        if self.reaped {
            return;
        }
        let _ = self.signal(Signal::KILL);
        self.watchdog.remove(self.group);
        let _ = self.child.wait();
        self.reaped = true;
    }

    /// Waits for a program that ends by itself; `None` when the time is up or `give_up` turned
    /// true.
    pub(crate) fn wait(
        &mut self,
        deadline: Instant,
        give_up: impl Fn() -> bool,
    ) -> Option<io::Result<bool>> {
        while !self.has_ended() {
            if Instant::now() >= deadline || give_up() {
                return None;
            }
            thread::sleep(POLL);
        }
        self.watchdog.remove(self.group);
        self.reaped = true;
        Some(self.child.wait().map(|status| status.success()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log; empty when it can't be read.
pub(crate) fn log_tail(log: &Path) -> Vec<String> {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

/// Whether the listener on this loopback port belongs to the group: another process may have taken
/// the port after it was found free, and answer instead of our server. Where this can't be found
/// out (no `/proc`, another user's process), the answer is yes.
pub(crate) fn owns_listener(group: Pid, port: u16) -> bool {
    let inodes = listening_inodes(port);
    if inodes.is_empty() {
        return true;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let mut foreign = false;
    for process in processes.flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| inodes.iter().any(|inode| target == Path::new(inode)));
        if holds {
            if process_group_of(&process.path()) == Some(group.as_raw_nonzero().get()) {
                return true;
            }
            foreign = true;
        }
    }
    !foreign
}

fn listening_inodes(port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&suffix)
            {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    inodes
}

fn process_group_of(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name, in parentheses, may itself contain spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(2)?.parse().ok()
}

//! Ends processes when their owner dies without ending them.
//!
//! A `/bin/sh` reads the process groups of the servers from a pipe whose other end only the owner
//! has. End of file means that the owner is gone, for whatever reason. `PR_SET_PDEATHSIG` would not
//! do: it fires when the *thread* that spawned the child ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;

// The shell has its own process group, so a terminal's signals reach it only by mistake; it ignores
// them, because a dead watchdog would leave servers behind. A stopped server handles SIGTERM only
// when it continues, hence SIGCONT. `kill -s NAME -- -GROUP` is the only form that dash, bash and
// busybox all accept.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
first= last=
without() {
    kept=
    for g in $1; do [ "$g" = "$2" ] || kept="$kept $g"; done
}
while read -r op group; do
    case $op in
        first) first="$first $group" ;;
        last) last="$last $group" ;;
        remove)
            without "$first" "$group"; first=$kept
            without "$last" "$group"; last=$kept ;;
    esac
done
for g in $first; do kill -s TERM -- "-$g"; kill -s CONT -- "-$g"; done
tries=0
while [ "$tries" -lt 50 ]; do
    alive=
    for g in $first; do kill -s 0 -- "-$g" && alive=yes; done
    [ "$alive" ] || break
    sleep 0.1
    tries=$((tries + 1))
done
for g in $first $last; do kill -s KILL -- "-$g"; done
exit 0
"#;

/// When a process group has to end.
#[derive(Clone, Copy, Debug)]
pub enum EndOrder {
    /// Before the groups with [`EndOrder::Last`].
    First,
    /// After the others, which need it for a clean end: RabbitMQ would start its own epmd without
    /// one.
    Last,
}

/// Ends its process groups when this process is gone, for whatever reason: with SIGTERM, and soon
/// after with SIGKILL.
#[derive(Debug)]
pub struct Watchdog {
    pipe: Mutex<Option<ChildStdin>>,
    shell: Mutex<Child>,
}

impl Watchdog {
    /// Starts the watchdog. It keeps `lock` locked until it exits, because until then it may have
    /// processes to end.
    ///
    /// # Errors
    ///
    /// When `/bin/sh` can't be started.
    pub fn start(lock: Option<&File>) -> io::Result<Self> {
        let held = lock.map(File::try_clone).transpose()?;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "flashsale-servers-watchdog"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(held.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { pipe: Mutex::new(shell.stdin.take()), shell: Mutex::new(shell) })
    }

    /// Call this before the group does anything that must not outlive the owner.
    ///
    /// # Errors
    ///
    /// When the watchdog has died.
    pub fn add(&self, group: Pid, order: EndOrder) -> io::Result<()> {
        match order {
            EndOrder::First => self.tell("first", group),
            EndOrder::Last => self.tell("last", group),
        }
    }

    /// Call this before the group's leader is reaped, or at once afterwards: the kernel may later
    /// give the group's number to another group.
    pub fn remove(&self, group: Pid) {
        // A dead watchdog can't kill a wrong group: ignore the error.
        let _ = self.tell("remove", group);
    }

    fn tell(&self, op: &str, group: Pid) -> io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{op} {}\n", group.as_raw_nonzero());
        pipe.as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?
            .write_all(line.as_bytes())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let pipe = self.pipe.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(pipe.take());
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = shell.wait();
    }
}

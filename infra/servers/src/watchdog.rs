//! Ends processes when their owner dies without being able to.
//!
//! A `/bin/sh` reads the process groups of the servers from a pipe whose other end only the owner
//! has. End of file means that the owner is gone, however it went. `PR_SET_PDEATHSIG` would not do:
//! it fires when the *thread* that spawned the child ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;

// Signals of the terminal reach this shell only through mistakes (it has a group of its own), but
// one that dies of them would leave servers behind. A stopped server gets SIGTERM when it goes on,
// hence SIGCONT. `kill -s NAME -- -GROUP` is the one form that dash, bash and busybox agree upon.
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
    /// Before those that are [`EndOrder::Last`].
    First,
    /// After the others: what they need for a clean end (epmd, without which RabbitMQ starts one of its own).
    Last,
}

/// Ends the process groups it was told of, with SIGTERM and soon SIGKILL, when this process is gone, however it went.
#[derive(Debug)]
pub struct Watchdog {
    pipe: Mutex<Option<ChildStdin>>,
    shell: Mutex<Child>,
}

impl Watchdog {
    /// Starts it. A `lock` stays locked while the watchdog lives, since it may still have processes to end.
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

    /// To be told before the group does anything that must not outlive the owner.
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

    /// To be told before the group's leader is reaped, or at once after it: until then the group's number must not have been
    /// given to another.
    pub fn remove(&self, group: Pid) {
        // Without a watchdog there is nobody who could kill the wrong group.
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

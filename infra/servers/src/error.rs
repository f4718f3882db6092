//! Errors, whose texts say what to do about them.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::kind::ServerKind;
use crate::programs::{Missing, install_advice};

/// Why servers could not be started, restarted or signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Programs that the chosen servers need are not installed; nothing was started.
    #[error("{}", install_advice(programs))]
    Missing {
        /// The programs that were not found.
        programs: Vec<Missing>,
    },
    /// Another living process, or another [`Servers`](crate::Servers) value of this one, runs
    /// servers in this directory.
    #[error(
        "{} is in use{}; stop that process or choose another directory",
        dir.display(),
        pid.map_or(String::new(), |pid| format!(" by the servers of process {pid}"))
    )]
    InUse {
        /// The directory asked for.
        dir: PathBuf,
        /// Its owner, as far as known.
        pid: Option<u32>,
    },
    /// The owner of this directory is dead, but its servers have not ended.
    #[error(
        "servers of a dead owner still run in {0}; `fuser -v {0}/servers.lock` names them, kill them and try again",
        dir.display()
    )]
    Orphaned {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// The server ended before it answered.
    #[error("{kind} ended before it answered{}", show_log(log, tail))]
    Exited {
        /// The server concerned.
        kind: ServerKind,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: Vec<String>,
    },
    /// The server runs but did not answer in time; it was stopped again.
    #[error("{kind} did not answer within {} s{}", limit.as_secs(), show_log(log, tail))]
    Timeout {
        /// The server concerned.
        kind: ServerKind,
        /// How long the start waited for its answer.
        limit: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: Vec<String>,
    },
    /// Starting was given up because another server of the set failed; that server's error is
    /// reported.
    #[error("starting {kind} was given up because another server failed")]
    Abandoned {
        /// The server concerned.
        kind: ServerKind,
    },
    /// This server was not chosen when the set was built.
    #[error("{kind} is not one of these servers")]
    NotChosen {
        /// The server concerned.
        kind: ServerKind,
    },
    /// The server was stopped, so there is nothing to signal.
    #[error("{kind} is not running")]
    NotRunning {
        /// The server concerned.
        kind: ServerKind,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Adds what was tried to an [`io::Error`].
pub(crate) trait Trying<T> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T, StartError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T, StartError> {
        self.map_err(|source| StartError::Io { action: action(), source })
    }
}

fn show_log(log: &std::path::Path, tail: &[String]) -> String {
    let mut text = format!("; the end of {}:", log.display());
    for line in tail {
        let _ = write!(text, "\n  {line}");
    }
    if tail.is_empty() {
        text.push_str(" (empty)");
    }
    text
}

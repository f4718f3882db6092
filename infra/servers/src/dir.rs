//! The directory with all files of one set of servers, and its locks.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{StartError, Trying};
use crate::ports;
use crate::urls::Urls;

/// Longer than `attach` holds the owner's lock to see whether it is free.
const OWNER_TIMEOUT: Duration = Duration::from_millis(500);
/// The watchdog of a dead owner gives its servers 5 s before it kills them.
const SERVERS_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

const OWNER_LOCK: &str = "owner.lock";
const SERVERS_LOCK: &str = "servers.lock";
const PORTS: &str = "ports";
const URLS: &str = "urls";

/// A directory in which only the holder of this value may run servers.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    ports: Mutex<BTreeMap<String, u16>>,
    servers_lock: File,
    _owner_lock: File,
}

impl DataDir {
    pub(crate) fn claim(dir: &Path) -> Result<Self, StartError> {
        let make = || format!("create the directory {}", dir.display());
        make_private_dir(dir).trying(make)?;
        // An existing directory may be readable by others, and the servers' passwords are stored in
        // it.
        fs::set_permissions(dir, Permissions::from_mode(0o700)).trying(make)?;
        let root = dir.canonicalize().trying(make)?;

        let mut owner_lock = open_private(&root.join(OWNER_LOCK))
            .trying(|| format!("open {OWNER_LOCK} in {}", root.display()))?;
        if !lock_within(&owner_lock, OWNER_TIMEOUT)? {
            let mut pid = String::new();
            let _ = owner_lock.read_to_string(&mut pid);
            return Err(StartError::InUse { dir: root, pid: pid.trim().parse().ok() });
        }
        let servers_lock = open_private(&root.join(SERVERS_LOCK))
            .trying(|| format!("open {SERVERS_LOCK} in {}", root.display()))?;
        // A killed owner leaves its urls behind.
        let _ = fs::remove_file(root.join(URLS));
        owner_lock
            .set_len(0)
            .and_then(|()| writeln!(owner_lock, "{}", std::process::id()))
            .trying(|| format!("write {OWNER_LOCK} in {}", root.display()))?;
        if !lock_within(&servers_lock, SERVERS_TIMEOUT)? {
            return Err(StartError::Orphaned { dir: root });
        }

        let ports = fs::read_to_string(root.join(PORTS))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let (name, port) = line.split_once('=')?;
                Some((name.to_owned(), port.parse().ok()?))
            })
            .collect();
        Ok(Self { root, ports: Mutex::new(ports), servers_lock, _owner_lock: owner_lock })
    }

    /// The lock that every process with write access to this directory holds.
    pub(crate) fn servers_lock(&self) -> &File {
        &self.servers_lock
    }

    /// A subdirectory that only this user can enter.
    pub(crate) fn subdir(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        make_private_dir(&path)?;
        Ok(path)
    }

    /// The log of one server.
    pub(crate) fn log(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.subdir("log")?.join(format!("{name}.log")))
    }

    /// A random secret of 128 bits in hexadecimal digits; it stays the same for this directory.
    pub(crate) fn secret(&self, name: &str) -> io::Result<String> {
        let path = self.subdir("secrets")?.join(name);
        match fs::read_to_string(&path) {
            Ok(secret) if secret.len() == 32 => return Ok(secret),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, &secret)?;
        Ok(secret)
    }

    /// The port of that name: the previous one if it is free and not `refused`, else a new one for
    /// which `fits` holds.
    pub(crate) fn port(
        &self,
        name: &str,
        refused: bool,
        fits: impl Fn(u16) -> bool,
    ) -> io::Result<u16> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&port) = ports.get(name)
            && !refused
            && ports::is_free(port)
            && fits(port)
        {
            return Ok(port);
        }
        let port = ports::find(|port| !ports.values().any(|&other| other == port) && fits(port))?;
        ports.insert(name.to_owned(), port);
        let lines: String = ports.iter().map(|(n, p)| format!("{n}={p}\n")).collect();
        write_private(&self.root.join(PORTS), &lines)?;
        Ok(port)
    }

    /// Lets other processes attach.
    pub(crate) fn publish(&self, urls: &Urls) -> io::Result<()> {
        write_private(&self.root.join(URLS), &urls.to_lines())
    }

    /// No process can attach from now on.
    pub(crate) fn unpublish(&self) {
        let _ = fs::remove_file(self.root.join(URLS));
    }
}

/// The urls of the servers that a living owner runs in this directory.
pub(crate) fn published(dir: &Path) -> Option<Urls> {
    let owner_lock = File::open(dir.join(OWNER_LOCK)).ok()?;
    match owner_lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        // The lock is free: the owner is gone and its urls are stale.
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    Urls::from_lines(&fs::read_to_string(dir.join(URLS)).ok()?)
}

/// Replaces a file that only this user can read; readers see the old or the new content.
pub(crate) fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?
        .write_all(content.as_bytes())?;
    fs::rename(&new, path)
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn lock_within(file: &File, timeout: Duration) -> Result<bool, StartError> {
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(source)) => {
                return Err(StartError::Io {
                    action: "lock the servers' directory".to_owned(),
                    source,
                });
            }
        }
    }
}

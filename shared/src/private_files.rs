//! Directories and files that hold keys and password hashes: only this process's user may read
//! them, whatever the umask is.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::Path,
};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The permission bits of other users, all of which must be off.
const OTHERS: u32 = 0o077;
/// The names that a data directory, or the private servers' directory in it, contains from its
/// first use on.
const OURS: [&str; 4] = ["lock", "flashsale.sqlite", "servers", "servers.lock"];
/// The bit of a directory in which every user keeps files, such as /tmp.
const STICKY: u32 = 0o1000;

/// What to do about an existing directory or file that other users may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// Remove their access and log it.
    Tighten,
    /// Fail: the content may have been read already.
    Refuse,
}

/// Why a path can't be kept private.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Other users may read it.
    #[error(
        "{path}: other users may read it (mode {mode:04o}), and it holds keys and password hashes: chmod {wanted:o} {path}"
    )]
    Loose {
        /// The directory or file.
        path: String,
        /// Its permissions.
        mode: u32,
        /// The permissions it should have.
        wanted: u32,
    },
    /// A directory that all users share.
    #[error(
        "{0}: every user of this machine keeps files there; name a directory for this service alone"
    )]
    Shared(String),
    /// A directory that other users may read and that holds nothing of this service: closing it
    /// would lock its users out.
    #[error(
        "{0}: it holds other files and is open to other users; name a directory for this service alone"
    )]
    Foreign(String),
    /// An error of the file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Creates the directory and its parents, or checks the existing one.
///
/// # Errors
/// When it can't be created, or other users may read it and must not be locked out.
pub fn directory(path: &Path, loose: Loose) -> Result<(), PrivateError> {
    if path.is_dir() {
        if fs::metadata(path)?.mode() & STICKY != 0 {
            return Err(PrivateError::Shared(path.display().to_string()));
        }
        if loose == Loose::Tighten && fs::metadata(path)?.mode() & OTHERS != 0 && !is_ours(path)? {
            return Err(PrivateError::Foreign(path.display().to_string()));
        }
        return check(path, DIRECTORY_MODE, loose);
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    // The umask may have removed permissions that the owner needs.
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    Ok(())
}

/// Whether the directory is empty or contains this service's files.
fn is_ours(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none() || OURS.iter().any(|name| path.join(name).exists()))
}

/// Opens the file for writing, and creates it if it is missing. Keeps its content.
///
/// # Errors
/// As [`directory`].
pub fn file(path: &Path, loose: Loose) -> Result<File, PrivateError> {
    match File::options().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check(path, FILE_MODE, loose)?;
            Ok(File::options().write(true).open(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks a file, if it exists.
///
/// # Errors
/// As [`directory`].
pub fn file_if_any(path: &Path, loose: Loose) -> Result<(), PrivateError> {
    if path.try_exists()? { check(path, FILE_MODE, loose) } else { Ok(()) }
}

fn check(path: &Path, wanted: u32, loose: Loose) -> Result<(), PrivateError> {
    let mode = fs::metadata(path)?.mode() & 0o777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let path_shown = path.display().to_string();
    if loose == Loose::Refuse {
        return Err(PrivateError::Loose { path: path_shown, mode, wanted });
    }
    match fs::set_permissions(path, Permissions::from_mode(wanted)) {
        Ok(()) => tracing::warn!(
            path = path_shown,
            "other users could read it (mode {mode:04o}); its mode is {wanted:04o} now"
        ),
        Err(error) => {
            tracing::warn!(%error, path = path_shown, "other users may read it (mode {mode:04o}), and that can't be changed")
        }
    }
    Ok(())
}

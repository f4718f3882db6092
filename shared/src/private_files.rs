//! Directories and files that hold keys and password hashes: only this process's user may read them, whatever the umask says.

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
/// What others may do, which is to be nothing.
const OTHERS: u32 = 0o077;
/// What a data directory, or the private servers' directory in it, holds from its first use on.
const OURS: [&str; 4] = ["lock", "flashsale.sqlite", "servers", "servers.lock"];
/// Marks a directory in which every user keeps files, such as /tmp.
const STICKY: u32 = 0o1000;

/// What is done about a directory or file that is there already and that others may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// It is closed to them, with a line in the log.
    Tighten,
    /// It is an error: what was readable may have been read.
    Refuse,
}

/// Why something can't be kept private.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Others may read it.
    #[error(
        "{path}: other users may read it (mode {mode:04o}), and it holds keys and password hashes: chmod {wanted:o} {path}"
    )]
    Loose {
        /// The directory or file.
        path: String,
        /// Its permissions.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Everybody's directory.
    #[error(
        "{0}: every user of this machine keeps files there; name a directory for this service alone"
    )]
    Shared(String),
    /// A directory that others may read and that holds nothing of this service: to close it would lock out its users.
    #[error(
        "{0}: it holds other files and is open to other users; name a directory for this service alone"
    )]
    Foreign(String),
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the directory, with those above it, or looks at the one that is there.
///
/// # Errors
/// When it can't be made, or others may read it and are not to be locked out.
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
    // A umask may have taken away what the owner needs.
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    Ok(())
}

/// Whether the directory is empty, or holds what this service keeps there.
fn is_ours(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none() || OURS.iter().any(|name| path.join(name).exists()))
}

/// Opens the file for writing, making an empty one where there is none; what it holds stays.
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

/// Looks at a file, if it is there.
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

//! Finds the installed programs, and says how to install the missing ones.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::kind::ServerKind;

/// Directories of server programs that are often not on a user's `PATH`.
const EXTRA_DIRS: [&str; 9] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib/rabbitmq/bin",
    "/usr/libexec",
    "/usr/lib/erlang/bin",
    "/usr/lib64/erlang/bin",
];

/// A program that is not installed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The server that needs it.
    pub kind: ServerKind,
    /// The names under which it was looked for; any one of them suffices.
    pub program: &'static str,
    /// The package on Debian and Ubuntu.
    pub debian_package: &'static str,
    /// The package on CentOS, RHEL and Fedora.
    pub rhel_package: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.program, self.kind)
    }
}

/// The programs that [`Builder::all`](crate::Builder::all) needs and this machine lacks.
#[must_use]
pub fn missing() -> Vec<Missing> {
    missing_for(&[ServerKind::Redis, ServerKind::MySql, ServerKind::RabbitMq])
}

pub(crate) fn missing_for(kinds: &[ServerKind]) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    for &kind in kinds {
        let (debian_package, rhel_package) = match kind {
            ServerKind::Redis | ServerKind::RedisCluster => ("redis-server", "redis"),
            ServerKind::MySql => ("mariadb-server", "mariadb-server"),
            ServerKind::RabbitMq => ("rabbitmq-server", "rabbitmq-server"),
        };
        let absent: Vec<&'static str> = match kind {
            ServerKind::Redis | ServerKind::RedisCluster => {
                find_redis().err().into_iter().collect()
            }
            ServerKind::MySql => find_mysql().err().into_iter().collect(),
            ServerKind::RabbitMq => [find_rabbitmq(), find_epmd(), find_erl()]
                .into_iter()
                .filter_map(Result::err)
                .collect(),
        };
        missing.extend(absent.into_iter().map(|program| Missing {
            kind,
            program,
            debian_package,
            rhel_package,
        }));
    }
    missing
}

pub(crate) fn find_redis() -> Result<PathBuf, &'static str> {
    find_first(&["redis-server", "valkey-server"]).ok_or("redis-server or valkey-server")
}

pub(crate) fn find_mysql() -> Result<PathBuf, &'static str> {
    find_first(&["mariadbd", "mysqld"]).ok_or("mariadbd or mysqld")
}

/// Only MariaDB needs it, so [`missing`] does not report it: making a data directory does.
pub(crate) fn find_mariadb_install_db() -> Option<PathBuf> {
    find_first(&["mariadb-install-db", "mysql_install_db"])
}

pub(crate) fn find_rabbitmq() -> Result<PathBuf, &'static str> {
    let found = find_first(&["rabbitmq-server"]).ok_or("rabbitmq-server")?;
    // The script in /usr/sbin runs only for root and the user `rabbitmq`, and switches to that
    // user, who may not write into our directory.
    let direct = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let switches = found.starts_with("/usr/sbin") || found.starts_with("/sbin");
    Ok(if switches && direct.is_file() { direct.to_path_buf() } else { found })
}

pub(crate) fn find_epmd() -> Result<PathBuf, &'static str> {
    find_first(&["epmd"]).ok_or("epmd")
}

fn find_erl() -> Result<PathBuf, &'static str> {
    find_first(&["erl"]).ok_or("erl")
}

fn find_first(names: &[&str]) -> Option<PathBuf> {
    first_in(search_dirs(), names)
}

/// The first directory with any of the names wins, as on `PATH`; within it, the first name.
fn first_in(mut dirs: impl Iterator<Item = PathBuf>, names: &[&str]) -> Option<PathBuf> {
    dirs.find_map(|dir| names.iter().map(|name| dir.join(name)).find(|path| path.is_file()))
}

fn search_dirs() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    on_path.into_iter().chain(EXTRA_DIRS.into_iter().map(PathBuf::from))
}

/// The `PATH` for the servers, whose own scripts look for `erl`, `sed` and the like.
pub(crate) fn search_path() -> OsString {
    std::env::join_paths(search_dirs()).unwrap_or_else(|_| OsString::from("/usr/bin:/bin"))
}

pub(crate) fn install_advice(programs: &[Missing]) -> String {
    let join = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(" ");
    let names: Vec<String> = programs.iter().map(Missing::to_string).collect();
    let debian = join(programs.iter().map(|p| p.debian_package).collect());
    let rhel = join(programs.iter().map(|p| p.rhel_package).collect());
    format!(
        "not installed: {}. Install with `apt-get install {debian}` (Debian, Ubuntu), \
         `dnf install {rhel}` (CentOS Stream, RHEL 8 and later) or `yum install {rhel}` (CentOS 7)",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version at the front of `PATH` is used, whichever of the names it has.
    #[test]
    fn the_first_directory_decides_then_the_first_name() {
        let dir = std::env::temp_dir().join(format!("flashsale-programs-{}", std::process::id()));
        let [front, back] = ["front", "back"].map(|name| dir.join(name));
        for (place, names) in [(&front, &["mysqld"][..]), (&back, &["mariadbd", "mysqld"])] {
            std::fs::create_dir_all(place).unwrap();
            for name in names {
                std::fs::write(place.join(name), "").unwrap();
            }
        }
        let first = |dirs: &[&PathBuf]| {
            first_in(dirs.iter().map(|dir| (*dir).clone()), &["mariadbd", "mysqld"])
        };
        assert_eq!(first(&[&front, &back]), Some(front.join("mysqld")));
        assert_eq!(first(&[&back, &front]), Some(back.join("mariadbd")));
        assert_eq!(first(&[&dir]), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn advice_names_each_program_and_each_package_once() {
        let missing = |program| Missing {
            kind: ServerKind::RabbitMq,
            program,
            debian_package: "rabbitmq-server",
            rhel_package: "rabbitmq-server",
        };
        let redis = Missing {
            kind: ServerKind::Redis,
            program: "redis-server",
            debian_package: "redis-server",
            rhel_package: "redis",
        };
        let text = install_advice(&[missing("rabbitmq-server"), missing("epmd"), redis]);
        assert_eq!(
            text,
            "not installed: rabbitmq-server (RabbitMQ), epmd (RabbitMQ), redis-server (Redis). Install with \
             `apt-get install rabbitmq-server redis-server` (Debian, Ubuntu), \
             `dnf install rabbitmq-server redis` (CentOS Stream, RHEL 8 and later) or \
             `yum install rabbitmq-server redis` (CentOS 7)"
        );
    }
}

//! MariaDB or MySQL, whichever is installed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::dir::write_private;
use crate::error::{StartError, Trying};
use crate::kind::ServerKind;
use crate::process::{Launch, log_tail};
use crate::programs::{Missing, find_mariadb_install_db};
use crate::server::{Host, Recipe, probe};
use crate::watchdog::EndOrder;

pub(crate) const USER: &str = "flashsale";
pub(crate) const ADMIN: &str = "flashsale_admin";
pub(crate) const DATABASE: &str = "flashsale";

const NAME: &str = "mysql";
const DATA: &str = "data";
const NEW_DATA: &str = "data.new";

/// MariaDB allocates its whole redo log at once; its default of 96 MiB is large for a private
/// server.
const MARIADB_LOG_SIZE: &str = "--innodb-log-file-size=48M";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavor {
    MariaDb,
    MySql,
}

#[derive(Debug)]
pub(crate) struct MySql {
    program: PathBuf,
    flavor: Flavor,
    passwords: Passwords,
}

#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    pub(crate) user: String,
    pub(crate) admin: String,
}

impl Passwords {
    pub(crate) fn of(host: &Host) -> io::Result<Self> {
        // The prefix has every character class that a password policy may require, and needs no
        // escaping in a url.
        let password = |name| Ok::<_, io::Error>(format!("Aa1-{}", host.dir.secret(name)?));
        Ok(Self { user: password("mysql-user")?, admin: password("mysql-admin")? })
    }
}

impl MySql {
    pub(crate) fn new(program: PathBuf, passwords: Passwords) -> io::Result<Self> {
        let version = Command::new(&program)
            .args(["--no-defaults", "--version"])
            .stdin(Stdio::null())
            .output()?;
        let flavor = if String::from_utf8_lossy(&version.stdout).contains("MariaDB") {
            Flavor::MariaDb
        } else {
            Flavor::MySql
        };
        Ok(Self { program, flavor, passwords })
    }

    /// Makes the system tables in `NEW_DATA`, which is renamed to its final name once it is
    /// complete.
    fn initialise(&self, cwd: PathBuf, log: PathBuf) -> Result<Launch, StartError> {
        let new_data = cwd.join(NEW_DATA);
        if new_data.exists() {
            fs::remove_dir_all(&new_data).trying(|| format!("remove {}", new_data.display()))?;
        }
        // Relative paths, because the install script splits paths that contain spaces.
        let (program, mut args) = match self.flavor {
            Flavor::MariaDb => (
                find_mariadb_install_db().ok_or_else(|| StartError::Missing {
                    programs: vec![Missing {
                        kind: ServerKind::MySql,
                        program: "mariadb-install-db",
                        debian_package: "mariadb-server",
                        rhel_package: "mariadb-server",
                    }],
                })?,
                vec![
                    "--no-defaults".into(),
                    // Without it the script, run by root, changes the owner of directories of the
                    // *installed* MariaDB.
                    "--rpm".into(),
                    "--skip-test-db".into(),
                    "--auth-root-authentication-method=socket".into(),
                    MARIADB_LOG_SIZE.into(),
                    format!("--datadir=./{NEW_DATA}").into(),
                ],
            ),
            Flavor::MySql => (
                self.program.clone(),
                vec![
                    "--no-defaults".into(),
                    "--initialize-insecure".into(),
                    "--secure-file-priv=NULL".into(),
                    // MySQL requires an absolute path here and accepts spaces.
                    prefixed("--datadir=", &new_data),
                ],
            ),
        };
        args.extend(user_of_root());
        let env = own_tmpdir(&cwd).trying(|| "make a directory for temporary files".to_owned())?;
        Ok(Launch { program, args, env, cwd, log, order: EndOrder::First })
    }

    /// Run at each start, so that users and passwords match whatever data is found. One statement
    /// per line.
    fn init_sql(&self) -> String {
        let Passwords { user, admin } = &self.passwords;
        format!(
            "CREATE DATABASE IF NOT EXISTS `{DATABASE}` CHARACTER SET utf8mb4;\n\
             CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{user}';\n\
             ALTER USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{user}';\n\
             GRANT ALL PRIVILEGES ON `{DATABASE}`.* TO '{USER}'@'127.0.0.1';\n\
             CREATE USER IF NOT EXISTS '{ADMIN}'@'127.0.0.1' IDENTIFIED BY '{admin}';\n\
             ALTER USER '{ADMIN}'@'127.0.0.1' IDENTIFIED BY '{admin}';\n\
             GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
    }
}

impl Recipe for MySql {
    fn kind(&self) -> ServerKind {
        ServerKind::MySql
    }

    fn prepare(&self, host: &Host, deadline: Instant) -> Result<(), StartError> {
        let kind = self.kind();
        let making = || format!("make the data directory of {kind}");
        let dir = host.dir.subdir(NAME).trying(making)?;
        let log = host.dir.log(NAME).trying(making)?;
        if dir.join(DATA).exists() {
            return Ok(());
        }
        let mut process = host.spawn(&self.initialise(dir.clone(), log.clone())?)?;
        match process.wait(deadline, || host.is_abandoned()) {
            Some(Ok(true)) => {
                fs::rename(dir.join(NEW_DATA), dir.join(DATA)).trying(making)?;
                Ok(())
            }
            Some(_) => {
                let tail = log_tail(&log);
                Err(StartError::Exited { kind, log, tail })
            }
            None if host.is_abandoned() => Err(StartError::Abandoned { kind }),
            None => {
                let (tail, limit) = (log_tail(&log), host.limit);
                Err(StartError::Timeout { kind, limit, log, tail })
            }
        }
    }

    fn ports(&self, host: &Host, refused: bool) -> io::Result<Vec<u16>> {
        Ok(vec![host.dir.port(NAME, refused, |_| true)?])
    }

    fn launch(&self, host: &Host, ports: &[u16]) -> io::Result<Launch> {
        let dir = host.dir.subdir(NAME)?;
        let init_file = dir.join("init.sql");
        write_private(&init_file, &self.init_sql())?;
        let mut args: Vec<OsString> = vec![
            "--no-defaults".into(),
            prefixed("--datadir=", &dir.join(DATA)),
            prefixed("--init-file=", &init_file),
            // Relative to the data directory, which is the server's working directory when it makes
            // the socket: a socket's path is limited to 107 bytes, and our directory's may be
            // longer.
            "--socket=mysql.sock".into(),
            "--pid-file=mysql.pid".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--port={}", ports[0]).into(),
            "--skip-name-resolve".into(),
            "--skip-log-bin".into(),
            "--performance-schema=OFF".into(),
            "--character-set-server=utf8mb4".into(),
            "--max-connections=300".into(),
            "--innodb-flush-log-at-trx-commit=1".into(),
            // Filled only as the data grows: a small sale needs a tenth of it, a million users need all of it.
            "--innodb-buffer-pool-size=512M".into(),
        ];
        match self.flavor {
            Flavor::MariaDb => args.push(MARIADB_LOG_SIZE.into()),
            Flavor::MySql => {
                args.extend(["--mysqlx=OFF", "--secure-file-priv=NULL"].map(OsString::from));
            }
        }
        args.extend(user_of_root());
        Ok(Launch {
            program: self.program.clone(),
            args,
            env: own_tmpdir(&dir)?,
            cwd: dir,
            log: host.dir.log(NAME)?,
            order: EndOrder::First,
        })
    }

    fn is_ready(&self, port: u16) -> io::Result<bool> {
        // The port is open before the init file has run, but the greeting comes after it.
        const PROTOCOL_VERSION: u8 = 10;
        let mut greeting = [0; 5];
        probe(port)?.read_exact(&mut greeting)?;
        Ok(greeting[4] == PROTOCOL_VERSION)
    }
}

/// A starting MariaDB deletes leftover tables from its directory for temporary tables. In a shared
/// directory it would delete those of another server that is making its data directory at that
/// moment.
fn own_tmpdir(dir: &Path) -> io::Result<Vec<(&'static str, OsString)>> {
    let tmp = dir.join("tmp");
    fs::create_dir_all(&tmp)?;
    Ok(vec![("TMPDIR", tmp.into())])
}

/// Both servers refuse to run as root unless `--user=root` is given.
fn user_of_root() -> Option<OsString> {
    rustix::process::geteuid().is_root().then(|| "--user=root".into())
}

fn prefixed(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(path);
    text
}

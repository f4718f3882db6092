//! RabbitMQ, with its own Erlang port mapper (epmd).

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::write_private;
use crate::kind::ServerKind;
use crate::process::Launch;
use crate::server::{Host, Recipe, probe};
use crate::watchdog::EndOrder;

pub(crate) const USER: &str = "flashsale";

const NAME: &str = "rabbitmq";

#[derive(Debug)]
pub(crate) struct RabbitMq {
    pub(crate) program: PathBuf,
    pub(crate) epmd: PathBuf,
    pub(crate) password: String,
}

impl Recipe for RabbitMq {
    fn kind(&self) -> ServerKind {
        ServerKind::RabbitMq
    }

    fn ports(&self, host: &Host, refused: bool) -> io::Result<Vec<u16>> {
        ["rabbitmq", "rabbitmq-distribution", "rabbitmq-epmd"]
            .into_iter()
            .map(|name| host.dir.port(name, refused, |_| true))
            .collect()
    }

    fn helper(&self, host: &Host, ports: &[u16]) -> io::Result<Option<Launch>> {
        let [_, _, epmd] = ports_of(ports);
        Ok(Some(Launch {
            program: self.epmd.clone(),
            args: vec!["-port".into(), epmd.to_string().into()],
            env: vec![("ERL_EPMD_ADDRESS", "127.0.0.1".into())],
            cwd: host.dir.subdir(NAME)?,
            log: host.dir.log("epmd")?,
            order: EndOrder::Last,
        }))
    }

    fn launch(&self, host: &Host, ports: &[u16]) -> io::Result<Launch> {
        let [amqp, distribution, epmd] = ports_of(ports);
        let dir = host.dir.subdir(NAME)?;
        let home = host.dir.subdir("rabbitmq/home")?;
        write_cookie(&home.join(".erlang.cookie"), &host.dir.secret("rabbitmq-cookie")?)?;
        // Unique, and the same at each start: the data is in a directory named after the node.
        let node = format!("flashsale-{}@localhost", &host.dir.secret("rabbitmq-node")?[..12]);

        let config = dir.join("rabbitmq.conf");
        write_private(
            &config,
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
                 default_user = {USER}\n\
                 default_pass = {}\n\
                 disk_free_limit.absolute = 50MB\n\
                 vm_memory_high_watermark.absolute = 1GB\n",
                self.password
            ),
        )?;
        let plugins = dir.join("enabled_plugins");
        write_private(&plugins, "[].\n")?;

        let env: Vec<(&'static str, OsString)> = vec![
            ("HOME", home.into()),
            ("RABBITMQ_NODENAME", node.into()),
            ("RABBITMQ_DIST_PORT", distribution.to_string().into()),
            ("RABBITMQ_MNESIA_BASE", dir.join("mnesia").into()),
            ("RABBITMQ_LOG_BASE", dir.join("log").into()),
            // All logs go to standard output, which is our log file.
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_CONFIG_FILE", config.into()),
            // These files do not exist: they replace those in /etc/rabbitmq.
            ("RABBITMQ_CONF_ENV_FILE", dir.join("no-env.conf").into()),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("no-advanced.config").into()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", plugins.into()),
            ("RABBITMQ_PID_FILE", dir.join("rabbitmq.pid").into()),
            // The start script executes the Erlang machine in its place instead of keeping a shell
            // around it.
            ("RUNNING_UNDER_SYSTEMD", "true".into()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // Idle schedulers sleep, and distribution listens on loopback only. The write-ahead
                // log of the quorum queues is small, because it is kept in memory too (512 MB by
                // default).
                "+sbwt none +sbwtdcpu none +sbwtdio none \
                 -kernel inet_dist_use_interface {127,0,0,1} \
                 -ra wal_max_size_bytes 67108864"
                    .into(),
            ),
            ("ERL_EPMD_PORT", epmd.to_string().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            // No Erlang machine that RabbitMQ starts may start an epmd: it would never be stopped.
            ("ERL_AFLAGS", "-start_epmd false".into()),
            ("ERL_CRASH_DUMP_SECONDS", "0".into()),
        ];
        Ok(Launch {
            program: self.program.clone(),
            args: Vec::new(),
            env,
            cwd: dir,
            log: host.dir.log(NAME)?,
            order: EndOrder::First,
        })
    }

    fn is_ready(&self, port: u16) -> io::Result<bool> {
        let mut stream = probe(port)?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame = [0; 11];
        stream.read_exact(&mut frame)?;
        // A method frame on channel 0 with Connection.Start (class 10, method 10).
        Ok(frame[..3] == [1, 0, 0] && frame[7..] == [0, 10, 0, 10])
    }
}

fn ports_of(ports: &[u16]) -> [u16; 3] {
    ports.try_into().expect("`ports` returns three")
}

/// Erlang refuses a cookie file that other users can read or that is not a single line.
fn write_cookie(path: &Path, cookie: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == cookie) {
        return Ok(());
    }
    write_private(path, cookie)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o400))
}

//! The public face: a set of servers in one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::dir::{self, DataDir};
use crate::error::{StartError, Trying};
use crate::kind::ServerKind;
use crate::programs;
use crate::server::{Host, Recipe, Server};
use crate::urls::Urls;
use crate::watchdog::Watchdog;
use crate::{mysql, rabbitmq, redis};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Chooses the servers of a set; see [`Servers::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    dir: PathBuf,
    kinds: Vec<ServerKind>,
    limit: Duration,
}

impl Builder {
    /// A single Redis.
    pub fn redis(self) -> Self {
        self.with(ServerKind::Redis)
    }

    /// A Redis Cluster of one node, beside or instead of the single Redis.
    pub fn redis_cluster(self) -> Self {
        self.with(ServerKind::RedisCluster)
    }

    /// MariaDB or MySQL, with the database `flashsale`.
    pub fn mysql(self) -> Self {
        self.with(ServerKind::MySql)
    }

    /// RabbitMQ.
    pub fn rabbitmq(self) -> Self {
        self.with(ServerKind::RabbitMq)
    }

    /// What the backend needs: Redis, MySQL and RabbitMQ.
    pub fn all(self) -> Self {
        self.redis().mysql().rabbitmq()
    }

    /// How long each server may take to answer, including the making of its data directory. 60 s
    /// unless set.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the chosen servers in parallel and waits until each answers its clients.
    ///
    /// Waits up to 15 s longer when the previous owner of the directory was killed and its servers
    /// are still stopping.
    ///
    /// # Errors
    ///
    /// [`StartError::Missing`] when programs are not installed, [`StartError::InUse`] when the
    /// directory has an owner, [`StartError::Exited`] or [`StartError::Timeout`] with the end of
    /// its log when a server failed. After an error no server is left running.
    pub fn start(self) -> Result<Servers, StartError> {
        let programs = programs::missing_for(&self.kinds);
        if !programs.is_empty() {
            return Err(StartError::Missing { programs });
        }
        let dir = DataDir::claim(&self.dir)?;
        let watchdog = Watchdog::start(Some(dir.servers_lock()))
            .trying(|| "start the watchdog, a /bin/sh".to_owned())?;
        let host = Arc::new(Host {
            watchdog: Arc::new(watchdog),
            dir,
            limit: self.limit,
            abandoned: AtomicBool::new(false),
        });
        let servers = self
            .kinds
            .iter()
            .map(|&kind| {
                // Logs hold one run of the set, so that their size is bounded.
                for name in log_names(kind) {
                    let _ = host.dir.log(name).and_then(fs::remove_file);
                }
                Ok(Server::new(recipe(kind, &host)?, Arc::clone(&host)))
            })
            .collect::<Result<Vec<_>, StartError>>()?;
        let mut set = Servers { urls: Urls::default(), servers, host };
        set.start_all()?;
        set.urls = set.find_urls()?;
        set.host.dir.publish(&set.urls).trying(|| "write the file of urls".to_owned())?;
        Ok(set)
    }

    fn with(mut self, kind: ServerKind) -> Self {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
        self
    }
}

fn log_names(kind: ServerKind) -> &'static [&'static str] {
    match kind {
        ServerKind::Redis => &["redis"],
        ServerKind::RedisCluster => &["redis-cluster"],
        ServerKind::MySql => &["mysql"],
        ServerKind::RabbitMq => &["rabbitmq", "epmd"],
    }
}

fn recipe(kind: ServerKind, host: &Host) -> Result<Box<dyn Recipe>, StartError> {
    // The check has found every program; if one vanishes before this line, the start names it.
    Ok(match kind {
        ServerKind::Redis | ServerKind::RedisCluster => Box::new(redis::Redis {
            program: programs::find_redis().unwrap_or_else(PathBuf::from),
            cluster: kind == ServerKind::RedisCluster,
        }),
        ServerKind::MySql => {
            let program = programs::find_mysql().unwrap_or_else(PathBuf::from);
            let mysql = mysql::Passwords::of(host)
                .and_then(|passwords| mysql::MySql::new(program, passwords));
            Box::new(mysql.trying(|| "configure MySQL".to_owned())?)
        }
        ServerKind::RabbitMq => Box::new(rabbitmq::RabbitMq {
            program: programs::find_rabbitmq().unwrap_or_else(PathBuf::from),
            epmd: programs::find_epmd().unwrap_or_else(PathBuf::from),
            password: rabbitmq_password(host)?,
        }),
    })
}

fn rabbitmq_password(host: &Host) -> Result<String, StartError> {
    host.dir.secret("rabbitmq-user").trying(|| "make a password for RabbitMQ".to_owned())
}

/// Running servers. Dropping this value stops them within a few seconds and keeps their data.
#[derive(Debug)]
pub struct Servers {
    urls: Urls,
    servers: Vec<Server>,
    host: Arc<Host>,
}

impl Servers {
    /// Servers whose data, logs, ports and passwords are kept in `dir`, which is made if needed.
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder { dir: dir.as_ref().to_path_buf(), kinds: Vec::new(), limit: START_LIMIT }
    }

    /// The urls of servers that another process, still alive, has started in `dir`.
    ///
    /// `None` when there is no such process or when not all of its servers are ready yet.
    #[must_use]
    pub fn attach(dir: impl AsRef<Path>) -> Option<Urls> {
        dir::published(dir.as_ref())
    }

    /// All the urls.
    #[must_use]
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// See [`Urls::redis`].
    #[must_use]
    pub fn redis_url(&self) -> Option<String> {
        self.urls.redis.clone()
    }

    /// See [`Urls::redis_cluster`].
    #[must_use]
    pub fn redis_cluster_url(&self) -> Option<String> {
        self.urls.redis_cluster.clone()
    }

    /// See [`Urls::mysql`].
    #[must_use]
    pub fn mysql_url(&self) -> Option<String> {
        self.urls.mysql.clone()
    }

    /// See [`Urls::mysql_admin`].
    #[must_use]
    pub fn mysql_admin_url(&self) -> Option<String> {
        self.urls.mysql_admin.clone()
    }

    /// See [`Urls::amqp`].
    #[must_use]
    pub fn amqp_url(&self) -> Option<String> {
        self.urls.amqp.clone()
    }

    /// Kills a server with SIGKILL, as a crash would. Its url stays the same for
    /// [`Servers::restart`].
    ///
    /// # Errors
    ///
    /// [`StartError::NotChosen`]; [`StartError::NotRunning`] when it was stopped before.
    pub fn stop_hard(&self, kind: ServerKind) -> Result<(), StartError> {
        self.server(kind)?.stop_hard()
    }

    /// Stops a server with SIGTERM if it runs, starts it on the same port with the same data, and
    /// waits until it answers.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`], also when another process has taken the port meanwhile.
    pub fn restart(&self, kind: ServerKind) -> Result<(), StartError> {
        self.server(kind)?.restart()
    }

    /// Stops a server with SIGSTOP: connections stay open, nothing answers.
    ///
    /// # Errors
    ///
    /// [`StartError::NotChosen`], [`StartError::NotRunning`].
    pub fn pause(&self, kind: ServerKind) -> Result<(), StartError> {
        self.server(kind)?.signal(Signal::STOP)
    }

    /// Continues a paused server with SIGCONT.
    ///
    /// # Errors
    ///
    /// [`StartError::NotChosen`], [`StartError::NotRunning`].
    pub fn resume(&self, kind: ServerKind) -> Result<(), StartError> {
        self.server(kind)?.signal(Signal::CONT)
    }

    fn server(&self, kind: ServerKind) -> Result<&Server, StartError> {
        self.servers
            .iter()
            .find(|server| server.kind() == kind)
            .ok_or(StartError::NotChosen { kind })
    }

    fn start_all(&self) -> Result<(), StartError> {
        let mut errors: Vec<StartError> = thread::scope(|scope| {
            let starts: Vec<_> = self
                .servers
                .iter()
                .map(|server| {
                    scope.spawn(|| {
                        server.start().inspect_err(|_| {
                            self.host.abandoned.store(true, Ordering::Relaxed);
                        })
                    })
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().expect("starting a server does not panic"))
                .filter_map(Result::err)
                .collect()
        });
        errors.sort_by_key(|error| matches!(error, StartError::Abandoned { .. }));
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    fn find_urls(&self) -> Result<Urls, StartError> {
        let mut urls = Urls::default();
        for server in &self.servers {
            let kind = server.kind();
            let port = server.port().ok_or(StartError::NotRunning { kind })?;
            match kind {
                ServerKind::Redis => urls.redis = Some(format!("redis://127.0.0.1:{port}")),
                ServerKind::RedisCluster => {
                    urls.redis_cluster = Some(format!("redis+cluster://127.0.0.1:{port}"));
                }
                ServerKind::MySql => {
                    let mysql::Passwords { user, admin } = mysql::Passwords::of(&self.host)
                        .trying(|| "read the passwords of MySQL".to_owned())?;
                    let at = |name, password| format!("mysql://{name}:{password}@127.0.0.1:{port}");
                    urls.mysql = Some(at(mysql::USER, user) + "/" + mysql::DATABASE);
                    urls.mysql_admin = Some(at(mysql::ADMIN, admin));
                }
                ServerKind::RabbitMq => {
                    let (user, password) = (rabbitmq::USER, rabbitmq_password(&self.host)?);
                    urls.amqp = Some(format!("amqp://{user}:{password}@127.0.0.1:{port}/%2f"));
                }
            }
        }
        Ok(urls)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.host.dir.unpublish();
        thread::scope(|scope| {
            for server in &self.servers {
                scope.spawn(|| server.stop());
            }
        });
    }
}

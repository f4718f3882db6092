//! The backend of a command: opened as configured, and closed when the command ends.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::Context as _;
use flashsale::{
    app::App,
    config::{CaptchaMode, Config, PhoneVerification, ServersMode},
    private_files, wire,
};
use flashsale_servers::Servers;

/// A file in the private servers' directory with the environment of functions, for
/// `cargo lambda watch --env-file`.
const ENVIRONMENT_FILE: &str = "functions.env";

/// An app and the private servers that must live as long as it.
pub struct Backend {
    pub app: App,
    /// Private servers started by this process. Dropped last.
    servers: Option<Servers>,
}

impl Backend {
    /// Opens the backend.
    pub async fn open(mut config: Config) -> anyhow::Result<Self> {
        if config.captcha == CaptchaMode::Off {
            tracing::warn!("captchas are off: robots can buy");
        }
        if config.phone_verification == PhoneVerification::Log {
            tracing::warn!(
                "phone codes are written to this log: who reads it can take over accounts"
            );
        }
        let servers = servers(&mut config).await?;
        if config.servers != ServersMode::Embedded {
            wire::migrate(&config).await?;
        }
        let ports = wire::connect(&config).await?;
        let app = App::new(config, ports)?;
        app.load_signing_keys().await.context("signing keys")?;
        // Logs a difference between the clocks. It is checked again whenever the process wants to
        // lead.
        if let Err(error) = app.clock_fault().await {
            tracing::warn!(%error, "the ledger's clock");
        }
        Ok(Self { app, servers })
    }

    /// Stops the private servers, if this process runs any.
    pub async fn close(self) {
        let Self { app, servers } = self;
        if servers.is_some() {
            // The file names servers that are about to stop. It may not exist.
            let _ = fs::remove_file(app.config.data_dir.join("servers").join(ENVIRONMENT_FILE));
        }
        drop(app);
        stop(servers).await;
    }
}

/// With `--servers local`: makes the configuration use the private servers of the data directory.
/// Returns servers that this process had to start, for [`stop`].
pub async fn servers(config: &mut Config) -> anyhow::Result<Option<Servers>> {
    if config.servers == ServersMode::Local { local(config).await } else { Ok(None) }
}

/// Stops private servers, if there are any.
pub async fn stop(servers: Option<Servers>) {
    if let Some(servers) = servers {
        // Dropping blocks until the servers' processes have ended.
        let stopped = tokio::task::spawn_blocking(move || drop(servers)).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the private servers were not stopped cleanly");
        }
    }
}

/// Uses the private servers that another process runs in the data directory, or starts them.
async fn local(config: &mut Config) -> anyhow::Result<Option<Servers>> {
    let dir = config.data_dir.join("servers");
    for path in [&config.data_dir, &dir] {
        private_files::directory(path, config.loose_files()).context("--data-dir")?;
    }
    let (urls, started) = match Servers::attach(&dir) {
        Some(urls) => (urls, None),
        None => {
            tracing::info!("starting private Redis, MySQL and RabbitMQ");
            let dir = dir.clone();
            let started =
                tokio::task::spawn_blocking(move || Servers::builder(dir).all().start()).await??;
            (started.urls().clone(), Some(started))
        }
    };
    let url = |url: Option<String>, which: &str| {
        url.with_context(|| format!("the private servers have no {which}"))
    };
    config.use_servers(
        url(urls.redis, "Redis")?,
        url(urls.mysql, "MySQL")?,
        url(urls.amqp, "RabbitMQ")?,
    );
    if started.is_some() {
        write_environment(config, &dir.join(ENVIRONMENT_FILE))
            .context("the file with the environment of functions")?;
    }
    Ok(started)
}

/// Only its owner may read the file: it contains the servers' passwords.
fn write_environment(config: &Config, path: &Path) -> std::io::Result<()> {
    // A file of an earlier run may be readable by others.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    for (name, value) in config.environment_for_functions() {
        writeln!(file, "{name}={value}")?;
    }
    file.flush()
}

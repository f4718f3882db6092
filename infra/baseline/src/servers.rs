//! Private servers for the baselines and the product of one run.

use std::{io::Read as _, path::PathBuf};

use anyhow::Context as _;
use flashsale_servers::Servers;

/// Prints the addresses, one `NAME=URL` per line, and stops the servers when standard input ends.
pub async fn hold(dir: &std::path::Path) -> anyhow::Result<()> {
    let dir = PathBuf::from(dir);
    let held = tokio::task::spawn_blocking(move || {
        let servers = Servers::builder(dir).all().start()?;
        let urls = servers.urls().clone();
        for (name, url) in [("redis", urls.redis), ("mysql", urls.mysql), ("amqp", urls.amqp)] {
            crate::say(&format!("{name}={}", url.context(name)?))?;
        }
        std::io::stdin().read_to_end(&mut Vec::new())?;
        anyhow::Ok(())
    });
    held.await?
}

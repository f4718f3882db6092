//! `invoke`: calls one function once with an event in Lambda's format, and prints its answer as
//! Lambda returns it.

use std::{io::Read as _, process::ExitCode};

use anyhow::Context as _;
use flashsale::app::App;
use tokio::sync::watch;

use crate::{
    cli,
    host::Host,
    lambda::{Invocation, Refusal, function_names},
    metrics::Oldest,
    opening, poller,
};

pub async fn run(app: &App, function: &str, file: &str) -> anyhow::Result<ExitCode> {
    let payload = read(file)?.into();
    let host = Host::start(app, Some(function))?;
    open_admission(app, &host).await?;
    let outcome = host.invoke(function, Invocation { payload, ..Invocation::default() }).await;
    host.stop().await;
    let reply = match outcome {
        Ok(reply) => reply,
        Err(Refusal::NoSuchFunction) => {
            let known: Vec<&str> = function_names().collect();
            anyhow::bail!(
                "no function {function:?}: expected one of {}, or one of the configuration",
                known.join(", ")
            )
        }
        Err(refusal) => anyhow::bail!("the function was not called: {refusal}"),
    };
    match reply.result {
        Ok(answer) => {
            cli::say(&String::from_utf8_lossy(&answer))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            cli::say(&String::from_utf8_lossy(&error.payload))?;
            cli::complain(&format!("the function failed: {}", error.brief()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prepares the embedded admission store, so that the function finds it as in a running emulator.
async fn open_admission(app: &App, host: &Host) -> anyhow::Result<()> {
    if app.open_admission().await? > 0 {
        let (stop, stopping) = watch::channel(false);
        let polling = tokio::spawn(poller::run(host.clone(), Oldest::default(), stopping));
        opening::wait(app).await;
        stop.send_replace(true);
        polling.await?;
    }
    Ok(())
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("--event -")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("--event {file}"))
}

//! Every flashsale function on one machine: a gateway in front of the HTTP functions, a poller
//! between the order queue and the order worker, and a scheduler for the sweeper. The functions run
//! in this process, or as processes of their own.

mod backend;
mod cli;
mod commands;
mod connections;
mod demo;
#[cfg(test)]
mod documents;
mod draining;
mod gateway;
mod health;
mod host;
mod invoke_api;
mod lambda;
mod live;
mod loopback;
mod metrics;
mod openapi;
mod opening;
mod pages;
mod poller;
mod refusals;
mod reporter;
mod request_counters;
mod requests;
mod scheduler;
mod serve;
mod supervisor;
mod traces;

use std::process::ExitCode;

/// With thousands of connections the system's allocator takes a third of a request's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(
                &anyhow::Error::new(error).context("the asynchronous runtime can't start"),
            );
        }
    };
    let outcome = runtime.block_on(commands::run(arguments));
    // Blocking work (a password being hashed) must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    cli::complain(&format!("error: {error:#}"));
    ExitCode::from(2)
}

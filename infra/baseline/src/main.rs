//! What `infra/bench` compares the product with. Each subcommand does one job of the product with the same libraries and
//! nothing around them: no sessions, no limits, no batches.

mod commits;
mod confirms;
mod evalsha;
mod hello;
mod servers;

use std::{env, io::Write as _};

const USAGE: &str = "usage:
  flashsale-baseline hello ADDRESS                   answers every request with a constant
  flashsale-baseline evalsha ADDRESS REDIS_URL       runs one script in Redis for every request
  flashsale-baseline confirms AMQP_URL SECONDS IN_FLIGHT
                                                     single confirmed publishes to a quorum queue, per second
  flashsale-baseline commits DIR SECONDS             single synced SQLite commits in this directory, per second
  flashsale-baseline servers DIR                     private Redis, MySQL and RabbitMQ until standard input ends";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["hello", address] => hello::serve(address).await,
        ["evalsha", address, redis] => evalsha::serve(address, redis).await,
        ["confirms", amqp, seconds, in_flight] => {
            say(&confirms::rate(amqp, seconds.parse()?, in_flight.parse()?).await?.to_string())
        }
        ["commits", dir, seconds] => {
            say(&commits::rate(dir.as_ref(), seconds.parse()?).await?.to_string())
        }
        ["servers", dir] => servers::hold(dir.as_ref()).await,
        _ => anyhow::bail!(USAGE),
    }
}

/// Prints a line for the caller, who may be reading from a pipe.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

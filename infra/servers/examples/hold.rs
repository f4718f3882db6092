//! Runs all the servers in a directory until standard input ends:
//! `cargo run --example hold -- DIR`.

#![expect(clippy::print_stdout, reason = "an example for people at a terminal")]

use std::io::Read;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: hold DIR")?;
    let begin = Instant::now();
    let servers = flashsale_servers::Servers::builder(dir).all().start()?;
    println!("ready after {:.2?}: {:#?}", begin.elapsed(), servers.urls());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let begin = Instant::now();
    drop(servers);
    println!("stopped after {:.2?}", begin.elapsed());
    Ok(())
}

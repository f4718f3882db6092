//! Plays one sale, as `infra/load/sale.js` does under k6, with a fraction of k6's processor time:
//! for loads at which k6 itself is what limits a machine that also runs the product.
//!
//! The plan is the same: a shopper has its own connection, arrives, counts down on the server's
//! clock, presses within a second, retries as API.md asks, and follows its order. All moments of
//! arriving and pressing are fixed before the first request, and latencies are measured from the
//! planned press, so a late press counts as waiting. Each shopper writes one line of JSON, which
//! `infra/load/report.py` describes. One thread does it all, so that the product keeps the rest.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, Instant, sleep, sleep_until, timeout},
};

/// The last shopper arrives this long before the opening.
const QUIET: Duration = Duration::from_secs(2);
/// A shopper who has no answer this long after pressing gives up.
const PATIENCE_MS: f64 = 60_000.0;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Plays one sale and writes what each shopper saw.
#[derive(Parser)]
struct Flags {
    /// Addresses of the instances, as http://HOST:PORT, separated by commas; shoppers take turns
    #[arg(long, value_delimiter = ',', required = true)]
    bases: Vec<String>,
    /// The sale's id; it must open later than all shoppers can arrive
    #[arg(long)]
    sale: String,
    /// CSV of `local-emulator users seed`
    #[arg(long)]
    users: PathBuf,
    /// How many shoppers play
    #[arg(long)]
    shoppers: usize,
    /// They press within this time after the opening
    #[arg(long, default_value_t = 1000.0)]
    window_ms: f64,
    /// File for one line of JSON per shopper
    #[arg(long)]
    out: PathBuf,
}

/// What one shopper did and saw; times are milliseconds since the opening.
#[derive(Default, Serialize)]
struct Record {
    shopper: usize,
    pressed_ms: f64,
    final_ms: Option<f64>,
    outcome: Option<String>,
    order_id: Option<String>,
    status: Option<String>,
    seen_ms: Option<f64>,
    recorded_ms: Option<f64>,
    /// Request, time of the answer, status (0: none), and the problem's slug or the status again.
    answers: Vec<(&'static str, f64, u16, String)>,
}

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    json: Value,
    at: f64,
    label: String,
}

/// The times of a run: both clocks at the opening, which lies ahead.
struct Plan {
    opens: Instant,
    opens_unix_ms: f64,
    begun: Instant,
    arrivals: Duration,
    sale_path: String,
}

impl Plan {
    fn now(&self) -> f64 {
        let now = Instant::now();
        match now.checked_duration_since(self.opens) {
            Some(after) => after.as_secs_f64() * 1000.0,
            None => -(self.opens - now).as_secs_f64() * 1000.0,
        }
    }
}

/// A kept-alive connection, opened when it is needed.
struct Connection {
    host: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(base: &str) -> Result<Self> {
        let host = base.strip_prefix("http://").context("a base is not http://HOST:PORT")?;
        Ok(Self { host: host.trim_end_matches('/').to_owned(), stream: None, buffer: Vec::new() })
    }

    async fn request(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> Result<(u16, Option<u64>, Value)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.host).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let (head, length) = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?;
                let length = header(head, "content-length").context("no content-length")?;
                break (end + 4, length.parse::<usize>()?);
            }
            self.read(&mut stream).await?;
        };
        while self.buffer.len() < head + length {
            self.read(&mut stream).await?;
        }
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status =
            text.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let retry_after = header(text, "retry-after").and_then(|seconds| seconds.parse().ok());
        let json = serde_json::from_slice(&self.buffer[head..head + length]).unwrap_or_default();
        if header(text, "connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok((status, retry_after, json))
    }

    async fn read(&mut self, stream: &mut TcpStream) -> Result<()> {
        ensure!(self.buffer.len() < ANSWER_BYTES_MAX, "the answer is too long");
        ensure!(stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then(|| value.trim()))
}

/// A number from 0 to 1 that depends on the shopper alone (mulberry32); `sale.js` computes the same.
fn chance(shopper: u32) -> f64 {
    let t = (shopper + 1).wrapping_mul(0x6d2b_79f5);
    let mut t = (t ^ (t >> 15)).wrapping_mul(t | 1);
    t ^= t.wrapping_add((t ^ (t >> 7)).wrapping_mul(t | 61));
    f64::from(t ^ (t >> 14)) / 4_294_967_296.0
}

struct Shopper {
    plan: Arc<Plan>,
    connection: Connection,
    token: String,
    record: Record,
}

impl Shopper {
    async fn play(mut self, arrives: Instant) -> Record {
        let sale_path = self.plan.sale_path.clone();
        sleep_until(arrives).await;
        self.ask("page", "GET", &sale_path, "").await;
        let press = Duration::from_secs_f64(self.record.pressed_ms / 1000.0);
        sleep_until(self.plan.opens + press).await;
        self.buy(&sale_path).await;
        self.record
    }

    async fn buy(&mut self, sale_path: &str) {
        let tickets = format!("{sale_path}/tickets");
        let mut ticket = self.ask("ticket", "POST", &tickets, "").await;
        while ticket.label == "sale-not-open" && self.patient(&ticket) {
            sleep(Duration::from_millis(100)).await;
            ticket = self.ask("ticket", "POST", &tickets, "").await;
        }
        self.record.final_ms = Some(ticket.at);
        self.record.outcome = Some(ticket.label);
        if ticket.status != 201 {
            return;
        }
        let body = serde_json::json!({ "ticket": ticket.json["ticket"] }).to_string();
        let order = self.ask("order", "POST", &format!("{sale_path}/orders"), &body).await;
        self.record.final_ms = Some(order.at);
        if order.status != 202 {
            self.record.outcome = Some(order.label);
            return;
        }
        self.record.outcome = Some("ordered".to_owned());
        let id = order.json["order_id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/api/orders/{id}");
        self.record.order_id = Some(id);
        loop {
            let seen = self.ask("order-status", "GET", &path, "").await;
            let status = seen.json["status"].as_str().unwrap_or(&seen.label).to_owned();
            let queued = status == "queued";
            if status == "confirmed" {
                self.record.recorded_ms =
                    unix_ms(&seen.json["updated_at"]).map(|at| at + 1.0 - self.plan.opens_unix_ms);
            }
            self.record.status = Some(status);
            if !queued {
                self.record.seen_ms = Some(seen.at);
                return;
            }
            if !self.patient(&seen) {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn patient(&self, answer: &Answer) -> bool {
        answer.at <= self.record.pressed_ms + PATIENCE_MS
    }

    /// One request, repeated after a timeout, a lost connection, 429 and 503, as API.md says.
    async fn ask(&mut self, what: &'static str, method: &str, path: &str, body: &str) -> Answer {
        loop {
            let request = self.connection.request(method, path, &self.token, body);
            let (status, retry_after, json) = match timeout(REQUEST_TIMEOUT, request).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => (0, None, Value::Null),
            };
            let slug = json["type"].as_str().and_then(|slug| slug.strip_prefix("/problems/"));
            let label = match slug {
                _ if status == 0 => "no-answer".to_owned(),
                Some(slug) if status >= 400 => slug.to_owned(),
                _ => status.to_string(),
            };
            let at = self.plan.now();
            self.record.answers.push((what, at, status, label.clone()));
            let answer = Answer { status, retry_after, json, at, label };
            if !matches!(status, 0 | 429 | 503) || !self.patient(&answer) {
                return answer;
            }
            sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await;
        }
    }
}

fn unix_ms(time: &Value) -> Option<f64> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "today's milliseconds fit into 53 bits")]
    Some(time.as_millisecond() as f64)
}

/// Reads the sale's page and computes when it opens on this machine's clocks.
async fn plan(flags: &Flags) -> Result<Plan> {
    let sale_path = format!("/api/sales/{}", flags.sale);
    let mut connection = Connection::new(&flags.bases[0])?;
    // The first request opens the connection, the second is measured.
    connection.request("GET", &sale_path, "", "").await.context(flags.bases[0].clone())?;
    let sent = Instant::now();
    let (status, _, sale) = connection.request("GET", &sale_path, "", "").await?;
    ensure!(status == 200, "the sale's page answers {status}");
    let begun = Instant::now();
    let opens_unix_ms = unix_ms(&sale["starts_at"]).context("the page has no starts_at")?;
    let server_time = unix_ms(&sale["server_time"]).context("the page has no server_time")?;
    // The server rounds its time down: half a millisecond later on average.
    let ahead = (opens_unix_ms - server_time - 0.5).max(0.0) / 1000.0;
    let opens = sent + (begun - sent) / 2 + Duration::from_secs_f64(ahead);
    let arrivals = opens.saturating_duration_since(begun).saturating_sub(QUIET);
    if arrivals.as_millis() < u128::try_from(flags.shoppers)? {
        bail!(
            "only {} ms are left for {} shoppers to arrive before the sale opens",
            arrivals.as_millis(),
            flags.shoppers
        );
    }
    Ok(Plan { opens, opens_unix_ms, begun, arrivals, sale_path })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let users =
        std::fs::read_to_string(&flags.users).with_context(|| flags.users.display().to_string())?;
    let tokens: Vec<&str> =
        users.lines().skip(1).filter_map(|line| line.split(',').nth(2)).collect();
    ensure!(
        tokens.len() >= flags.shoppers,
        "{} has {} users, {} shoppers need one each",
        flags.users.display(),
        tokens.len(),
        flags.shoppers
    );
    let out = File::create(&flags.out).with_context(|| flags.out.display().to_string())?;
    let mut out = BufWriter::new(out);
    let plan = Arc::new(plan(&flags).await?);
    let mut tasks = Vec::with_capacity(flags.shoppers);
    for (number, token) in tokens.into_iter().take(flags.shoppers).enumerate() {
        let index = u32::try_from(number)?;
        let shopper = Shopper {
            plan: Arc::clone(&plan),
            connection: Connection::new(&flags.bases[number % flags.bases.len()])?,
            token: token.to_owned(),
            record: Record {
                shopper: number,
                pressed_ms: chance(index) * flags.window_ms,
                ..Record::default()
            },
        };
        let share = f64::from(index) / f64::from(u32::try_from(flags.shoppers)?);
        tasks.push(tokio::spawn(shopper.play(plan.begun + plan.arrivals.mul_f64(share))));
    }
    for task in tasks {
        serde_json::to_writer(&mut out, &task.await?)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

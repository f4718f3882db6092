//! The command line.

mod duration;

use std::io::Write as _;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flashsale::config::{Config, ConfigError};

use duration::parse_duration_ms;

/// Runs flash sales: every function, on one machine.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = false, propagate_version = true)]
#[command(
    after_help = "Every flag that is a setting can also be given as FLASHSALE_<NAME>; `config` shows all settings."
)]
pub struct Arguments {
    #[command(flatten)]
    pub backend: BackendFlags,
    #[command(flatten)]
    pub serve: ServeFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where the state is, and how strict to be; the same for every command.
#[derive(Debug, Clone, Args)]
pub struct BackendFlags {
    /// A file with settings [env: FLASHSALE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<String>,
    /// Embedded state [env: FLASHSALE_DATA_DIR] [default: .flashsale]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Which servers hold the state [env: FLASHSALE_SERVERS] [default: embedded]
    #[arg(long, global = true, value_enum)]
    pub servers: Option<ServersWord>,
    /// redis://, rediss://, redis+cluster:// or redis+sentinel:// [env: FLASHSALE_REDIS_URL, which
    /// keeps a password out of `ps`]
    #[arg(long, global = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// mysql:// [env: FLASHSALE_DATABASE_URL, likewise]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// amqp:// or amqps:// [env: FLASHSALE_AMQP_URL, likewise]
    #[arg(long, global = true, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// Captchas [env: FLASHSALE_CAPTCHA] [default: image]
    #[arg(long, global = true, value_enum)]
    pub captcha: Option<CaptchaWord>,
    /// `production` refuses weak settings [env: FLASHSALE_PROFILE] [default: development]
    #[arg(long, global = true, value_enum)]
    pub profile: Option<ProfileWord>,
}

/// Only for `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeFlags {
    /// Where the gateway listens; port 0 picks one [env: FLASHSALE_LISTEN] [default:
    /// 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Where metrics and health are served [env: FLASHSALE_ADMIN_LISTEN] [default: nowhere]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// Where Lambda's Invoke API is served, a loopback address; not in production [env:
    /// FLASHSALE_INVOKE_LISTEN] [default: nowhere]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub invoke_listen: Option<String>,
    /// How the functions are run [env: FLASHSALE_HOST] [default: in-process]
    #[arg(long, global = true, value_enum)]
    pub host: Option<HostWord>,
    /// With `--host processes`: where their binaries are [env: FLASHSALE_FUNCTIONS_DIR] [default:
    /// beside this one]
    #[arg(long, global = true, value_name = "DIR")]
    pub functions_dir: Option<String>,
    /// Make a demo sale, a demo shopper and an administrator, and print how to sign in [default:
    /// when embedded and empty]
    #[arg(long, global = true, overrides_with = "no_demo", env = "FLASHSALE_DEMO", value_parser = clap::builder::FalseyValueParser::new())]
    pub demo: bool,
    /// Start empty
    #[arg(long, global = true, env = "FLASHSALE_NO_DEMO", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_demo: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ServersWord {
    /// SQLite and memory; no server needed
    Embedded,
    /// Private servers, started from the programs on PATH
    Local,
    /// Those at --redis-url, --database-url and --amqp-url
    External,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CaptchaWord {
    /// Letters, drawn and spoken
    Image,
    /// A proof of work, which the browser does by itself
    Work,
    /// The widget of Turnstile, hCaptcha or reCAPTCHA; see [captchas.provider] of the configuration
    Provider,
    /// None: lets robots in
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ProfileWord {
    Development,
    Production,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum HostWord {
    /// All functions in this process
    InProcess,
    /// Each as a process of its own, over the Lambda Runtime API
    Processes,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve (the default)
    Serve,
    /// Check that the books balance: exit 0 when they do, 1 with each broken promise when not
    Audit {
        /// Read again for up to this long while an order is still on its way or a store does not
        /// answer
        #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = parse_duration_ms)]
        within: u64,
    },
    /// Shoppers for load tests
    #[command(subcommand)]
    Users(UsersCommand),
    /// Sales
    #[command(subcommand)]
    Sales(SalesCommand),
    /// Run one function once, with an event of Lambda's
    Invoke {
        /// captcha, login, sales, seckill, waiting-room, order-status, admin, order-worker, sweeper,
        /// or one of the configuration
        function: String,
        /// The event, JSON; `-` for standard input
        #[arg(long, value_name = "FILE")]
        event: String,
    },
    /// Bring the schema of the ledger up to date and say what was done. Instances do the same when
    /// they start
    Migrate {
        /// Change nothing: exit 0 when this release can work on the schema as it is, 1 with what is
        /// pending when not
        #[arg(long)]
        check: bool,
    },
    /// Print the effective configuration, secrets masked
    Config,
    /// Ask a running emulator whether it is ready: exit 0 when it is, 1 when it is not or does not
    /// answer
    Health {
        /// Where it listens, for the gateway or for metrics and health [default: --admin-listen if
        /// set, else --listen]
        #[arg(value_name = "ADDRESS:PORT")]
        address: Option<String>,
        /// How long the answer may take
        #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = parse_duration_ms)]
        timeout: u64,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum UsersCommand {
    /// Make shoppers that are signed in, and write `user_id,phone,token` as CSV
    Seed {
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
        #[arg(long, value_name = "FILE.csv")]
        out: std::path::PathBuf,
    },
    /// Make an administrator; the password is read from standard input
    AddAdmin {
        /// In any usual notation, with country code
        #[arg(long)]
        phone: String,
    },
    /// Make an administrator a shopper and end all of the user's sessions
    Demote {
        /// In any usual notation, with country code
        #[arg(long)]
        phone: String,
    },
    /// Set a user's password, read from standard input, and end all of the user's sessions
    SetPassword {
        /// In any usual notation, with country code
        #[arg(long)]
        phone: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum SalesCommand {
    /// Make a sale and print it as one JSON object
    Create {
        #[arg(long)]
        title: String,
        #[arg(long)]
        stock: u32,
        /// In minor units (cents)
        #[arg(long)]
        price: i64,
        /// ISO 4217
        #[arg(long, default_value = "USD")]
        currency: String,
        #[arg(long, default_value_t = 1)]
        per_user_limit: u32,
        #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = parse_duration_ms)]
        starts_in: u64,
        #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = parse_duration_ms)]
        ends_in: u64,
        /// Who gets the units: the first who order, or users who enter and are drawn
        #[arg(long, value_enum, default_value = "first-come")]
        allocation: AllocationWord,
        /// When entries for a draw open
        #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = parse_duration_ms)]
        entries_open_in: u64,
        /// How long an invitation to buy lasts in a draw [default: 120]
        #[arg(long, value_name = "SECONDS")]
        invite_seconds: Option<u32>,
        /// Only users who registered before this may take part, RFC 3339
        #[arg(long, value_name = "TIME")]
        eligible_registered_before: Option<flashsale::domain::Timestamp>,
        /// Active orders that may be placed from one network (IPv4 /24, IPv6 /48) [default: any
        /// number]
        #[arg(long, value_name = "UNITS")]
        units_per_prefix: Option<u32>,
    },
    /// Write the entries of a sale by draw as CSV: `user_id,arrival,invited_as`
    ExportEntries {
        #[arg(long, value_name = "SALE_ID")]
        sale: flashsale::domain::SaleId,
        #[arg(long, value_name = "FILE.csv")]
        out: std::path::PathBuf,
    },
    /// Recompute the places of a draw from exported entries and the revealed seed: exit 0 when
    /// everybody was invited in turn, 1 with each user who was not. Needs no store
    VerifyDraw {
        #[arg(long, value_name = "SALE_ID")]
        sale: flashsale::domain::SaleId,
        /// As `export-entries` wrote it
        #[arg(long, value_name = "FILE.csv")]
        entries: std::path::PathBuf,
        /// The seed, 64 hexadecimal digits
        #[arg(long)]
        seed: flashsale::domain::Seed,
        /// The hash of the seed that was published before the first entry
        #[arg(long)]
        seed_hash: flashsale::domain::SeedHash,
        /// The value of the sale's beacon, if it named one
        #[arg(long)]
        beacon_value: Option<String>,
        /// Write `place,user_id,score` here
        #[arg(long, value_name = "FILE.csv")]
        out: Option<std::path::PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AllocationWord {
    FirstCome,
    Draw,
}

impl Arguments {
    /// The configuration that the flags, the environment and the file make together.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let flags = [
            ("data_dir", self.backend.data_dir.clone()),
            ("servers", self.backend.servers.map(name)),
            ("redis_url", self.backend.redis_url.clone()),
            ("database_url", self.backend.database_url.clone()),
            ("amqp_url", self.backend.amqp_url.clone()),
            ("captcha", self.backend.captcha.map(name)),
            ("profile", self.backend.profile.map(name)),
            ("listen", self.serve.listen.clone()),
            ("admin_listen", self.serve.admin_listen.clone()),
            ("invoke_listen", self.serve.invoke_listen.clone()),
            ("host", self.serve.host.map(name)),
            ("functions_dir", self.serve.functions_dir.clone()),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        Config::load(self.backend.config.as_deref(), Config::environment(), given)
    }
}

impl BackendFlags {
    /// The flags whose values show a password in this machine's list of processes.
    pub fn with_passwords(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("--redis-url", &self.redis_url),
            ("--database-url", &self.database_url),
            ("--amqp-url", &self.amqp_url),
        ];
        flags
            .into_iter()
            .filter(|(_, url)| url.as_deref().is_some_and(has_password))
            .map(|(flag, _)| flag)
    }
}

/// Whether something stands between `:` and `@` of an address.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

fn name<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Prints a line for the caller.
pub fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Prints a line for people.
pub fn complain(line: &str) {
    // If standard error is closed, there is nowhere to report that.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        let parsed = Arguments::try_parse_from([
            "x",
            "users",
            "seed",
            "--count",
            "5",
            "--out",
            "f",
            "--servers",
            "external",
        ])
        .unwrap();
        assert!(matches!(parsed.backend.servers, Some(ServersWord::External)));
    }

    #[test]
    fn passwords_on_the_command_line_are_noticed() {
        let noticed = |arguments: &[&str]| {
            let parsed = Arguments::try_parse_from(["x"].iter().chain(arguments)).unwrap();
            parsed.backend.with_passwords().collect::<Vec<_>>()
        };
        assert_eq!(
            noticed(&["--redis-url", "redis://:geheim@h", "--amqp-url", "amqp://u:geheim@h:1/v"]),
            ["--redis-url", "--amqp-url"]
        );
        assert_eq!(
            noticed(&[
                "--redis-url",
                "redis://h:1",
                "--database-url",
                "mysql://u@h/d",
                "--amqp-url",
                "amqp://u:@h"
            ]),
            [""; 0]
        );
    }
}

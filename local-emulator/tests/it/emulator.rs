//! Starts the emulator's binary, stops it gracefully or with SIGKILL, and runs its other commands.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use flashsale::testing::{self, FakeProvider, PROVIDER_HOSTNAME, PROVIDER_SECRET};
use flashsale_servers::Servers;
use serde_json::Value;

use crate::client::Client;

const BINARY: &str = env!("CARGO_BIN_EXE_local-emulator");

/// The state of one test: its own directory, and the addresses of real servers if it uses any.
pub struct Place {
    dir: PathBuf,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    /// The file for the emulators' logs; without it they go into the log of the tests.
    log: Option<PathBuf>,
    /// `ulimit -n` of emulators: the soft and the hard limit.
    descriptors: Option<(u32, u32)>,
    pub servers: Option<Servers>,
    /// Whether to audit the books at the end of the test.
    audited: bool,
}

impl Place {
    /// Embedded state in a new directory.
    pub fn embedded() -> Self {
        let dir = std::env::temp_dir().join(format!("fs-it-{}", testing::order_id()));
        std::fs::create_dir_all(&dir).unwrap();
        let flags = vec![
            "--data-dir".to_owned(),
            dir.join("data").display().to_string(),
            "--captcha".to_owned(),
            "off".to_owned(),
        ];
        // Many shoppers share the address of the test machine.
        let env = [
            ("LIMITS__ADDRESS__LIMIT", "1000000"),
            ("LIMITS__ADDRESS__BURST", "1000000"),
            ("GATEWAY__CONNECTIONS_PER_ADDRESS_MAX", "1000000"),
            ("LOG", "error"),
        ]
        .map(|(name, value)| (format!("FLASHSALE_{name}"), value.to_owned()))
        .to_vec();
        Self { dir, flags, env, log: None, descriptors: None, servers: None, audited: true }
    }

    /// Private servers of this test alone, so that it may break them.
    pub fn servers() -> Self {
        let mut place = Self::embedded();
        let servers = Servers::builder(place.dir.join("servers"))
            .all()
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let url = |url: Option<String>| url.expect("all servers were asked for");
        place.flags.extend([
            "--servers".to_owned(),
            "external".to_owned(),
            "--redis-url".to_owned(),
            url(servers.redis_url()),
            "--database-url".to_owned(),
            url(servers.mysql_url()),
            "--amqp-url".to_owned(),
            url(servers.amqp_url()),
        ]);
        place.servers = Some(servers);
        place
    }

    /// Private servers, and the functions as processes of their own.
    pub fn processes() -> Self {
        assert!(
            Self::binaries().join("sweeper").is_file(),
            "the functions' binaries are missing: cargo build"
        );
        Self::servers().set("HOST", "processes")
    }

    /// Where cargo has put the emulator and the functions.
    pub fn binaries() -> &'static Path {
        Path::new(BINARY).parent().unwrap()
    }

    /// With a setting.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.push((format!("FLASHSALE_{name}"), value.to_owned()));
        self
    }

    /// With an environment variable that is not a setting.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a log of this level in a file, for the test to read.
    pub fn with_log(mut self, level: &str) -> Self {
        self.log = Some(self.dir.join("log"));
        self.set("LOG", level)
    }

    /// Limits the open files of emulators.
    pub fn with_descriptors(mut self, soft: u32, hard: u32) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// The file of the emulators' log, if it is one.
    pub fn log_file(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The emulators' log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.as_ref().expect("with_log")).unwrap()
    }

    /// With captchas of a kind.
    pub fn with_captchas_of(self, kind: &str) -> Self {
        self.with_captchas().set("CAPTCHA", kind)
    }

    /// With captchas of a provider.
    pub fn with_captcha_provider(self, provider: &FakeProvider) -> Self {
        let base = &provider.base;
        self.with_captchas_of("provider")
            .set("CAPTCHAS__PROVIDER__SITE_KEY", "site")
            .set("CAPTCHAS__PROVIDER__SECRET", PROVIDER_SECRET)
            .set("CAPTCHAS__PROVIDER__VERIFY_URL", &format!("{base}/siteverify"))
            .set("CAPTCHAS__PROVIDER__SCRIPT_URL", &format!("{base}/api.js"))
            .set("CAPTCHAS__PROVIDER__ORIGINS", base)
            .set("CAPTCHAS__PROVIDER__HOSTNAMES", PROVIDER_HOSTNAME)
    }

    /// With captchas, as by default.
    pub fn with_captchas(mut self) -> Self {
        self.flags.retain(|flag| flag != "--captcha" && flag != "off");
        self
    }

    /// Without the check of the books at the end, for a test that leaves them open.
    pub fn unaudited(mut self) -> Self {
        self.audited = false;
        self
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.descriptors {
            None => Command::new(BINARY),
            Some((soft, hard)) => {
                let mut command = Command::new("/bin/sh");
                let (soft, hard) = (soft.to_string(), hard.to_string());
                command.args([
                    "-c",
                    r#"ulimit -Sn "$0" && ulimit -Hn "$1" && shift && exec "$@""#,
                    &soft,
                    &hard,
                    BINARY,
                ]);
                command
            }
        };
        command
            .args(arguments)
            .args(&self.flags)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir);
        command
    }

    /// The variables that give a function the same configuration as the emulators here have.
    pub fn function_environment(&self) -> String {
        let mut lines: Vec<String> =
            self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for pair in self.flags.chunks(2) {
            lines.push(format!(
                "FLASHSALE_{}={}",
                pair[0].trim_start_matches("--").replace('-', "_").to_uppercase(),
                pair[1]
            ));
        }
        lines.join("\n") + "\n"
    }

    /// Starts an emulator on a port of its own.
    pub fn start(&self, more: &[&str]) -> Emulator {
        let mut arguments = vec!["--listen", "127.0.0.1:0"];
        arguments.extend(more);
        let mut command = self.command(&arguments);
        if let Some(log) = &self.log {
            command.stderr(std::fs::File::options().create(true).append(true).open(log).unwrap());
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let base = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("the emulator ended: {said:?}")).unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.to_owned();
            }
            said.push(line);
        };
        let invoke =
            said.iter().find_map(|line| line.strip_prefix("Invoke API on ")).map(Client::new);
        Emulator { child, client: Client::new(&base), invoke, said }
    }

    /// Runs another command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs another command to its end, with this text on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may exit without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs another command to its end, with a terminal as its standard error: what that shows.
    pub fn run_on_terminal(&self, arguments: &[&str]) -> String {
        use rustix::pty;
        use std::io::Read as _;
        let flags = pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY;
        let terminal = pty::openpt(flags).unwrap();
        pty::grantpt(&terminal).unwrap();
        pty::unlockpt(&terminal).unwrap();
        let name = pty::ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let stderr = std::fs::File::options().read(true).write(true).open(name).unwrap();
        let mut command = self.command(arguments);
        let mut child = command
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        // It has a copy of the terminal, and reading ends when the last one is closed.
        drop(command);
        let mut shown = Vec::new();
        // Linux reports that end as an error.
        let _ = std::fs::File::from(terminal).read_to_end(&mut shown);
        let status = child.wait().unwrap();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(status.success(), "{shown}");
        shown
    }

    #[track_caller]
    fn run_well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// `users seed`: the tokens.
    pub fn seed(&self, count: usize) -> Vec<String> {
        let file = self.dir.join(format!("users-{}.csv", testing::order_id()));
        let (count_text, path) = (count.to_string(), file.display().to_string());
        self.run_well(&["users", "seed", "--count", &count_text, "--out", &path]);
        let text = std::fs::read_to_string(file).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("user_id,phone,token"));
        let tokens: Vec<String> =
            lines.map(|line| line.rsplit_once(',').unwrap().1.to_owned()).collect();
        assert_eq!(tokens.len(), count);
        tokens
    }

    /// `sales create`: the sale's id.
    pub fn sale(&self, stock: u32) -> String {
        let stock = stock.to_string();
        let printed = self.run_well(&[
            "sales", "create", "--title", "Storm", "--stock", &stock, "--price", "1999",
        ]);
        let sale: Value = serde_json::from_str(&printed).unwrap();
        sale["sale_id"].as_str().unwrap().to_owned()
    }

    /// `audit`, with time for orders in progress to end. Panics if the books do not balance.
    #[track_caller]
    pub fn audit(&self) -> String {
        let output = self.run(&["audit", "--within", "40s"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The books must balance at the end of every test.
        if self.audited && !std::thread::panicking() {
            self.audit();
        }
        self.servers = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A running emulator.
pub struct Emulator {
    child: Child,
    pub client: Client,
    invoke: Option<Client>,
    /// Its output before it listened.
    pub said: Vec<String>,
}

impl Emulator {
    /// A client of the Invoke API.
    pub fn invoker(&self) -> &Client {
        self.invoke.as_ref().expect("started with --invoke-listen")
    }

    /// SIGTERM, without waiting for the end.
    pub fn terminate(&self) {
        signal(&self.child, "TERM");
    }

    /// SIGTERM. Panics unless it ends with 0 within 10 s.
    pub fn stop(self) -> Duration {
        self.terminate();
        self.ended()
    }

    /// Waits for the end. Panics unless it is with 0 within 10 s.
    pub fn ended(mut self) -> Duration {
        let started = Instant::now();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        took
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        open.filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        })
        .count()
    }

    /// Its soft and its hard limit of open files.
    pub fn descriptors(&self) -> (u32, u32) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u32::MAX));
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// The processes it has started, and their command lines.
    pub fn children(&self) -> HashMap<u64, String> {
        let own = u64::from(self.child.id());
        let mut found = HashMap::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name, in parentheses, may itself contain spaces and parentheses; the state and
            // the parent follow it.
            let parent =
                stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            if parent == Some(own) {
                found.insert(
                    pid,
                    std::fs::read_to_string(entry.path().join("cmdline"))
                        .unwrap_or_default()
                        .replace('\0', " "),
                );
            }
        }
        found
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Emulator {
    /// Stops the emulator gracefully. If it were killed between its writes to the ledger and the
    /// admission store, the books would balance only after its next start, but `Place` audits them
    /// without one.
    fn drop(&mut self) {
        if !std::thread::panicking() && matches!(self.child.try_wait(), Ok(None)) {
            signal(&self.child, "TERM");
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

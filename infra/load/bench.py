"""Measures the product beside baselines in turns within one run, and prints a table. `infra/bench` starts it.

Every measure runs its rounds as baseline, product, baseline, product, ... The emulator is started anew for every round, so
that two binaries (EMULATOR and BEFORE) never share the processors.
"""
import argparse
import contextlib
import itertools
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import results as figures
import tickets
from results import Measure

HERE = Path(__file__).parent
THREADS = 2
ADMIN = ("+12015550199", "correct horse battery")
# Small sales, one after the other, and the stock of large ones.
SMALL_STOCK, SMALL_SALES, LARGE_STOCK = 1_000, 20, 1_000_000
HELLO, EVALSHA = "hello", "EVALSHA"

MEASURES = {
    "embedded": [
        Measure("embedded.sold_out", "ticket refused, sold out, embedded, 64 connections", "/s", HELLO, at_least=0.75),
        Measure("embedded.page", "sale page, embedded, 64 connections", "/s", HELLO, at_least=0.75),
        Measure("embedded.ticket", "ticket issued, embedded, 64 connections", "/s", HELLO),
        Measure("embedded.orders", "durable orders, embedded, 64 connections", "/s", "single synced SQLite commits", at_least=20),
        Measure("embedded.size_stock", f"processor time per order, embedded, {SMALL_SALES} sales of {LARGE_STOCK:,} units", "µs", f"{SMALL_SALES} sales of {SMALL_STOCK:,}", at_most=1.1),
        Measure("embedded.size_sold", f"processor time per order, embedded, {SMALL_SALES * SMALL_STOCK:,} orders of one sale", "µs", f"{SMALL_STOCK:,} orders each of {SMALL_SALES} sales", at_most=1.1),
        Measure("embedded.order_memory", "memory per order, embedded", "bytes"),
        Measure("embedded.connection_memory", "memory per idle connection, 2,000 of them", "bytes"),
        Measure("embedded.idle_memory", "memory of an idle emulator, embedded", "MiB", below=64),
        Measure("embedded.ready", "from exec to the first 200 of /readyz, embedded", "ms", below=100),
    ],
    "local": [
        Measure("local.sold_out", "ticket refused, sold out, servers, 64 connections", "/s", HELLO, at_least=0.75),
        Measure("local.page", "sale page, servers, 64 connections", "/s", HELLO, at_least=0.75),
        Measure("local.ticket_64", "ticket issued, servers, 64 connections", "/s", EVALSHA, at_least=0.55),
        Measure("local.ticket_2000", "ticket issued, servers, 2,000 connections", "/s", EVALSHA, at_least=0.55),
        Measure("local.orders", "durable orders until they are rows, servers, 64 connections", "/s", "single confirms, 64 in flight", at_least=0.5),
        Measure("local.orders_processor", "processor time per durable order, emulator and servers", "µs"),
        Measure("local.size_stock", f"processor time per order, servers, {SMALL_SALES} sales of {LARGE_STOCK:,} units", "µs", f"{SMALL_SALES} sales of {SMALL_STOCK:,}", at_most=1.1),
        Measure("local.size_sold", f"processor time per order, servers, {SMALL_SALES * SMALL_STOCK:,} orders of one sale", "µs", f"{SMALL_STOCK:,} orders each of {SMALL_SALES} sales", at_most=1.1),
        Measure("local.order_memory", "memory per order, emulator, servers", "bytes"),
        Measure("local.order_redis", "memory per order, Redis", "bytes"),
        Measure("local.idle_memory", "memory of an idle emulator, servers", "MiB", below=64),
    ],
}


def environment():
    """One machine stands for many shoppers, and many orders stay unpaid."""
    many = {"LIMIT": "1000000", "BURST": "1000000"}
    settings = {
        "LOG": "error",
        "CAPTCHA": "off",
        "NO_DEMO": "true",
        "GATEWAY__CONNECTIONS_PER_ADDRESS_MAX": "20000",
        "TICKETS__LIFETIME_SECONDS": "3600",
        "ORDERS__PAY_WITHIN_SECONDS": "86400",
        **{f"LIMITS__{name}__{key}": value for name in ("ADDRESS", "TICKET", "ADMIN") for key, value in many.items()},
    }
    # The caller's own settings are for something else.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLASHSALE_")}
    return inherited | {f"FLASHSALE_{key}": value for key, value in settings.items()}


class Failed(Exception):
    """A measurement that must not be used."""


class Server:
    """A child process that says where it listens, stopped with SIGTERM."""

    def __init__(self, command, env=None, cwd=None):
        self.process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.base = None
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.base = line.split()[-1]
                return
        raise Failed(f"{command[0]} ended before it listened")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def rss(self):
        """Resident bytes."""
        return resident(self.pid)

    def processor_seconds(self):
        return processor_seconds(self.pid)


def processor_seconds(pid):
    """User and system time of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def descendants(pid):
    """The process and all that it has started, with their names."""
    started = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            started.setdefault(int(rest.split()[1]), []).append((int(stat.parent.name), name))
    waiting, found = [pid], []
    while waiting:
        children = started.get(waiting.pop(), [])
        found += children
        waiting += [child for child, _ in children]
    return found


def resident(pid):
    return int(re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def call(base, method, path, token=None, body=None):
    """Status and JSON of one request."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as refused:
        text = refused.read()
        return refused.code, json.loads(text) if text.startswith(b"{") else text


class Redis:
    """The two figures of INFO that the bench needs."""

    def __init__(self, url):
        at = urllib.parse.urlparse(url)
        self.address, self.password = (at.hostname, at.port), at.password

    def info(self):
        with socket.create_connection(self.address) as connection:
            auth = f"AUTH {self.password}\r\n" if self.password else ""
            connection.sendall(f"{auth}INFO\r\nQUIT\r\n".encode())
            text = b""
            while more := connection.recv(1 << 16):
                text += more
        return dict(re.findall(r"^(\w+):(.*?)\r?$", text.decode(), re.M))

    def memory(self):
        return int(self.info()["used_memory"])

    def processor_seconds(self):
        info = self.info()
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


class Bench:
    """What both backends share."""

    name = None
    # Of the orders measure, before it is known how many are sold.
    orders_guess = 20_000
    # Whose processor time is shown.
    processes = ["emulator"]

    def __init__(self, options, work):
        self.options, self.work = options, work
        self.env = environment()
        self.data = work / "data"
        self.users, self.shoppers = work / "users.csv", work / "shoppers.csv"
        self.results = {measure.key: [] for measure in MEASURES[self.name]}
        self.sides = {"product": options.emulator} | ({"before": options.before} if options.before else {})
        self.needed = {}

    def command(self, *arguments, binary=None, data=None, text=None):
        command = [binary or self.options.emulator, *map(str, arguments), "--data-dir", str(data or self.data)]
        done = subprocess.run(command, env=self.env, input=text, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def create_sale(self, title, stock):
        made = self.command("sales", "create", "--title", title, "--stock", stock, "--price", 1999, "--ends-in", "1d")
        return json.loads(made)["sale_id"]

    def seed(self):
        begun = time.monotonic()
        self.command("users", "add-admin", "--phone", ADMIN[0], text=ADMIN[1] + "\n")
        self.command("users", "seed", "--count", self.options.users, "--out", self.users)
        with open(self.users) as users:
            self.shoppers.write_text("".join(itertools.islice(users, self.options.shoppers + 1)))
        print(f"{self.options.users:,} users in {time.monotonic() - begun:.0f} s", flush=True)

    def sell_out(self, base, sale):
        """The last user buys the one unit."""
        token = tickets.tokens_of(self.users, self.options.users)[-1]
        (ticket,) = tickets.fetch(base, sale, [token])
        status, answer = call(base, "POST", f"/api/sales/{sale}/orders", token, {"ticket": ticket})
        if status != 202:
            raise Failed(f"order: {status} {answer}")
        self.all_rows(base, sale, self.admin(base))

    def rows_of(self, base, sale, admin):
        """How many orders of the sale are rows of the ledger."""
        status, stats = call(base, "GET", f"/api/admin/sales/{sale}/stats", admin)
        if status != 200:
            raise Failed(f"the figures of a sale: {status} {stats}")
        return stats["sale"]["sold"]

    def all_rows(self, base, sale, admin):
        """Waits until every reserved unit of the sale is a row of the ledger; returns how many there are."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status, stats = call(base, "GET", f"/api/admin/sales/{sale}/stats", admin)
            if status == 200 and not stats["queue_waiting"] and not stats["reserved"] and stats["settled"] == stats["sale"]["sold"]:
                return stats["sale"]["sold"]
            # The figures of a sale count all its orders, and RabbitMQ renews the queue's depth every five seconds only: asking
            # more often would add to the ledger's processor time per order.
            time.sleep(0.25)
        raise Failed(f"the orders do not become rows: {status} {stats}")

    def admin(self, base):
        status, session = call(base, "POST", "/api/sessions", None, {"phone": ADMIN[0], "password": ADMIN[1]})
        if status != 201:
            raise Failed(f"sign-in of the administrator: {status} {session}")
        return session["token"]

    def wrk(self, url, connections=64, script=None, seconds=None, **variables):
        """Requests per second, 99th percentile in ms, and the share of answers that are errors."""
        command = ["wrk", "-t", str(THREADS), "-c", str(connections), "-d", f"{seconds or self.options.seconds}s", "--latency"]
        command += ["-s", str(HERE / script)] if script else []
        env = os.environ | {"THREADS": str(THREADS), "TOKENS": str(self.shoppers)} | variables
        done = subprocess.run(command + [url], env=env, capture_output=True, text=True)
        rate = re.search(r"^Requests/sec:\s*([\d.]+)", done.stdout, re.M)
        if done.returncode or not rate:
            raise Failed(f"wrk: {done.stdout}{done.stderr}")
        if broken := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout):
            print(f"  note: {broken[0]}", flush=True)
        number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", done.stdout).groups()
        total = int(re.search(r"(\d+) requests in", done.stdout)[1])
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
        return {
            "rate": float(rate[1]),
            "p99_ms": float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit],
            "refused": int(refused[1]) / max(total, 1) if refused else 0.0,
            "accepted": total - (int(refused[1]) if refused else 0),
        }

    def loaded(self, url, **arguments):
        """As `wrk`, after a warm-up."""
        self.wrk(url, seconds=1, **arguments)
        return self.wrk(url, **arguments)

    def wants(self, *keys):
        only = self.options.only
        return not only or any(word in key for key in keys for word in only)

    def record(self, key, round_):
        self.results[key].append(round_)
        measure = next(measure for measure in MEASURES[self.name] if measure.key == key)
        shown = [f"{side} {figures.cell([round_], side, measure.unit)}" for side in ("product", "before", "baseline") if side in round_]
        if "baseline" in round_:
            shown.append(f"ratio {figures.ratio([round_], 'product'):.2f}")
        print(f"{measure.title:<62} {'   '.join(shown)}", flush=True)

    def rounds(self):
        return range(self.options.rounds)

    def requests(self, key, baseline, refused, url_of, **arguments):
        """A measure of requests per second. `baseline` is an address, `url_of` makes the product's."""
        if not self.wants(key):
            return
        path = arguments.pop("path", "/")
        for _ in self.rounds():
            round_ = {}

            def take(side, result, refused):
                if abs(result["refused"] - refused) > 0.001:
                    raise Failed(f"{key}, {side}: {result['refused']:.1%} of the answers are errors, not {refused:.0%}")
                round_[side], round_[f"{side}_p99_ms"] = result["rate"], result["p99_ms"]

            take("baseline", self.loaded(baseline + path, **arguments), 0.0)
            for side, binary in self.sides.items():
                with self.emulator(binary) as emulator:
                    url_of and url_of(emulator.base)
                    take(side, self.loaded(emulator.base + path, **arguments), refused)
            self.record(key, round_)

    def sell(self, emulator, sales, seconds):
        """Turns tickets into orders for some seconds, or until the buyers of all sales have bought.

        `sales` lists each sale with its number of buyers. The rate counts orders when they are rows; memory and processor
        time are per order.
        """
        lines, at = [], 0
        tokens = tickets.tokens_of(self.users, sum(count for _, count in sales))
        for sale, count in sales:
            own = tokens[at : at + count]
            lines += [f"{token},{ticket},{sale}\n" for token, ticket in zip(own, tickets.fetch(emulator.base, sale, own))]
            at += count
        path = self.work / "tickets"
        path.write_text("".join(lines))
        admin = self.admin(emulator.base)
        before = self.consumption(emulator)
        begun = time.monotonic()
        result = self.wrk(emulator.base, script="orders.lua", seconds=seconds, TICKETS=str(path))
        pressed = time.monotonic() - begun
        # wrk closes its connections at the end. An order whose client leaves before it is published gets no 202; the sweeper
        # publishes it seconds later. So the time ends when there are as many rows as there were 202s.
        while sum(self.rows_of(emulator.base, sale, admin) for sale, _ in sales) < result["accepted"]:
            if time.monotonic() - begun > 60:
                raise Failed("the orders do not become rows")
            time.sleep(0.01)
        took = time.monotonic() - begun
        sold = sum(self.all_rows(emulator.base, sale, admin) for sale, _ in sales)
        after = self.consumption(emulator)
        path.unlink()
        if result["refused"] > 0.001:
            raise Failed(f"{result['refused']:.1%} of the orders were refused")
        return {"sold": sold, "rate": result["accepted"] / took, "p99_ms": result["p99_ms"], "drain_s": took - pressed} | {
            key: (after[key] - before[key]) / max(sold, 1) for key in after
        }

    def consumption(self, emulator):
        processor = emulator.processor_seconds()
        return {"memory": emulator.rss(), "processor": processor, "processor_emulator": processor}

    def orders(self, baseline):
        """Durable orders per second; memory per order."""
        key = f"{self.name}.orders"
        memory = f"{self.name}.order_memory"
        if not self.wants(key, memory):
            return
        for _ in self.rounds():
            round_, sizes, redis, processor = {"baseline": baseline()}, {}, {}, {}
            for side, binary in self.sides.items():
                result = self.enough_buyers(side, binary)
                round_[side], sizes[side], redis[side] = result["rate"], result["memory"], result.get("redis_memory")
                round_[f"{side}_p99_ms"], round_[f"{side}_drain_s"] = result["p99_ms"], result["drain_s"]
                print(f"  {side}: {result['sold']:,} orders, those with a 202 rows {result['drain_s']:.2f} s after the last request", flush=True)
                each = {who: 1e6 * result[f"processor_{who}"] for who in self.processes if result[f"processor_{who}"]}
                processor[side] = sum(each.values())
                print(f"  {side}: processor time per order: {', '.join(f'{who} {micros:.0f} µs' for who, micros in each.items())}", flush=True)
            self.record(key, round_)
            self.record(memory, sizes)
            if self.name == "local":
                self.record("local.order_redis", redis)
                self.record("local.orders_processor", processor)

    def enough_buyers(self, side, binary):
        """Sells for the time of a round, again with more buyers if they ran out."""
        while True:
            buyers = min(self.needed.get(side, self.orders_guess), self.options.users)
            with self.emulator(binary) as emulator:
                result = self.sell(emulator, [(self.sale("Orders", LARGE_STOCK), buyers)], self.options.seconds)
            self.needed[side] = int(result["sold"] * 1.3) + 1_000
            if result["sold"] < buyers * 0.98:
                return result
            if buyers == self.options.users:
                raise Failed(f"all {buyers:,} users have bought before the time was over: --users")
            self.needed[side] = buyers * 3

    def sizes(self):
        """The processor time of an order in small sales, in large ones, and in one large sale; as many buyers each time."""
        stock, sold = f"{self.name}.size_stock", f"{self.name}.size_sold"
        if not self.wants(stock, sold):
            return
        count = min(SMALL_SALES, self.options.users // SMALL_STOCK)
        for number in self.rounds():
            stocks, solds = {}, {}
            for side, binary in self.sides.items():
                kinds = ["Small", "Large", "One"]
                # In another order each time, because what comes later may be slower.
                kinds = kinds[number % 3 :] + kinds[: number % 3]
                cost = {kind: 1e6 * self.sell_all(binary, kind, count)["processor"] for kind in kinds}
                own = "baseline" if side == "product" else f"{side}_baseline"
                stocks |= {own: cost["Small"], side: cost["Large"]}
                solds |= {own: cost["Small"], side: cost["One"]}
            self.record(stock, stocks)
            self.record(sold, solds)

    def sell_all(self, binary, kind, count):
        """Sells to all buyers, again with more time if it was not enough."""
        while True:
            stock = SMALL_STOCK if kind == "Small" else LARGE_STOCK
            if kind == "One":
                sales = [(self.sale(kind, stock), SMALL_STOCK * count)]
            else:
                sales = [(self.sale(f"{kind} {at}", stock), SMALL_STOCK) for at in range(count)]
            with self.emulator(binary) as emulator:
                result = self.sell(emulator, sales, self.seconds_to_sell)
            # Requests that run when wrk stops are cut off.
            if result["sold"] >= SMALL_STOCK * count - 100:
                return result
            self.seconds_to_sell *= 2


class Embedded(Bench):
    """SQLite and memory. Every emulator starts from a copy of the same prepared state."""

    name = "embedded"
    orders_guess = 60_000
    seconds_to_sell = 4

    def prepare(self):
        self.seed()
        self.gone = self.create_sale("Gone", 1)
        titles = ["Page", "Orders", "One"] + [f"{kind} {at}" for kind in ("Small", "Large") for at in range(SMALL_SALES)]
        self.sales = {title: self.create_sale(title, SMALL_STOCK if "Small" in title else LARGE_STOCK) for title in titles}
        with self.emulator(self.options.emulator, self.data) as emulator:
            self.sell_out(emulator.base, self.gone)

    def sale(self, title, _stock):
        # Every copy of the state has them all, and nothing of them is sold.
        return self.sales[title]

    @contextlib.contextmanager
    def emulator(self, binary, data=None):
        copy = data or self.work / "copy"
        if not data:
            shutil.copytree(self.data, copy)
            # Commits of the measurement must not wait for the copy to reach the disk.
            os.sync()
        try:
            with Server([binary, "--listen", "127.0.0.1:0", "--data-dir", str(copy)], self.env) as server:
                yield server
        finally:
            if not data:
                shutil.rmtree(copy)

    def commits(self):
        return float(self.options.run_baseline("commits", self.work, self.options.seconds))

    def run(self, hello):
        def sold_out(base):
            status, answer = call(base, "POST", f"/api/sales/{self.gone}/tickets", tickets.tokens_of(self.users, 1)[0])
            if status != 409 or "sold-out" not in str(answer):
                raise Failed(f"not sold out: {status} {answer}")

        ticket = {"script": "tickets.lua"}
        self.requests("embedded.sold_out", hello, 1.0, sold_out, SALE=self.gone, **ticket)
        self.requests("embedded.page", hello, 0.0, None, path=f"/api/sales/{self.sales['Page']}")
        self.requests("embedded.ticket", hello, 0.0, None, SALE=self.sales["Page"], **ticket)
        self.orders(self.commits)
        self.sizes()
        self.connections()
        self.starts()

    def connections(self):
        """Memory of connections that wait for their next request."""
        key, count = "embedded.connection_memory", 2_000
        if not self.wants(key):
            return
        for _ in self.rounds():
            round_ = {}
            for side, binary in self.sides.items():
                with self.emulator(binary) as emulator:
                    path, host = f"/api/sales/{self.sales['Page']}", urllib.parse.urlparse(emulator.base).netloc
                    self.wrk(emulator.base + path, seconds=1)
                    before = emulator.rss()
                    name, port = host.split(":")
                    opened = []
                    for _ in range(count):
                        connection = socket.create_connection((name, int(port)))
                        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                        if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200"):
                            raise Failed("a connection got no answer")
                        opened.append(connection)
                    round_[side] = max(0, emulator.rss() - before) / count
                    for connection in opened:
                        connection.close()
            self.record(key, round_)

    def starts(self):
        """How long an emulator with an empty directory takes to be ready, and what it needs when idle."""
        if not self.wants("embedded.idle_memory", "embedded.ready"):
            return
        for _ in self.rounds():
            idle, ready = {}, {}
            for side, binary in self.sides.items():
                ready[side], idle[side] = self.start(binary)
            self.record("embedded.ready", ready)
            self.record("embedded.idle_memory", idle)

    def start(self, binary):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        empty = self.work / "empty"
        # As at the first start of a newcomer: with the demo's sale and users.
        env = {key: value for key, value in self.env.items() if key != "FLASHSALE_NO_DEMO"}
        begun = time.monotonic()
        command = [binary, "--listen", f"127.0.0.1:{port}", "--data-dir", str(empty)]
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not is_ready(port):
                if process.poll() is not None or time.monotonic() - begun > 20:
                    raise Failed("the emulator does not become ready")
                time.sleep(0.0005)
            took = time.monotonic() - begun
            time.sleep(2)
            return took * 1e3, resident(process.pid) / (1 << 20)
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(empty, ignore_errors=True)


def is_ready(port):
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Local(Bench):
    """Private Redis, MariaDB or MySQL, and RabbitMQ, which live as long as the run."""

    name = "local"
    seconds_to_sell = 12
    # The names of the servers' processes.
    SERVERS = {"redis-server": "Redis", "beam.smp": "RabbitMQ", "mariadbd": "MariaDB", "mysqld": "MySQL"}
    processes = ["emulator", *SERVERS.values()]

    def __enter__(self):
        command = [str(self.options.baseline), "servers", str(self.work / "servers")]
        self.servers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.urls = dict(self.servers.stdout.readline().strip().split("=", 1) for _ in range(3))
        self.redis = Redis(self.urls["redis"])
        names = {"redis": "REDIS_URL", "mysql": "DATABASE_URL", "amqp": "AMQP_URL"}
        self.env |= {"FLASHSALE_SERVERS": "external"} | {f"FLASHSALE_{names[key]}": url for key, url in self.urls.items()}
        return self

    def __exit__(self, *_):
        self.servers.stdin.close()
        self.servers.wait(60)

    def prepare(self):
        self.seed()
        self.gone, self.page = self.create_sale("Gone", 1), self.create_sale("Page", LARGE_STOCK)
        with self.emulator(self.options.emulator) as emulator:
            self.sell_out(emulator.base, self.gone)

    def sale(self, title, stock):
        return self.create_sale(title, stock)

    def emulator(self, binary):
        return Server([binary, "--listen", "127.0.0.1:0", "--data-dir", str(self.data)], self.env)

    def consumption(self, emulator):
        own = super().consumption(emulator)
        own["processor"] += self.redis.processor_seconds()
        own |= {f"processor_{who}": 0.0 for who in self.SERVERS.values()}
        for pid, name in descendants(self.servers.pid):
            if who := self.SERVERS.get(name):
                own[f"processor_{who}"] += processor_seconds(pid)
        return own | {"redis_memory": self.redis.memory()}

    def confirms(self):
        return float(self.options.run_baseline("confirms", self.urls["amqp"], self.options.seconds, 64))

    def run(self, hello):
        ticket = {"script": "tickets.lua"}
        self.requests("local.sold_out", hello, 1.0, None, SALE=self.gone, **ticket)
        self.requests("local.page", hello, 0.0, None, path=f"/api/sales/{self.page}")
        if self.wants("local.ticket_64", "local.ticket_2000"):
            with Server([str(self.options.baseline), "evalsha", "127.0.0.1:0", self.urls["redis"]]) as evalsha:
                self.requests("local.ticket_64", evalsha.base, 0.0, None, SALE=self.page, **ticket)
                self.requests("local.ticket_2000", evalsha.base, 0.0, None, SALE=self.page, connections=2_000, **ticket)
        self.orders(self.confirms)
        self.sizes()
        self.idle()

    def idle(self):
        if not self.wants("local.idle_memory"):
            return
        for _ in self.rounds():
            round_ = {}
            for side, binary in self.sides.items():
                with self.emulator(binary) as emulator:
                    time.sleep(2)
                    round_[side] = emulator.rss() / (1 << 20)
            self.record("local.idle_memory", round_)


@contextlib.contextmanager
def opened(backend, options, work):
    place = work / backend
    place.mkdir()
    if backend == "embedded":
        yield Embedded(options, place)
    else:
        with Local(options, place) as bench:
            yield bench


def setup_of(options):
    """What a reader of saved results wants to know."""
    return {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "users": options.users,
        "shoppers": options.shoppers,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "day": time.strftime("%Y-%m-%d"),
    }


def arguments():
    parser = argparse.ArgumentParser(prog="infra/bench", description="Measures the product beside baselines, in turns within one run.",
                                     epilog="Keys: " + " ".join(measure.key for measures in MEASURES.values() for measure in measures))
    parser.add_argument("backends", nargs="*", choices=["embedded", "local"], default="embedded", metavar="embedded|local|hosts",
                        help="embedded: SQLite and memory (the default); local: private servers; both may be given; hosts: see infra/load/hosts")
    parser.add_argument("--rounds", type=int, default=5, help="of each measure (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement (4)")
    parser.add_argument("--users", type=int, default=200_000, help="seeded shoppers; orders need one each (200,000)")
    parser.add_argument("--shoppers", type=int, default=10_000, help="how many of them ask for tickets, again and again (10,000)")
    parser.add_argument("--only", action="append", metavar="WORD", help="only measures with this word in their key")
    parser.add_argument("--save", metavar="FILE", help="keep the rounds as JSON; measures that this run leaves out stay in it")
    parser.add_argument("--compare", metavar="FILE", help="compare with saved results; exit with 1 if something is worse by more than a tenth")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.backends = [options.backends] if isinstance(options.backends, str) else options.backends
    if options.rounds < 1 or options.seconds < 1 or options.users < SMALL_STOCK or options.shoppers < THREADS:
        parser.error(f"at least 1 round, 1 second, {THREADS} shoppers and {SMALL_STOCK:,} users")
    return options


def main():
    options = arguments()
    earlier = figures.load(options.compare) if options.compare else None
    if options.check:
        return
    options.emulator, options.baseline = os.environ["EMULATOR"], os.environ["BASELINE"]
    options.before = os.environ.get("BEFORE")

    def run_baseline(*words):
        return subprocess.run([options.baseline, *map(str, words)], check=True, capture_output=True, text=True).stdout

    options.run_baseline = run_baseline
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # So that servers are stopped and files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    measures, results, failure = [], {}, None
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as work:
        try:
            for backend in options.backends:
                with opened(backend, options, Path(work)) as bench, Server([options.baseline, "hello", "127.0.0.1:0"]) as hello:
                    print(f"\n{backend}: preparing", flush=True)
                    measures += MEASURES[backend]
                    results |= bench.results
                    bench.prepare()
                    bench.run(hello.base)
        except Failed as failed:
            # What was measured before is printed and saved all the same.
            failure = failed

    print(f"\nMedians of {options.rounds} rounds of {options.seconds} s:\n")
    print(figures.table(measures, results, bool(options.before)))
    if options.save:
        figures.save(options.save, results, setup_of(options))
    if failure:
        sys.exit(f"infra/bench: {failure}")
    if earlier is not None:
        text, worse = figures.compare(measures, earlier, results)
        print(f"\nCompared with {options.compare}:\n\n{text}")
        if worse:
            sys.exit("worse by more than a tenth: " + "; ".join(worse))


if __name__ == "__main__":
    main()

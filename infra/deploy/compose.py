"""infra/deploy/compose calls this: compose.yaml from nothing, a purchase through nginx, and faults while shoppers buy.

Settings of the installation turn captchas off (FLASHSALE_PROFILE=development, FLASHSALE_CAPTCHA=off): no machine can read them,
and there is no way around them. Everything else is as an operator has it. Each accepted order (202) must end as `confirmed`,
and `audit` must find the books balanced after each fault.
"""

import http.client
import json
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "deploy"
SECRETS = WORK / "secrets"
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME", "flashsale-deploy-test")
PORT = int(os.environ.get("DEPLOY_TEST_PORT", "18080"))
WATCH_PORT = PORT + 1
ENVIRONMENT = os.environ | {
    "COMPOSE_PROJECT_NAME": PROJECT,
    "FLASHSALE_IMAGE": "flashsale:deploy-test",
    "FLASHSALE_PORT": str(PORT),
    "FLASHSALE_TLS_PORT": str(PORT + 2),
    "FLASHSALE_TLS": str(WORK / "tls"),
    "FLASHSALE_PROMETHEUS_PORT": str(WATCH_PORT),
    "FLASHSALE_SECRETS": str(SECRETS),
    "FLASHSALE_PROFILE": "development",
    "FLASHSALE_CAPTCHA": "off",
    "FLASHSALE_NAME": "localhost",
    # A test machine may allow less than a production machine.
    "FLASHSALE_NOFILE": str(min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
}
SERVERS = ["redis", "mysql", "rabbitmq"]
# How long a container may take to become healthy again, and accepted orders to become final.
HEALTHY_SECONDS = 120
FINAL_SECONDS = 60
FAULT_SECONDS = 6
# While emulators are replaced.
REQUESTS_PER_SECOND = int(os.environ.get("DEPLOY_TEST_REQUESTS", "500"))
# The largest share of its memory limit that a container may use.
MEMORY_SHARE_MAX = 0.8


def proved(text):
    print(f"ok: {text}", flush=True)


def run(*command, timeout=120, check=True, text=None):
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=timeout, input=text)
    if check and done.returncode != 0:
        raise SystemExit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def compose(*arguments, **options):
    return run("docker", "compose", "-f", "infra/compose.yaml", *arguments, **options)


def command(*arguments, **options):
    """Runs a command of the emulator with the installation's settings."""
    return compose("run", "--rm", "--no-deps", "-T", "emulator", *arguments, **options)


def containers(service):
    return compose("ps", "-a", "-q", service).stdout.split()


def inspect(container, field):
    return run("docker", "inspect", "--format", "{{%s}}" % field, container).stdout.strip()


def until(what, test, seconds):
    end = time.monotonic() + seconds
    while not (found := test()):
        if time.monotonic() > end:
            print(compose("ps", "-a", check=False).stdout, compose("logs", "--tail", "30", check=False).stdout[-12000:], file=sys.stderr)
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.25)
    return found


def healthy():
    names = [name for service in [*SERVERS, "emulator", "nginx"] for name in containers(service)]
    until("every container is healthy", lambda: all(inspect(name, ".State.Health.Status") == "healthy" for name in names), HEALTHY_SECONDS)


class Shopper:
    """One connection to nginx."""

    def __init__(self, token=None):
        self.token, self.connection = token, None

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
            self.connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self.connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text and "json" in answer.getheader("Content-Type", "") else text
        except (OSError, http.client.HTTPException) as error:
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return 0, str(error)

    def again(self, method, path, body=None, seconds=90):
        """Repeats a request as API.md asks of a client: without an answer, and after 429 and 5xx."""
        end = time.monotonic() + seconds
        while True:
            status, answer = self.call(method, path, body)
            if status not in (0, 429) and status < 500:
                return status, answer
            if time.monotonic() > end:
                raise RuntimeError(f"{method} {path}: {status} {answer}")
            time.sleep(0.3)


class Crowd:
    """Shoppers who buy one after the other until they are stopped."""

    def __init__(self, sale, tokens, threads=6):
        self.sale, self.tokens, self.lock = sale, tokens, threading.Lock()
        self.accepted, self.wrong, self.stopping = {}, [], threading.Event()
        self.threads = [threading.Thread(target=self.shop, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def shop(self):
        while not self.stopping.is_set():
            with self.lock:
                if not self.tokens:
                    self.wrong.append("the crowd has run out of shoppers")
                    return
                token = self.tokens.pop()
            try:
                self.buy(Shopper(token), token)
            except Exception as error:
                self.wrong.append(repr(error))
            time.sleep(random.uniform(0.05, 0.3))

    def buy(self, shopper, token):
        for _ in range(4):
            status, ticket = shopper.again("POST", f"/api/sales/{self.sale}/tickets", {})
            if status == 409 and ticket.get("order_id"):
                return
            if status != 201:
                raise RuntimeError(f"ticket: {status} {ticket}")
            status, order = shopper.again("POST", f"/api/sales/{self.sale}/orders", {"ticket": ticket["ticket"]})
            if status == 202:
                self.accepted[order["order_id"]] = token
                return
            if status not in (409, 410):
                raise RuntimeError(f"order: {status} {order}")
        raise RuntimeError("four tickets and no order")

    def end(self):
        """Stops them, and waits until each accepted order is confirmed."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
        left = dict(self.accepted)
        end, last = time.monotonic() + FINAL_SECONDS, {}
        while left and time.monotonic() < end:
            for order, token in list(left.items()):
                status, answer = Shopper(token).again("GET", f"/api/orders/{order}")
                last[order] = (status, answer)
                if status == 200 and answer["status"] == "confirmed":
                    del left[order]
            time.sleep(0.3)
        if left or self.wrong:
            raise SystemExit(f"{len(left)} of {len(self.accepted)} accepted orders are not confirmed: "
                             f"{[last[order] for order in list(left)[:3]]}; {len(self.wrong)} shoppers failed: {self.wrong[:5]}")
        return len(self.accepted)


def seed(count):
    """Signed-in shoppers, straight into the stores."""
    lines = command("users", "seed", "--count", str(count), "--out", "/dev/stdout", timeout=180).stdout.splitlines()
    tokens = [line.split(",")[2] for line in lines if re.match(r"^[0-9a-f-]{36},", line)]
    assert len(tokens) == count, lines[:3]
    return tokens


def create_sale(stock):
    out = command("sales", "create", "--title", "Test", "--stock", str(stock), "--price", "1999", "--ends-in", "2h").stdout
    return json.loads(out[out.index("{"):])["sale_id"]


def audit():
    done = command("audit", "--within", "60s", timeout=150, check=False)
    if done.returncode != 0:
        raise SystemExit(f"audit: {done.returncode}\n{done.stdout}{done.stderr}")


def purchase():
    """Register, sign in, buy, be confirmed, pay; the ticket again is the same order."""
    one = Shopper()
    status, page = one.again("GET", "/")
    assert status == 200 and b"<title>" in page, (status, page)
    account = {"phone": f"+1 312-555-{random.randrange(1000, 9999)}", "password": "correct horse battery"}
    status, answer = one.again("POST", "/api/users", account)
    assert status == 201, (status, answer)
    status, answer = one.again("POST", "/api/sessions", account)
    assert status in (200, 201), (status, answer)
    one.token = answer["token"]
    sale = create_sale(3)
    status, ticket = one.again("POST", f"/api/sales/{sale}/tickets", {})
    assert status == 201, (status, ticket)
    orders = [one.again("POST", f"/api/sales/{sale}/orders", {"ticket": ticket["ticket"]}) for _ in range(2)]
    assert [status for status, _ in orders] == [202, 202] and orders[0][1]["order_id"] == orders[1][1]["order_id"], orders
    order = f"/api/orders/{ticket['order_id']}"
    until("the order is confirmed", lambda: one.again("GET", order)[1]["status"] == "confirmed", 30)
    status, answer = one.again("POST", f"{order}/payment", {})
    assert status == 200 and answer["status"] == "paid", (status, answer)


def from_nothing():
    compose("--profile", "watch", "--profile", "tls", "down", "-v", "--remove-orphans", "-t", "5", timeout=180)
    shutil.rmtree(SECRETS, ignore_errors=True)
    started = time.monotonic()
    compose("up", "-d", "--no-build", "--pull", "never", timeout=400)
    up = time.monotonic() - started
    purchase()
    proved(f"from nothing: up and healthy in {up:.0f} s, first purchase paid after {time.monotonic() - started:.0f} s")


def closed():
    """What outsiders and other containers can reach."""
    published = {}
    for service in [*SERVERS, "emulator", "nginx"]:
        for name in containers(service):
            ports = json.loads(run("docker", "inspect", "--format", "{{json .NetworkSettings.Ports}}", name).stdout) or {}
            published |= {f"{service} {port}": hosts for port, hosts in ports.items() if hosts}
            user = run("docker", "exec", name, "/usr/local/bin/local-emulator", "--version", check=False)
            assert service != "emulator" or user.returncode == 0
    assert list(published) == ["nginx 80/tcp"], published
    for name in containers("emulator"):
        assert inspect(name, ".HostConfig.ReadonlyRootfs") == "true" and inspect(name, ".Config.User") == "65532:65532"
        shown = run("docker", "inspect", name).stdout + run("docker", "logs", name, check=False).stdout
        for secret in SECRETS.glob("*/*password"):
            assert secret.read_text() not in shown, secret
    for secret in SECRETS.glob("*/*"):
        assert secret.stat().st_mode & 0o077 == 0, secret
    # Setup again changes nothing.
    before = {path: path.read_bytes() for path in SECRETS.glob("*/*")}
    compose("run", "--rm", "-T", "setup")
    assert before == {path: path.read_bytes() for path in SECRETS.glob("*/*")}
    status, _ = Shopper().call("GET", "/metrics")
    assert status == 404, status
    proved("only nginx is published; read-only root, no root user; secrets are private files, in no environment and no log")


def production():
    """An operator's default settings; every other part of this test turns captchas off."""
    strict = ["-e", "FLASHSALE_PROFILE=production", "-e", "FLASHSALE_CAPTCHA=image"]
    name = f"{PROJECT}-production"
    compose("run", "-d", "--no-deps", "--name", name, *strict, "emulator")
    try:
        until("an emulator in production is healthy", lambda: inspect(name, ".State.Health.Status") == "healthy", 60)
        shown = run("docker", "logs", name).stdout
        assert "robots can buy" not in shown, shown
    finally:
        run("docker", "rm", "-f", name)
    proved("an emulator with the default settings (production, captchas) is healthy")


def browser():
    """The browser test of the pages, on this installation: a shopper registers, waits, buys, is confirmed, pays and leaves."""
    phone, password = "+1 201-555-0142", "correct horse battery staple"
    command("users", "add-admin", "--phone", phone, text=f"{password}\n")
    shop = {"SHOP_BASE": f"http://127.0.0.1:{PORT}", "SHOP_ADMIN_PHONE": phone, "SHOP_ADMIN_PASSWORD": password, "PYTHONDONTWRITEBYTECODE": "1"}
    script = ROOT / "local-emulator/tests/python/shopping.py"
    started = time.monotonic()
    done = subprocess.run([os.environ["TEST_PYTHON"], str(script), "purchase"], env=os.environ | shop, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        raise SystemExit(f"purchase in a browser: {done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    audit()
    proved(f"a purchase through nginx in a browser, in {time.monotonic() - started:.0f} s")


class Load:
    """Visitors who look around, and some who buy, at a given rate. They send each request once: any answer other than the
    expected one is a failure."""

    def __init__(self, sale, tokens, threads=24):
        self.sale, self.tokens, self.lock = sale, tokens, threading.Lock()
        self.requests, self.slowest, self.accepted, self.failed = 0, 0, [], []
        self.started, self.stopping = time.monotonic(), threading.Event()
        self.threads = [threading.Thread(target=self.visit, args=(number, threads), daemon=True) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def send(self, shopper, wanted, method, path, body=None):
        began = time.monotonic()
        status, answer = shopper.call(method, path, body)
        with self.lock:
            self.requests += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if status != wanted:
                self.failed.append(f"{time.monotonic() - self.started:.1f} s: {method} {path}: {status} {answer if status != 200 else ''}")
        return answer if status == wanted else None

    def visit(self, number, threads):
        visitor, due, turn = Shopper(), time.monotonic(), number
        # nginx caches the first; an instance answers the others.
        pages = ["/", *[f"/api/sales/{self.sale}"] * 3]
        while not self.stopping.is_set():
            # A little faster than the given rate, because some turns come late.
            due += threads / (1.1 * REQUESTS_PER_SECOND)
            time.sleep(max(0, due - time.monotonic()))
            turn += 1
            if turn % 50 == 0:
                # nginx does not repeat a POST that an instance has seen, so only draining instances lose none. This is the cheapest POST.
                self.send(visitor, 422, "POST", "/api/captchas", {"purpose": "none"})
            elif turn % 25 == 0:
                visitor.token = self.tokens.pop()
                ticket = self.send(visitor, 201, "POST", f"/api/sales/{self.sale}/tickets", {})
                order = ticket and self.send(visitor, 202, "POST", f"/api/sales/{self.sale}/orders", {"ticket": ticket["ticket"]})
                if order:
                    self.accepted.append((order["order_id"], visitor.token))
                visitor.token = None
            else:
                self.send(visitor, 200, "GET", pages[turn % len(pages)])

    def end(self):
        """Requests per second, after checking that each accepted order is confirmed."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        rate = self.requests / (time.monotonic() - self.started)
        if self.failed:
            raise SystemExit(f"{len(self.failed)} of {self.requests} requests failed:\n" + "\n".join(self.failed[:10]))
        for order, token in self.accepted:
            shopper = Shopper(token)
            until(f"order {order} is confirmed", lambda: shopper.again("GET", f"/api/orders/{order}")[1].get("status") == "confirmed", FINAL_SECONDS)
        return rate


def replace(check=True):
    return run("infra/compose/replace", "--no-build", "--pull", "never", timeout=400, check=check)


def replaced(idle):
    """Replaces all emulators in turn under load, as an operator does: infra/compose/replace."""
    before = containers("emulator")
    sale, tokens = create_sale(2900), seed(2900)
    load = Load(sale, tokens)
    time.sleep(3)
    replace()
    after = containers("emulator")
    assert len(after) == len(before) and not set(after) & set(before), (before, after)
    time.sleep(3)
    table(idle, memory())
    rate = load.end()
    assert len(load.accepted) > load.requests / 100, len(load.accepted)
    assert rate > 0.9 * REQUESTS_PER_SECOND, f"{rate:.0f} requests per second: this machine is too slow for the test"
    audit()
    books = command("audit").stdout
    sold = int(re.search(r"\+ sold (\d+)", next(line for line in books.splitlines() if sale in line))[1])
    assert sold == len(load.accepted), (sold, len(load.accepted))
    proved(f"both emulators replaced under {rate:.0f} requests per second: of {load.requests} none failed, the slowest took "
           f"{load.slowest * 1000:.0f} ms; {len(load.accepted)} orders accepted, confirmed and sold")

    # A new one that can't start replaces nothing.
    ENVIRONMENT["FLASHSALE_CAPTCHA"] = "nonsense"
    refused = replace(check=False)
    ENVIRONMENT["FLASHSALE_CAPTCHA"] = "off"
    assert refused.returncode == 1 and "does not become healthy" in refused.stderr and "captcha" in refused.stderr, refused
    assert containers("emulator") == after
    healthy()
    proved("a new emulator that does not start is removed with the reason said, and the old ones stay")


def fault(name, break_it, mend, sale, tokens, seconds=FAULT_SECONDS):
    started = time.monotonic()
    crowd = Crowd(sale, tokens)
    time.sleep(2)
    break_it()
    time.sleep(seconds)
    mend()
    healthy()
    back = time.monotonic() - started
    time.sleep(2)
    bought = crowd.end()
    assert bought > 0, "nobody could buy"
    audit()
    proved(f"{name}: {bought} orders accepted, all confirmed; healthy again {back - 2:.0f} s after; books balance")


def kill(container):
    """Like a crash: Docker does not restart a container after `docker kill`, because it takes that for the operator's wish."""
    run("kill", "-9", inspect(container, ".State.Pid"))


def pause(container):
    """Pauses, again if needed: runc gives up when a busy machine is slow to freeze the processes."""
    for _ in range(5):
        if run("docker", "pause", container, check=False).returncode == 0:
            return
        time.sleep(1)
    run("docker", "pause", container)


def faults():
    tokens, sale = seed(15000), create_sale(15000)
    nothing = lambda: None
    for service in [*SERVERS, "emulator", "nginx"]:
        for number, container in enumerate(containers(service), 1):
            title = f"{service} {number}" if service == "emulator" else service
            fault(f"kill -9 of {title}", lambda: kill(container), nothing, sale, tokens, seconds=2)
            fault(f"pause of {title}", lambda: pause(container), lambda: run("docker", "unpause", container), sale, tokens)
    for service in SERVERS:
        (container,) = containers(service)
        network = f"{PROJECT}_back"
        fault(f"{service} cut off", lambda: run("docker", "network", "disconnect", network, container),
              lambda: run("docker", "network", "connect", "--alias", service, network, container), sale, tokens)


def metrics(address):
    text = compose("exec", "-T", "nginx", "curl", "-fsS", "-m", "5", f"http://{address}:9090/metrics").stdout
    return {match[1] for match in re.finditer(r"^([a-z_]+)(?:\{.*\})? [0-9.e+-]+$", text, re.M)}, text


def scaled():
    compose("up", "-d", "--no-build", "--pull", "never", "--scale", "emulator=3", timeout=200)
    healthy()
    names = containers("emulator")
    assert len(names) == 3
    addresses = [inspect(name, f'(index .NetworkSettings.Networks "{PROJECT}_front").IPAddress') for name in names]
    time.sleep(5)
    sale, tokens = create_sale(400), seed(400)
    crowd = Crowd(sale, tokens)
    time.sleep(6)
    crowd.stopping.set()
    bought = crowd.end()
    for address in addresses:
        count = sum(float(line.split()[-1]) for line in metrics(address)[1].splitlines() if line.startswith("flashsale_http_requests_total{"))
        assert count > 0, f"{address} got no request"
    audit()
    proved(f"--scale emulator=3: nginx found all three; {bought} orders, books balance")
    return addresses


def panels():
    board = json.loads((ROOT / "infra/grafana/dashboards/flashsale.json").read_text())
    assert board["uid"] and board["schemaVersion"] >= 39
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    spots = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert cell not in spots and cell[0] < 24, f"{panel['title']} lies over another panel"
            spots.add(cell)
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "prometheus" and panel["targets"], panel["title"]
            yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def watched(addresses):
    compose("--profile", "watch", "up", "-d", "--no-build", "--pull", "never", "--no-recreate", "prometheus", timeout=120)

    def ask(path):
        done = run("curl", "-sS", "-m", "5", "--get", f"http://127.0.0.1:{WATCH_PORT}/api/v1/{path[0]}", *path[1:], check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else {}

    def up():
        targets = ask(["targets"]).get("data", {}).get("activeTargets", [])
        return sorted(target["labels"]["job"] for target in targets if target["health"] == "up") == ["flashsale"] * 3 + ["prometheus", "rabbitmq"]

    until("Prometheus scrapes three emulators and RabbitMQ", up, 90)
    # A refusal, so that its metric exists.
    (token,) = seed(1)
    refused, sold = Shopper(token), create_sale(1)
    assert 429 in {refused.call("POST", f"/api/sales/{sold}/tickets", {})[0] for _ in range(60)}
    time.sleep(1)
    exposed = set().union(*(metrics(address)[0] for address in addresses))
    # Metrics that exist only with --host processes, or after events that do not happen here.
    rare = set(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| (?:with `--host processes`|from the first one on) \|", (ROOT / "infra/METRICS.md").read_text(), re.M))
    assert len(rare) > 5, rare
    rules = (ROOT / "infra/prometheus/rules.yml").read_text()
    named = set(re.findall(r"flashsale_[a-z_]+", rules + "\n" + "\n".join(expression for _, expression in panels())))
    for name in sorted(named):
        present = name in exposed or re.sub(r"_(bucket|sum|count)$", "", name) in rare
        assert present, f"{name} is in the dashboard or the rules, and no emulator exposes it"
    # Makes some traffic, so that rates exist.
    crowd = Crowd(create_sale(300), seed(300), threads=3)
    time.sleep(15)
    crowd.end()
    time.sleep(6)
    for title, expression in panels():
        answer = ask(["query", "--data-urlencode", f"query={expression}"])
        assert answer.get("status") == "success", (title, expression, answer)
        assert answer["data"]["result"] or any(name in expression for name in rare) or 'status=~"5' in expression, f"{title}: no data: {expression}"
    groups = ask(["rules"])["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 12 and all(rule["health"] == "ok" for rule in rules), rules
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    assert not firing, firing
    proved(f"Prometheus scrapes all, {len(rules)} rules are healthy, every panel's query has data, {len(named)} metrics exist; "
           "Grafana itself is not in Debian: its dashboard was only checked")


def encrypted():
    folder = WORK / "tls"
    folder.mkdir(exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
    ENVIRONMENT["FLASHSALE_HTTP"] = "redirect"
    compose("--profile", "tls", "up", "-d", "--no-build", "--pull", "never", "--scale", "emulator=3", "nginx", "nginx-tls", timeout=120)
    address = f"https://localhost:{PORT + 2}/api/sales"
    curl = ["curl", "-sS", "-m", "5", "--cacert", str(folder / "tls.crt"), "-o", "/dev/null", "-w", "%{http_code} %{http_version} %{redirect_url}"]
    until("https answers", lambda: run(*curl, address, check=False).stdout.startswith("200 2"), 40)
    seen = run(*curl, f"http://localhost:{PORT}/sales/x?y=1").stdout
    assert seen.startswith("308 ") and seen.endswith("https://localhost/sales/x?y=1"), seen
    proved("profile tls: HTTPS with HTTP/2, and port 80 sends there")


def memory():
    """Bytes used and allowed of each container, as `docker stats` counts them: without the file cache."""
    used = {}
    for service in [*SERVERS, "emulator", "nginx"]:
        for number, name in enumerate(containers(service), 1):
            said = run("docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", name).stdout
            used[f"{service} {number}" if service == "emulator" else service] = [size(text) for text in said.split("/")]
    return used


def size(text):
    number, unit = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]i)?B\s*", text).groups()
    return float(number) * {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def table(idle, under_load):
    print(f"{'memory in MiB':16}{'idle':>8}{'under load':>12}{'limit':>8}")
    for name, (used, limit) in under_load.items():
        print(f"  {name:14}{idle[name][0] / 2**20:8.0f}{used / 2**20:12.0f}{limit / 2**20:8.0f}", flush=True)
        assert used < MEMORY_SHARE_MAX * limit, f"{name}: its memory limit in compose.yaml is too small"


def main():
    started = time.monotonic()
    try:
        from_nothing()
        idle = memory()
        closed()
        browser()
        production()
        audit()
        replaced(idle)
        faults()
        addresses = scaled()
        watched(addresses)
        encrypted()
        proved(f"compose, in {time.monotonic() - started:.0f} s")
    finally:
        if os.environ.get("DEPLOY_TEST_KEEP") != "1":
            compose("--profile", "watch", "--profile", "tls", "down", "-v", "--remove-orphans", "-t", "5", timeout=180, check=False)


if __name__ == "__main__":
    main()

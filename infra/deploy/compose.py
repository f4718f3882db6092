"""infra/deploy/compose calls this: compose.yaml from nothing, a purchase through nginx, and faults while shoppers buy.

Captchas are off by the settings that every installation has (FLASHSALE_PROFILE=development, FLASHSALE_CAPTCHA=off): no machine
can read them, and no way around them exists. Everything else is as an operator has it. Each order that was accepted (202)
must end as `confirmed`, and `audit` must find the books in order after each fault.
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
PROJECT = "flashsale-deploy-test"
PORT = int(os.environ.get("DEPLOY_TEST_PORT", "18080"))
WATCH_PORT = PORT + 1
ENVIRONMENT = os.environ | {
    "FLASHSALE_IMAGE": "flashsale:deploy-test",
    "FLASHSALE_PORT": str(PORT),
    "FLASHSALE_TLS_PORT": str(PORT + 2),
    "FLASHSALE_TLS": str(WORK / "tls"),
    "FLASHSALE_PROMETHEUS_PORT": str(WATCH_PORT),
    "FLASHSALE_SECRETS": str(SECRETS),
    "FLASHSALE_PROFILE": "development",
    "FLASHSALE_CAPTCHA": "off",
    "FLASHSALE_NAME": "localhost",
    # A machine that tests may allow less than a machine that sells.
    "FLASHSALE_NOFILE": str(min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
}
SERVERS = ["redis", "mysql", "rabbitmq"]
# How long a container may take to be healthy again, and accepted orders to be final.
HEALTHY_SECONDS = 120
FINAL_SECONDS = 60
FAULT_SECONDS = 6


def proved(text):
    print(f"ok: {text}", flush=True)


def run(*command, timeout=120, check=True, text=None):
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=timeout, input=text)
    if check and done.returncode != 0:
        raise SystemExit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def compose(*arguments, **options):
    return run("docker", "compose", "-p", PROJECT, "-f", "infra/compose.yaml", *arguments, **options)


def command(*arguments, **options):
    """A command of the emulator's, with the installation's settings."""
    return compose("run", "--rm", "--no-deps", "-T", "emulator", *arguments, **options)


def containers(service):
    return compose("ps", "-a", "-q", service).stdout.split()


def inspect(container, field):
    return run("docker", "inspect", "--format", "{{%s}}" % field, container).stdout.strip()


def until(what, test, seconds):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            print(compose("ps", "-a", check=False).stdout, compose("logs", "--tail", "30", check=False).stdout[-12000:], file=sys.stderr)
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.25)


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
        """Repeats what may be repeated, as API.md asks of a client: no answer, 429 and 5xx."""
        end = time.monotonic() + seconds
        while True:
            status, answer = self.call(method, path, body)
            if status not in (0, 429) and status < 500:
                return status, answer
            if time.monotonic() > end:
                raise RuntimeError(f"{method} {path}: {status} {answer}")
            time.sleep(0.3)


class Crowd:
    """Shoppers who buy one after the other until told to stop."""

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
    """What an outsider or another container can reach."""
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
    """The settings that an operator gets: every other part of this test has captchas off."""
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


def fault(name, break_it, mend, sale, tokens):
    started = time.monotonic()
    crowd = Crowd(sale, tokens)
    time.sleep(2)
    break_it()
    time.sleep(FAULT_SECONDS)
    mend()
    healthy()
    back = time.monotonic() - started
    time.sleep(2)
    bought = crowd.end()
    assert bought > 0, "nobody could buy"
    audit()
    proved(f"{name}: {bought} orders accepted, all confirmed; healthy again {back - 2:.0f} s after; books balance")


def kill(container):
    """As a crash: `docker kill` would count as an operator's wish, after which nothing restarts the container."""
    run("kill", "-9", inspect(container, ".State.Pid"))


def faults():
    tokens, sale = seed(15000), create_sale(15000)
    nothing = lambda: None
    for service in [*SERVERS, "emulator", "nginx"]:
        for number, container in enumerate(containers(service), 1):
            title = f"{service} {number}" if service == "emulator" else service
            fault(f"kill -9 of {title}", lambda: kill(container), nothing, sale, tokens)
            fault(f"pause of {title}", lambda: run("docker", "pause", container), lambda: run("docker", "unpause", container), sale, tokens)
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
    source = "".join(path.read_text() for path in (ROOT / "local-emulator/src").rglob("*.rs"))
    rules = (ROOT / "infra/prometheus/rules.yml").read_text()
    named = set(re.findall(r"flashsale_[a-z_]+", rules + "".join(expression for _, expression in panels())))
    for name in sorted(named):
        # Those of functions as processes exist with --host processes only: their names must be the source's.
        plain = re.sub(r"_bucket$", "", name)
        present = f'"{plain}"' in source if plain.startswith("flashsale_function_") else name in exposed
        assert present, f"{name} is in the dashboard or the rules, and no emulator exposes it"
    # Some traffic, so that rates exist.
    crowd = Crowd(create_sale(300), seed(300), threads=3)
    time.sleep(15)
    crowd.end()
    time.sleep(6)
    for title, expression in panels():
        answer = ask(["query", "--data-urlencode", f"query={expression}"])
        assert answer.get("status") == "success", (title, expression, answer)
        assert answer["data"]["result"] or "flashsale_function_" in expression or "flashsale_limited_total" in expression or 'status=~"5' in expression, f"{title}: no data: {expression}"
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
    names = [name for service in [*SERVERS, "emulator", "nginx"] for name in containers(service)]
    for line in run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *names).stdout.splitlines():
        print(f"  {line}", flush=True)


def main():
    started = time.monotonic()
    try:
        from_nothing()
        print("memory when idle:")
        memory()
        closed()
        production()
        audit()
        faults()
        addresses = scaled()
        watched(addresses)
        encrypted()
        print("memory after it:")
        memory()
        proved(f"compose, in {time.monotonic() - started:.0f} s")
    finally:
        if os.environ.get("DEPLOY_TEST_KEEP") != "1":
            compose("--profile", "watch", "--profile", "tls", "down", "-v", "--remove-orphans", "-t", "5", timeout=180, check=False)


if __name__ == "__main__":
    main()

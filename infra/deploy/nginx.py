"""infra/deploy/nginx calls this: flashsale behind a real nginx that has infra/nginx, changed only in ports and paths.

First with recording servers in place of the instances, which see exactly what nginx sends them; then with the product on
real servers, replacing instances under load.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMULATOR = os.environ["EMULATOR"]
WORK = pathlib.Path(tempfile.mkdtemp(prefix="flashsale-nginx-"))
# nginx's workers do not run as root.
WORK.chmod(0o755)
NAME = "shop.example.com"
CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
SPOOFED = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Host": "evil.example",
           "X-Forwarded-Proto": "http", "Flashsale-Retry": "502", "X-Request-Id": "spoofed", "TE": "trailers", "Proxy": "http://evil",
           "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "evil=1"}


def proved(text):
    print(f"ok: {text}", flush=True)


def check(condition, *told):
    if not condition:
        raise AssertionError(" ".join(str(word) for word in told))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Recorder:
    """Stands for an instance, and records every request that reaches it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.seen, self.connections, self.mode = [], 0, "answer"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rb")
        with connection:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers = []
                while (line := stream.readline().decode("latin-1").rstrip("\r\n")):
                    headers.append(tuple(part.strip() for part in line.split(":", 1)))
                named = {name.lower(): value for name, value in headers}
                check("transfer-encoding" not in named, "nginx sends bodies with their length")
                body = stream.read(int(named.get("content-length", 0)))
                self.seen.append((method, path, headers, body))
                if self.mode == "break":
                    return
                status = b"502 Bad Gateway" if self.mode == "drain" and named.get("flashsale-retry") == "502" else b"200 OK"
                answer = json.dumps({"number": len(self.seen), "path": path}).encode()
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
                                   b"Vary: accept-encoding\r\nX-Request-Id: of-the-first\r\n"
                                   b"Content-Length: %d\r\n\r\n" % len(answer) + answer)

    def take(self):
        seen, self.seen = self.seen, []
        return seen


class Nginx:
    """infra/nginx with other ports and paths."""

    def __init__(self, name, ports):
        self.dir = WORK / name
        (self.dir / "flashsale").mkdir(parents=True)
        self.port, self.plain = free_port(), free_port()
        replaced = {
            "listen 80 default_server": f"listen 127.0.0.1:{self.plain} default_server",
            "listen [::]:80 default_server;": "",
            "listen 443 ssl http2 default_server": f"listen 127.0.0.1:{self.port} ssl http2 default_server",
            "listen [::]:443 ssl http2 default_server;": "",
            "/var/cache/flashsale": str(self.dir / "cache"),
            "/var/lib/flashsale-acme": str(self.dir / "acme"),
            "/var/log/nginx/flashsale.log": str(self.dir / "access.log"),
            "/etc/nginx/flashsale/tls": str(WORK / "tls"),
            "127.0.0.1:8081": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:8082": f"127.0.0.1:{ports[1]}",
        }
        used = set()
        for source in [ROOT / "infra/nginx/flashsale.conf", *sorted((ROOT / "infra/nginx/flashsale").glob("*.conf"))]:
            text = source.read_text()
            for old, new in replaced.items():
                if old in text:
                    used.add(old)
                    text = text.replace(old, new)
            (self.dir / source.relative_to(ROOT / "infra/nginx")).write_text(text)
        check(used == set(replaced), "not in infra/nginx any more:", set(replaced) - used)
        # Debian names modules by a path below the prefix, which differs here.
        (self.dir / "modules").symlink_to("/usr/lib/nginx/modules")
        modules = sorted(pathlib.Path("/etc/nginx/modules-enabled").glob("*.conf"))
        (self.dir / "nginx.conf").write_text(
            f"pid {self.dir}/nginx.pid; error_log {self.dir}/error.log info; worker_processes 2; worker_rlimit_nofile 8192;\n"
            + "".join(f"include {module};\n" for module in modules)
            + "events { worker_connections 2048; }\nhttp { "
            + " ".join(f"{kind}_temp_path {self.dir}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
            + " include flashsale.conf; }\n")
        command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.dir, "-c", self.dir / "nginx.conf"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        check(tested.returncode == 0, tested.stderr)
        self.process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        until("nginx", lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0)

    def open(self, source="127.0.0.1", timeout=30):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout, (source, 0))
        return CONTEXT.wrap_socket(plain, server_hostname=NAME)

    def raw(self, data, source="127.0.0.1", timeout=30):
        """Sends bytes, and returns what comes back until the connection ends or is silent for a second."""
        with self.open(source, timeout) as connection:
            connection.sendall(data)
            connection.settimeout(1)
            told = b""
            try:
                while part := connection.recv(65536):
                    told += part
            except (TimeoutError, ssl.SSLError, ConnectionResetError):
                pass
            return told

    def send(self, method, path, body=None, headers=None, source="127.0.0.1"):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=CONTEXT, source_address=(source, 0))
        headers = {"Host": NAME, **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read()
        finally:
            connection.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def problem(answer, status, slug):
    """nginx's own refusal must be what the product would write, with the title from its table."""
    title = re.search(rf'^ +"{slug}", (\d+), "([^"]*)",', (ROOT / "shared/src/problem.rs").read_text(), re.M)
    code, headers, body = answer
    check(code == status, code, body[:200])
    check(headers["content-type"] == "application/problem+json", headers)
    said = json.loads(body)
    check((said["type"], said["status"], said["title"]) == (f"/problems/{slug}", int(title[1]), title[2]) and said["detail"], said)
    check("nginx/" not in headers.get("server", "") and b"nginx" not in body, headers)
    return headers


# ---------------------------------------------------------------- what reaches an instance

def forwarding(nginx, recorders):
    status, headers, _ = nginx.send("GET", "/api/orders", headers=SPOOFED, source="127.0.0.9")
    check(status == 200)
    (_, _, sent, _), = sum((recorder.take() for recorder in recorders), [])
    named = {name.lower(): value for name, value in sent}
    check(len(named) == len(sent), "a header came twice", sent)
    check(named["x-forwarded-for"] == "127.0.0.9" and named["x-forwarded-proto"] == "https" and named["host"] == NAME, named)
    for absent in ["x-real-ip", "forwarded", "x-forwarded-host", "x-forwarded-port", "te", "proxy", "upgrade", "connection",
                   "traceparent", "tracestate"]:
        check(absent not in named, absent, named)
    check(named["x-request-id"] == headers["x-request-id"] != "spoofed", named)
    nginx.send("POST", "/api/users", {}, headers=SPOOFED)
    (_, _, sent, _), = sum((recorder.take() for recorder in recorders), [])
    check("flashsale-retry" not in {name.lower() for name, _ in sent}, "a client says what nginx repeats", sent)
    proved("spoofed headers are replaced, and X-Forwarded-For is the client's address alone")


def smuggling(nginx, recorders):
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /api/users HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\n"
    chunked = b"0\r\n\r\n" + inner
    attacks = [
        head + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner,
        head + b"Content-Length: 0, %d\r\n\r\n" % len(inner) + inner,
        head + b"Content-Length: +0\r\n\r\n" + inner,
        head + b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding:\x0bchunked\r\nContent-Length: %d\r\n\r\n" % len(chunked) + chunked,
        head + b"Transfer-Encoding: chunked\r\n\r\n0;\n" + b"x" * 8 + b"\r\n\r\n" + inner,
        head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF0\r\n" + inner,
        head + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + inner,
        head + b"X: a\rContent-Length: 0\r\n\r\n"[:-2] + b"Content-Length: %d\r\n\r\n" % len(inner) + inner,
        head + b"X: a\x00\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner,
        b"GET /api/sales HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner,
        b"GET /x HTTP/1.1\r\n Host: a\r\nContent-Length: 0\r\n\r\n" + b"",
    ]
    told = [nginx.raw(attack) for attack in attacks]
    # Bytes after a real body of length 0 are a real second request of the same client: nginx sees and logs it. A request is
    # smuggled if nginx takes it for a body and the instance for a request, or the other way round.
    for recorder in recorders:
        for method, path, headers, body in recorder.take():
            check(not any(value.lower().endswith("chunked") for name, value in headers if name.lower() == "transfer-encoding"), headers)
            lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
            check(len(lengths) <= 1 and sum(lengths) == len(body), method, path, headers)
            check(path == "/smuggled" or path.startswith("/api/"), "a request nobody sent:", method, path)
    time.sleep(1.2)
    log = [json.loads(line) for line in (nginx.dir / "access.log").read_text().splitlines()]
    passed = [line for line in log if line["path"] == "/smuggled" and line["upstream"]]
    refused = sum(answer.startswith(b"HTTP/1.1 400") or b"\r\n\r\n" not in answer or answer.startswith(b"HTTP/1.1 501") for answer in told)
    check(refused >= 11, f"only {refused} of {len(attacks)} were refused", [answer[:40] for answer in told])
    # Only if nginx itself ended the first request: the second is then an ordinary request with the client's own address.
    check(len(passed) <= len(attacks) - refused, passed)
    proved(f"{len(attacks)} attempts at smuggling: {refused} refused, every request that an instance saw is one that nginx saw")


def slow(nginx, recorders):
    def drip(data, expected):
        started = time.monotonic()
        with nginx.open() as connection:
            connection.sendall(data[:60])
            connection.settimeout(0.5)
            for byte in data[60:]:
                try:
                    if not connection.recv(1):
                        break
                    break
                except TimeoutError:
                    pass
                except (ssl.SSLError, OSError):
                    break
                try:
                    if expected == "head":
                        connection.sendall(bytes([byte]))
                except OSError:
                    break
                if time.monotonic() - started > 20:
                    return None
        return time.monotonic() - started

    head = b"GET /api/slow HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\n" + b"X-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    body = b"POST /api/slow HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\nContent-Length: 1000\r\n\r\n" + b"a" * 60
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        waits = [pool.submit(drip, *which) for which in [(head, "head")] * 20 + [(body, "body")] * 20]
        time.sleep(2)
        # Meanwhile all other clients are served.
        started = time.monotonic()
        check(nginx.send("GET", "/api/orders", source="127.0.0.3")[0] == 200)
        check(time.monotonic() - started < 1)
        took = [wait.result() for wait in waits]
    check(all(seconds is not None and seconds < 13 for seconds in took), took)
    check([path for recorder in recorders for _, path, _, _ in recorder.take()] == ["/api/orders"], "an instance saw half a request")
    proved(f"40 slow heads and bodies are ended after at most {max(took):.1f} s; no instance saw one")


def large(nginx, recorders):
    host = b"Host: " + NAME.encode() + b"\r\n"
    for name, request in {
        "a head of 40 KiB": b"GET /api/orders HTTP/1.1\r\n" + host + b"X: " + b"a" * 40960 + b"\r\n\r\n",
        "1,000 header lines": b"GET /api/orders HTTP/1.1\r\n" + host + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 50) for n in range(1000)) + b"\r\n",
        "a path of 20 KiB": b"GET /" + b"a" * 20480 + b" HTTP/1.1\r\n" + host + b"\r\n",
    }.items():
        told = nginx.raw(request)
        check(told.startswith((b"HTTP/1.1 400", b"HTTP/1.1 414")), name, told[:100])
        check(b"application/problem+json" in told and b"/problems/bad-header" in told, name, told)
    problem(nginx.send("POST", "/api/users", b"a" * 16385, {"Content-Type": "application/json"}), 413, "body-too-large")
    check(nginx.send("POST", "/api/users", b"a" * 16384, {"Content-Type": "application/json"})[0] == 200)
    seen = [body for recorder in recorders for _, _, _, body in recorder.take()]
    check([len(body) for body in seen] == [16384], [len(body) for body in seen])
    proved("heads over 32 KiB and bodies over 16 KiB are refused as problems; none reaches an instance")


def hidden(nginx, recorders):
    for path in ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/x/../metrics", "/./metrics",
                 "/2015-03-31/functions/sales/invocations", "/lambda-url/sales/", "/lambda-url/sales/api/sales"]:
        problem(nginx.send("GET", path), 404, "not-found")
    check(nginx.send("GET", "/readyz")[0] == 200, "a load balancer inside may ask")
    check([path for recorder in recorders for _, path, _, _ in recorder.take()] == ["/readyz"])
    proved("metrics and the Invoke API are not there, however they are spelled")


def caching(nginx, recorders):
    def numbers(path, count, headers=None):
        got = [nginx.send("GET", path, headers=headers) for _ in range(count)]
        check(all(status == 200 for status, _, _ in got), path, got)
        check(len({each["x-request-id"] for _, each, _ in got}) == count, "a cached answer has another request's id")
        return {json.loads(body)["number"] for _, _, body in got}

    for path in ["/api/sales", "/", "/sales/0190", "/orders"]:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: numbers(path, 1), range(40)))
        seen = sum(len(recorder.take()) for recorder in recorders)
        check(1 <= seen <= 5, path, seen)
    numbers("/api/sales", 1)
    # nginx counts in whole seconds: an entry written at 0.9 s with a life of one second is stale from 2.0 s on.
    time.sleep(2.1)
    for recorder in recorders:
        recorder.take()
    numbers("/api/sales", 1)
    check(sum(len(recorder.take()) for recorder in recorders) == 1, "older than that")
    for path in ["/api/orders", "/api/sales/0190", "/api/sales?cursor=x", "/api/sessions/current", "/api/admin/sales", "/console", "/readyz"]:
        numbers(path, 5)
        seen = sum(len(recorder.take()) for recorder in recorders)
        check(seen == 5, f"{path} came from the cache: {seen} of 5")
    proved("the list of sales and pages are less than two seconds old; nothing of one user is ever kept")


def keeping(nginx, recorders):
    before = sum(recorder.connections for recorder in recorders)
    for _ in range(100):
        nginx.send("GET", "/api/orders")
    made = sum(recorder.connections for recorder in recorders) - before
    check(made <= 8, made)
    for recorder in recorders:
        recorder.take()
    proved(f"100 requests over {made} new connections to the instances")


def retrying(nginx, recorders):
    bad, good = recorders
    bad.mode = "break"
    for method, path, repeated in [
        ("GET", "/api/orders", True), ("DELETE", "/api/sessions/current", True), ("POST", "/api/sales/1/orders", True),
        ("POST", "/api/sales/1/tickets", True), ("POST", "/api/orders/1/payment", True), ("POST", "/api/orders/1/cancellation", True),
        ("POST", "/api/users", False), ("POST", "/api/sessions", False), ("POST", "/api/admin/sales", False),
        ("PATCH", "/api/admin/sales/1", False), ("PUT", "/api/users/me/password", False),
    ]:
        def once():
            for recorder in recorders:
                recorder.take()
            status = nginx.send(method, path, {} if method in ("POST", "PUT", "PATCH") else None)[0]
            return (status, len(bad.take()), len(good.take()))
        # Until nginx has asked the broken one first; after too many failures nginx sends it nothing for two seconds.
        told = until(f"{method} {path}", lambda: (lambda seen: seen if seen[1] else None)(once()))
        check(told == ((200, 1, 1) if repeated else (503, 1, 0)), method, path, told)
    time.sleep(3.2)
    bad.mode = "drain"
    for recorder in recorders:
        recorder.take()
    told = [nginx.send(method, path, {} if method == "POST" else None)[0]
            for _ in range(30) for method, path in [("GET", "/api/orders"), ("POST", "/api/sales/1/orders")]]
    refused = [1 for _, _, headers, _ in bad.take() if ("Flashsale-Retry", "502") in headers]
    check(set(told) == {200}, told)
    check(1 <= len(refused) <= 21, "nginx does not leave a draining instance alone:", len(refused))
    bad.mode = "answer"
    time.sleep(3.2)
    proved(f"only what is safe is repeated; a draining instance was asked {len(refused)} times in 60, and nobody noticed")


def limiting(nginx, recorders):
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        told = list(pool.map(lambda _: nginx.send("POST", "/api/sessions", {}, source="127.0.0.20"), range(400)))
    refused = [answer for answer in told if answer[0] == 429]
    check(100 <= len(refused) <= 220, len(refused))
    check(problem(refused[0], 429, "rate-limited")["retry-after"] == "1")
    check(nginx.send("POST", "/api/sessions", {}, source="127.0.0.21")[0] == 200, "another address pays for it")
    held = [nginx.open("127.0.0.22") for _ in range(30)]
    check(nginx.send("GET", "/api/orders", source="127.0.0.22")[0] == 200)
    for connection in held:
        connection.close()
    for recorder in recorders:
        recorder.take()
    proved(f"{len(refused)} of 400 sign-ins of one address at once get 429 with Retry-After; another address none")


def outage(nginx, recorders):
    for recorder in recorders:
        recorder.mode = "break"
    headers = problem(nginx.send("GET", "/api/orders"), 503, "unavailable")
    check(headers["retry-after"] == "1" and headers["x-request-id"], headers)
    for recorder in recorders:
        recorder.mode = "answer"
        recorder.take()
    proved("without an instance the answer is the product's `unavailable`, with Retry-After")


def protocols(nginx):
    told = subprocess.run(["curl", "-skI", "--http2", "-o", os.devnull, "-w", "%{http_version}", f"https://127.0.0.1:{nginx.port}/"],
                          capture_output=True, text=True).stdout
    check(told == "2", told)
    with socket.create_connection(("127.0.0.1", nginx.plain)) as connection:
        connection.sendall(b"POST /api/users?x=1 HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    check(said.startswith(b"HTTP/1.1 308") and f"Location: https://{NAME}/api/users?x=1\r\n".encode() in said, said)
    for version in ["-tls1", "-tls1_1"]:
        old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{nginx.port}", version, "-cipher", "ALL:@SECLEVEL=0"],
                             capture_output=True, text=True, stdin=subprocess.DEVNULL)
        check("Cipher is (NONE)" in old.stdout or old.returncode != 0, version, old.stdout[-300:])
    proved("HTTP/2 and TLS 1.2 or newer; plain HTTP is sent to the configured name, whatever Host says")


# ---------------------------------------------------------------- the product

class Product:
    """Instances of the emulator, on servers that another emulator runs."""

    def __init__(self):
        self.data = WORK / "data"
        self.environment = {**{name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")},
                            "FLASHSALE_SERVERS": "local", "FLASHSALE_DATA_DIR": str(self.data), "FLASHSALE_CAPTCHA": "off",
                            "FLASHSALE_TRUSTED_PROXIES": "127.0.0.1/32", "FLASHSALE_DRAIN_MS": "5000", "FLASHSALE_LOG": "warn",
                            "FLASHSALE_NO_DEMO": "1", "FLASHSALE_LIMITS__ADDRESS__LIMIT": "100000",
                            "FLASHSALE_LIMITS__ADDRESS__BURST": "100000"}
        self.running = {}
        self.owner = free_port()
        self.start(self.owner)

    def start(self, port):
        log = open(WORK / f"instance-{port}.log", "ab")
        self.running[port] = subprocess.Popen([EMULATOR, "--listen", f"127.0.0.1:{port}"], env=self.environment, stdout=log, stderr=log)
        until(f"instance {port}", lambda: self.healthy(port), 120)

    def healthy(self, port):
        check(self.running[port].poll() is None, f"instance {port} has ended: see", WORK)
        return subprocess.run([EMULATOR, "health", f"127.0.0.1:{port}"], capture_output=True).returncode == 0

    def run(self, *arguments, **more):
        done = subprocess.run([EMULATOR, *arguments], env=self.environment, capture_output=True, text=True, **more)
        check(done.returncode == 0, arguments, done.stdout, done.stderr)
        return done.stdout

    def stop(self, port):
        process = self.running.pop(port)
        process.send_signal(signal.SIGTERM)
        check(process.wait(30) == 0, f"instance {port}: {process.returncode}")


def buying(nginx, product, tokens, sale):
    def call(method, path, body=None, token=None, **more):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        status, headers, said = nginx.send(method, path, body, {**headers, **more.pop("headers", {})}, **more)
        return status, json.loads(said or b"null")

    token = tokens.pop()
    status, ticket = call("POST", f"/api/sales/{sale}/tickets", {}, token)
    check(status == 201, status, ticket)
    status, order = call("POST", f"/api/sales/{sale}/orders", {"ticket": ticket["ticket"]}, token)
    check(status == 202, status, order)
    until("the order", lambda: call("GET", f"/api/orders/{order['order_id']}", token=token)[1]["status"] == "confirmed")
    proved("a purchase through nginx")

    phone, password = "+1 201-555-0142", "correct horse battery staple 9"
    product.run("users", "add-admin", "--phone", phone, input=password + "\n")
    status, session = call("POST", "/api/sessions", {"phone": phone, "password": password})
    check(status == 201, status, session)
    admin = session["token"]
    with nginx.open() as stream:
        stream.sendall(f"GET /console/live HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {admin}\r\n\r\n".encode())
        stream.settimeout(6)
        started, said = time.monotonic(), b""
        while said.count(b"event: second") < 3:
            said += stream.recv(65536)
        check(time.monotonic() - started < 6, said)
    proved("the console's stream arrives line by line")

    banned = {"kind": "address", "value": "127.0.0.7", "reason": "a test"}
    status, said = call("POST", "/api/admin/blacklist", banned, admin)
    check(status in (200, 201, 204), status, said)
    ticket = lambda source, forwarded=None: call(
        "POST", f"/api/sales/{sale}/tickets", {}, tokens[-1], source=source, headers={"X-Forwarded-For": forwarded} if forwarded else {})
    told = until("the ban", lambda: (lambda answer: answer if answer[0] == 403 else None)(ticket("127.0.0.7")))
    check(told[1]["type"] == "/problems/banned", told)
    check(ticket("127.0.0.7", "127.0.0.8")[0] == 403, "a banned address spoofs itself free")
    check(ticket("127.0.0.8", "127.0.0.7")[0] == 201, "somebody else's ban counts")
    tokens.pop()
    proved("a banned address stays banned, whatever X-Forwarded-For it sends")
    return call


class Shoppers:
    """Twelve shoppers who look, ask and buy until they are stopped; none may notice that instances are replaced."""

    def __init__(self, nginx, tokens, sale, once=("POST", "/api/captchas", {"purpose": "login"}, 201)):
        self.nginx, self.tokens, self.sale = nginx, tokens, sale
        # A request that nginx may not repeat, and its answer: only draining instances lose none of these.
        self.once = once
        # `accepted`: (order id, token) of every 202.
        self.failures, self.accepted, self.requests = [], [], 0
        self.stopping, self.lock, self.started = threading.Event(), threading.Lock(), time.monotonic()
        self.threads = [threading.Thread(target=self.shop, args=(number,)) for number in range(12)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Requests per second, after checking that no shopper failed."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        check(not self.failures, len(self.failures), self.failures[:5])
        return self.requests / (time.monotonic() - self.started)

    def shop(self, worker):
        connection, number = None, 0

        def send(method, path, body=None, token=None, expected=(200, 201, 202)):
            nonlocal connection
            headers = {"Host": NAME, "Content-Type": "application/json"}
            if token:
                headers["Authorization"] = f"Bearer {token}"
            # Each has an address of its own, because another test covers the limits of one address.
            connection = connection or http.client.HTTPSConnection("127.0.0.1", self.nginx.port, timeout=30, context=CONTEXT,
                                                                   source_address=(f"127.0.1.{worker + 1}", 0))
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.will_close:
                connection.close()
                connection = None
            with self.lock:
                self.requests += 1
                if answer.status not in expected:
                    self.failures.append((method, path, answer.status, said[:200]))
            return answer.status, said

        while not self.stopping.is_set():
            with self.lock:
                token = self.tokens.pop() if worker % 2 == 0 and self.tokens else None
            try:
                for path in ["/api/sales", f"/api/sales/{self.sale}", "/"]:
                    send("GET", path)
                number += 1
                if number % 3 == 0:
                    method, path, body, expected = self.once
                    send(method, path, body, expected=(expected,))
                if token:
                    status, said = send("POST", f"/api/sales/{self.sale}/tickets", {}, token)
                    if status == 201:
                        status, said = send("POST", f"/api/sales/{self.sale}/orders", {"ticket": json.loads(said)["ticket"]}, token)
                        if status == 202:
                            with self.lock:
                                self.accepted.append((json.loads(said)["order_id"], token))
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.failures.append((worker, repr(error)))
                connection = None
            time.sleep(0.02)


def replacing(nginx, product, tokens, sale, instances):
    """Replaces both instances in turn, while shoppers buy, look and ask."""
    shoppers = Shoppers(nginx, tokens, sale)
    time.sleep(2)
    for port in instances:
        product.stop(port)
        product.start(port)
        time.sleep(4)
    rate, orders = shoppers.stop(), len(shoppers.accepted)
    check(orders > 20, orders)

    def sold():
        books = product.run("audit", "--within", "60s")
        return int(re.search(r"\+ sold (\d+)", next(line for line in books.splitlines() if sale in line))[1])

    # One more unit was bought before.
    until("every accepted order in the ledger", lambda: sold() == orders + 1, 60)
    proved(f"two instances replaced under {rate:.0f} requests per second: of {shoppers.requests} requests none failed, "
           f"{orders} orders accepted and in the ledger, the books balance")


def make_certificate():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={NAME}", "-keyout", WORK / "tls.key", "-out", WORK / "tls.crt"], check=True, capture_output=True)


def main():
    make_certificate()
    started = []
    product = None
    try:
        recorders = [Recorder(), Recorder()]
        nginx = Nginx("recorded", [recorder.port for recorder in recorders])
        started.append(nginx)
        protocols(nginx)
        for recorder in recorders:
            recorder.take()
        for test in [forwarding, hidden, large, smuggling, keeping, caching, retrying, limiting, outage, slow]:
            test(nginx, recorders)
        product = Product()
        instances = [free_port(), free_port()]
        for port in instances:
            product.start(port)
        nginx = Nginx("product", instances)
        started.append(nginx)
        # A unit for each, so that a slow machine, which needs more time to replace instances, does not sell out.
        product.run("users", "seed", "--count", "3000", "--out", str(WORK / "users.csv"))
        tokens = [line.rsplit(",", 1)[1] for line in (WORK / "users.csv").read_text().split()[1:]]
        sale = json.loads(product.run("sales", "create", "--title", "Phone", "--stock", "3000", "--price", "1999"))["sale_id"]
        buying(nginx, product, tokens, sale)
        replacing(nginx, product, tokens, sale, instances)
    except BaseException:
        print(f"failed; logs in {WORK}", file=sys.stderr)
        raise
    finally:
        for nginx in started:
            nginx.stop()
        if product:
            for port in sorted(product.running, key=lambda port: port == product.owner):
                product.stop(port)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()

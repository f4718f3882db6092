"""infra/deploy/upgrade calls this: it replaces the release OLD by NEW, and NEW by OLD, on one set of servers behind a real nginx,
while shoppers look and buy. RELEASE: the version of a NEW that was made for this test, with migrations and a message field that OLD
does not know; empty when OLD is the binary of a real release.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse

import nginx as site
from nginx import WORK, Nginx, Shoppers, check, free_port, proved, until

OLD, NEW, RELEASE = os.environ["OLD"], os.environ["NEW"], os.environ["RELEASE"]
HOLD = os.environ["HOLD"]


class Servers:
    """Redis, MariaDB and RabbitMQ, started by neither release."""

    def __init__(self):
        self.process = subprocess.Popen([HOLD, WORK / "servers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = ""
        while not re.search(r"^}", said, re.M):
            line = self.process.stdout.readline()
            check(line, "the servers do not start:", said)
            said += line
        self.urls = dict(re.findall(r"(\w+): Some\(\s*\"([^\"]+)\"", said))

    def sql(self, statement):
        url = urllib.parse.urlsplit(self.urls["mysql"])
        done = subprocess.run(["mariadb", "--protocol=tcp", f"--host={url.hostname}", f"--port={url.port}", f"--user={url.username}",
                               "--batch", "--skip-column-names", url.path.lstrip("/"), "-e", statement],
                              env={**os.environ, "MYSQL_PWD": urllib.parse.unquote(url.password or "")}, capture_output=True, text=True)
        check(done.returncode == 0, statement, done.stderr)
        return done.stdout.strip()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


class Installation(site.Product):
    """Instances of either release."""

    def __init__(self, urls):
        self.environment = {**{name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")},
                            "FLASHSALE_SERVERS": "external", "FLASHSALE_REDIS_URL": urls["redis"], "FLASHSALE_DATABASE_URL": urls["mysql"],
                            "FLASHSALE_AMQP_URL": urls["amqp"], "FLASHSALE_DATA_DIR": str(WORK / "data"), "FLASHSALE_CAPTCHA": "off",
                            "FLASHSALE_TRUSTED_PROXIES": "127.0.0.1/32", "FLASHSALE_DRAIN_MS": "5000", "FLASHSALE_LOG": "warn",
                            "FLASHSALE_LIMITS__ADDRESS__LIMIT": "100000", "FLASHSALE_LIMITS__ADDRESS__BURST": "100000"}
        self.running = {}

    def start(self, port, binary):
        log = open(WORK / f"instance-{port}.log", "ab")
        self.running[port] = subprocess.Popen([binary, "--listen", f"127.0.0.1:{port}"], env=self.environment, stdout=log, stderr=log)
        until(f"instance {port}", lambda: self.healthy(port), 60)

    def replace(self, port, binary):
        self.stop(port)
        self.start(port, binary)
        # After failures nginx sends an instance nothing for up to this long.
        time.sleep(4)

    def ask(self, binary, *arguments):
        done = subprocess.run([binary, *arguments], env=self.environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr


def main():
    site.make_certificate()
    servers, shop, nginx = Servers(), None, None
    try:
        shop = Installation(servers.urls)
        ports = [free_port(), free_port()]
        for port in ports:
            shop.start(port, OLD)
        nginx = Nginx("upgrade", ports)
        site.EMULATOR = OLD
        shop.run("users", "seed", "--count", "20000", "--out", str(WORK / "users.csv"))
        tokens = [line.rsplit(",", 1)[1] for line in (WORK / "users.csv").read_text().split()[1:]]
        sale = re.search(r'"sale_id":\s*"([^"]+)"', shop.run("sales", "create", "--title", "Phone", "--stock", "20000", "--price", "1999"))[1]
        knows_newer = shop.ask(OLD, "migrate", "--check")[0] == 0
        tables = servers.sql("SHOW TABLES")
        # No captchas, because drawing them takes most of the processor time of a debug build.
        shoppers = Shoppers(nginx, tokens, sale, once=("POST", "/api/users", {"phone": "+1 201-555-0142", "password": "short"}, 422))
        time.sleep(2)

        code, said = shop.ask(NEW, "migrate", "--check")
        changes = code == 1
        check(code in (0, 1) and servers.sql("SHOW TABLES") == tables, code, said)
        if RELEASE:
            check(changes and "pending: 9000 rehearsal columns" in said and "3 migrations are pending" in said, said)
        proved(f"`migrate --check` of the next release: {said.strip().splitlines()[-1]}; it has changed nothing")
        code, said = shop.ask(NEW, "migrate")
        check(code == 0 and (not RELEASE or "done: 9001 rehearsal table, in " in said), code, said)
        code, said = shop.ask(NEW, "migrate", "--check")
        check(code == 0, code, said)
        proved("`migrate` under load: " + "; ".join(said.strip().splitlines()))

        returns = knows_newer or not changes
        check(returns or not RELEASE, "this release can't say whether it works on another's schema")
        if returns:
            if RELEASE:
                code, said = shop.ask(OLD, "migrate", "--check")
                check(code == 0 and "note: 9000 rehearsal columns is of a newer release" in said, code, said)
            shop.replace(ports[0], OLD)
            proved("an instance of the previous release starts on the new schema")
        for port in ports:
            shop.replace(port, NEW)
        proved("both instances replaced by the next release")
        if returns:
            for port in ports:
                shop.replace(port, OLD)
            proved("and by the previous one again")
        else:
            code, said = shop.ask(OLD, "audit")
            check(code == 2 and "newer release" in said, code, said)
            print(f"note: this previous release refuses a newer schema, so there is no way back to it: {said.strip()}")

        rate = shoppers.stop()
        check(len(shoppers.accepted) > 100, len(shoppers.accepted))
        site.EMULATOR = OLD if returns else NEW
        books = shop.run("audit", "--within", "60s")
        check("parked" not in books, books)
        check(tokens, "everybody had bought before the end")
        confirmed = set(servers.sql("SELECT order_id FROM orders WHERE status = 'confirmed'").split())
        lost = [order_id for order_id, _ in shoppers.accepted if order_id not in confirmed]
        recorded = servers.sql("SELECT order_id, status, reason FROM orders WHERE status <> 'confirmed'")
        check(not lost, len(lost), lost[:5], recorded)
        for order_id, token in shoppers.accepted[::100]:
            said = nginx.send("GET", f"/api/orders/{order_id}", headers={"Authorization": f"Bearer {token}"})
            check(said[0] == 200 and b'"status":"confirmed"' in said[2], order_id, said)
        proved(f"{rate:.0f} requests per second all the time: of {shoppers.requests} none failed; all {len(shoppers.accepted)} orders that were "
               "accepted are confirmed, no message is parked, the books balance")
        if RELEASE:
            by_release = dict(line.split() for line in servers.sql(
                "SELECT rehearsal_release, COUNT(*) FROM orders GROUP BY rehearsal_release").splitlines())
            check(int(by_release["next"]) > 20 and int(by_release["previous"]) > 20, by_release)
            proved(f"both releases have recorded orders: {by_release}")
            contracted(servers, shop, ports)
    except BaseException:
        print(f"failed; logs in {WORK}", file=sys.stderr)
        raise
    finally:
        if nginx:
            nginx.stop()
        if shop:
            for process in shop.running.values():
                process.send_signal(signal.SIGTERM)
            for process in shop.running.values():
                process.wait(30)
        servers.stop()
    shutil.rmtree(WORK)


def contracted(servers, shop, ports):
    """The release after the next one removes what OLD uses."""
    servers.sql(f"INSERT INTO _sqlx_migrations VALUES (9100, 'contract {RELEASE} drop it', CURRENT_TIMESTAMP, TRUE, '', 0)")
    for arguments in [("migrate", "--check"), ("migrate",), ("audit",), ("--listen", f"127.0.0.1:{free_port()}")]:
        code, said = shop.ask(OLD, *arguments)
        check(code == 2 and f"has removed what releases before {RELEASE} need" in said and f"use {RELEASE} or a newer one" in said, code, said)
    code, said = shop.ask(NEW, "migrate", "--check")
    check(code == 0, code, said)
    shop.replace(ports[0], NEW)
    proved("after a contraction the previous release says which one to use, and the next one works")


main()

"""Measures a draw with many entries; infra/load/draw calls this.

Usage: draw.py EMULATOR ENTRIES
"""

import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench
import tickets
from bench import Failed, Server, call, descendants, resident

STOCK = 1_000
CONNECTIONS, PIPELINED = 128, 8
# Users whose polls are measured: few enough that each asks often, because a user's first sold-out refusal comes from the store.
POLLERS = 2_000
ROUNDS, SECONDS = 5, 3
WAIT_SECONDS = 1_800


def moment(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Measurement:
    """One emulator with its servers, and the users."""

    def __init__(self, binary, work):
        self.binary, self.work = binary, work
        self.flags = ["--data-dir", str(work / "data"), "--servers", "local"]
        many = {"LIMIT": "1000000", "BURST": "1000000"}
        limits = {f"LIMITS__{name}__{key}": value for name in ("ENTRY", "ORDER_STATUS") for key, value in many.items()}
        self.env = bench.environment() | {f"FLASHSALE_{key}": value for key, value in limits.items()}

    def command(self, *arguments, text=None):
        command = [self.binary, *arguments, *self.flags]
        done = subprocess.run(command, env=self.env, input=text, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")

    def seed(self, count):
        self.command("users", "add-admin", "--phone", bench.ADMIN[0], text=bench.ADMIN[1] + "\n")
        begun, users = time.monotonic(), self.work / "users.csv"
        self.command("users", "seed", "--count", str(count), "--out", str(users))
        print(f"{count:,} users: {time.monotonic() - begun:.0f} s", flush=True)
        return tickets.tokens_of(users, count)

    def asked(self, method, path, body=None, token=None):
        status, answer = call(self.base, method, path, token or self.admin, body)
        if status not in (200, 201, 202):
            raise Failed(f"{method} {path}: {status} {answer}")
        return answer

    def create(self, **fields):
        sale = {"title": "Draw", "description": "", "price": 1999, "ends_at": moment(6 * 3600)} | fields
        return self.asked("POST", "/api/admin/sales", sale)["sale_id"]

    def stats(self, sale):
        return self.asked("GET", f"/api/admin/sales/{sale}/stats")

    def until(self, sale, reached, what):
        """The first figures of the draw for which `reached` holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            stats = self.stats(sale)
            if reached(stats["draw"]):
                return stats
            time.sleep(0.02)
        raise Failed(f"{what}: {stats['draw']}")

    def memory(self):
        redis = [resident(pid) for pid, name in descendants(self.server.pid) if name == "redis-server"]
        return self.server.rss(), sum(redis)

    def wrk(self, script, **variables):
        command = ["wrk", "-t", "2", "-c", "64", "-d", f"{SECONDS}s", "-s", str(bench.HERE / script), self.base]
        done = subprocess.run(command, env=os.environ | {"THREADS": "2"} | variables, capture_output=True, text=True)
        rate = re.search(r"^Requests/sec:\s*([\d.]+)", done.stdout, re.M)
        if done.returncode or not rate:
            raise Failed(f"wrk: {done.stdout}{done.stderr}")
        return float(rate[1]), "Non-2xx" in done.stdout


def entering(measured, sale, tokens):
    before, begun = measured.memory(), time.monotonic()
    entries = tickets.post(measured.base, f"/api/sales/{sale}/entries", tokens, "entry", CONNECTIONS, PIPELINED)
    with open(measured.work / "entries", "w") as lines:
        for number, entry in enumerate(entries):
            if number < POLLERS:
                lines.write(f"{tokens[number]},{entry}\n")
    took = time.monotonic() - begun
    measured.until(sale, lambda draw: draw["in_time"] + draw["late"] == len(tokens), "not all entries are recorded")
    recorded, after = time.monotonic() - begun, measured.memory()
    print(f"{len(tokens):,} entries accepted in {took:.0f} s ({len(tokens) / took:,.0f}/s), all rows after {recorded:.0f} s", flush=True)
    for who, was, now in zip(("emulator", "Redis"), before, after):
        print(f"memory of {who}: {was / 2**20:.0f} -> {now / 2**20:.0f} MiB, {(now - was) / len(tokens):.0f} bytes per entry", flush=True)


def opening(measured, sale):
    starts_at = time.time() + 2
    measured.asked("PATCH", f"/api/admin/sales/{sale}", {"starts_at": moment(2)})
    processor = measured.server.processor_seconds()
    measured.until(sale, lambda draw: draw["closed_at"] is not None, "entries are not closed")
    closed = time.time() - starts_at
    measured.until(sale, lambda draw: draw["invited"] >= STOCK, "not enough users are invited")
    invited = time.time() - starts_at
    processor = measured.server.processor_seconds() - processor
    print(f"from the start: entries closed after {closed:.1f} s, {STOCK:,} users invited after {invited:.1f} s", flush=True)
    emulator, redis = measured.memory()
    print(f"memory then: emulator {emulator / 2**20:.0f} MiB, Redis {redis / 2**20:.0f} MiB; the emulator worked {processor:.1f} s", flush=True)


def polls(measured, sale, gone):
    ratios, rates = [], []
    for _ in range(ROUNDS):
        refusals, all_refused = measured.wrk("tickets.lua", SALE=gone, TOKENS=str(measured.work / "pollers.csv"))
        answers, any_refused = measured.wrk("polls.lua", SALE=sale, ENTRIES=str(measured.work / "entries"))
        if any_refused or not all_refused:
            raise Failed("polls are refused, or the other sale is not sold out")
        ratios.append(answers / refusals)
        rates.append((answers, refusals))
        print(f"polls {answers:,.0f}/s   sold-out refusals {refusals:,.0f}/s   ratio {ratios[-1]:.2f}", flush=True)
    middle = [statistics.median(column) for column in zip(*rates)]
    print(f"median: polls {middle[0]:,.0f}/s, refusals {middle[1]:,.0f}/s, ratio {statistics.median(ratios):.2f}", flush=True)


def run(binary, count, work):
    measured = Measurement(binary, work)
    command = [binary, "--listen", "127.0.0.1:0", *measured.flags]
    with Server(command, measured.env) as server:
        measured.server, measured.base = server, server.base
        tokens = measured.seed(count)
        status, session = call(server.base, "POST", "/api/sessions", None, dict(zip(("phone", "password"), bench.ADMIN)))
        if status != 201:
            raise Failed(f"sign-in of the administrator: {status} {session}")
        measured.admin = session["token"]
        with open(work / "users.csv") as users, open(work / "pollers.csv", "w") as pollers:
            pollers.writelines(line for _, line in zip(range(POLLERS + 1), users))
        gone = measured.create(stock=1, starts_at=moment(-1))
        (ticket,) = tickets.fetch(server.base, gone, tokens[-1:])
        measured.asked("POST", f"/api/sales/{gone}/orders", {"ticket": ticket}, tokens[-1])
        sale = measured.create(stock=STOCK, allocation="draw", entries_open_at=moment(-1), starts_at=moment(5 * 3600), invite_seconds=3600)
        entering(measured, sale, tokens)
        opening(measured, sale)
        # Caches hold the front of the line for some tenths of a second.
        time.sleep(1)
        polls(measured, sale, gone)


def main():
    binary, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="flashsale-draw-") as work:
        try:
            run(binary, count, Path(work))
        except Failed as failed:
            raise SystemExit(f"infra/load/draw: {failed}") from None


if __name__ == "__main__":
    main()

"""One embedded emulator with a data directory and settings of its own."""

import csv
import os
import pathlib
import re
import signal
import subprocess
import time

START_SECONDS = 30
STOP_SECONDS = 20


class EmulatorFailed(RuntimeError):
    """A command, the start or the stop failed; the message says how."""


class Emulator:
    def __init__(self, program, folder, settings):
        self.program, self.folder, self.process = program, pathlib.Path(folder), None
        own = {f"FLASHSALE_{name}": value for name, value in settings.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
        self.environment = others | own | {"FLASHSALE_DATA_DIR": str(self.folder / "data"), "FLASHSALE_SERVERS": "embedded"}

    def run(self, *arguments, stdin=""):
        """Runs a command on the emulator's state; it must not be serving."""
        return subprocess.run(
            [self.program, *arguments], input=stdin, env=self.environment, capture_output=True, text=True, check=False
        )

    def must(self, *arguments, stdin=""):
        ran = self.run(*arguments, stdin=stdin)
        if ran.returncode != 0:
            raise EmulatorFailed(f"local-emulator {arguments[0]} exited with {ran.returncode}: {ran.stderr.strip()}")
        return ran.stdout

    def seed(self, count):
        """Makes users who are signed in: (user id, token) of each."""
        if count == 0:
            return []
        out = self.folder / "users.csv"
        self.must("users", "seed", "--count", str(count), "--out", str(out))
        with open(out) as lines:
            return [(row["user_id"], row["token"]) for row in csv.DictReader(lines)]

    def add_admin(self, phone, password):
        self.must("users", "add-admin", "--phone", phone, stdin=password + "\n")

    def start(self):
        """Starts serving and returns the address."""
        out, err = self.folder / "out", self.folder / "err"
        with open(out, "w") as stdout, open(err, "a") as stderr:
            command = [self.program, "--no-demo", "--listen", "127.0.0.1:0"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=stdout, stderr=stderr)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"^listening on (http://\S+)$", out.read_text(), re.MULTILINE):
                return found[1]
            time.sleep(0.02)
        self.kill()
        raise EmulatorFailed(f"the emulator did not start: {err.read_text().strip()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise EmulatorFailed(f"the emulator did not stop within {STOP_SECONDS} s") from None
        self.process = None
        if code != 0:
            raise EmulatorFailed(f"the emulator exited with {code}: {(self.folder / 'err').read_text().strip()[-2000:]}")

    def entries(self, sale_id):
        """The entries of a draw, each with user_id, arrival (empty for those in time) and invited_as."""
        out = self.folder / "entries.csv"
        self.must("sales", "export-entries", "--sale", sale_id, "--out", str(out))
        with open(out) as lines:
            return list(csv.DictReader(lines))

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def audit(self):
        """Whether the books balance, and what the audit says."""
        ran = self.run("audit", "--within", "30s")
        return ran.returncode == 0, (ran.stdout + ran.stderr).strip()

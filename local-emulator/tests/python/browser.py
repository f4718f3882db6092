"""What the browser tests share: Chromium, a visitor who notes everything that goes wrong in the page, and the shop's API."""

import contextlib
import itertools
import json
import os
import shutil
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import expect, sync_playwright

BASE = os.environ["SHOP_BASE"]
PASSWORD = "battery staple"
# A slow machine is not what is tested.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The browser's console is told by Chromium itself of most violations, but not of all.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
# A visitor whose clock is three hours ahead.
WRONG_CLOCK = """
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...parts) { parts.length ? super(...parts) : super(RealDate.now() + 3 * 3_600_000); }
  static now() { return RealDate.now() + 3 * 3_600_000; }
};
"""


def chromium():
    names = ["chromium", "chromium-browser", "google-chrome"]
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "chromium is missing: infra/test installs it"
    return found


class Api:
    """A client of the API that is no browser: the administrator, and shoppers who get in the visitor's way."""

    numbers = itertools.count(100)

    def __init__(self, phone=None, password=PASSWORD):
        self.phone = phone or f"+1 212-555-0{next(Api.numbers)}"
        self.password = password
        self.token = None
        if phone is None:
            self.call("POST", "/api/users", {"phone": self.phone, "password": password})
        self.token = self.call("POST", "/api/sessions", {"phone": self.phone, "password": password})["token"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(BASE + path, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def buy(self, sale):
        ticket = self.call("POST", f"/api/sales/{sale}/tickets")["ticket"]
        return self.call("POST", f"/api/sales/{sale}/orders", {"ticket": ticket})["order_id"]


def admin():
    return Api(os.environ["SHOP_ADMIN_PHONE"], os.environ["SHOP_ADMIN_PASSWORD"])


def create_sale(title, stock=5, starts_in=-1.0, ends_in=3600.0, limit=1, **more):
    """The id of a new sale; times are seconds from now."""
    moment = lambda seconds: (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()
    fields = {
        "title": title,
        "description": "For a test.",
        "price": 1999,
        "original_price": 49900,
        "stock": stock,
        "per_user_limit": limit,
        "starts_at": moment(starts_in),
        "ends_at": moment(ends_in),
    }
    return admin().call("POST", "/api/admin/sales", fields | more)["sale_id"]


class Visitor:
    """One browser window. At its end nothing may have gone wrong that was not expected."""

    def __init__(self, browser, wrong_clock=False, **options):
        self.context = browser.new_context(base_url=BASE, **({"locale": "en-US"} | options))
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(REPORT_VIOLATIONS)
        if wrong_clock:
            self.context.add_init_script(WRONG_CLOCK)
        self.page = self.context.new_page()
        self.faults = []
        # Refusals that belong to the test, as statuses: Chromium reports each as an error.
        self.expected = set()
        self.sent = []
        # Addresses elsewhere that belong to the test.
        self.others = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("request", self._see)

    def _hear(self, message):
        if message.type not in ("error", "warning"):
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        # What the tests themselves break off.
        if "net::ERR_FAILED" in message.text and "aborted" in self.expected:
            return
        self.faults.append(f"{message.type}: {message.text} ({message.location})")

    def _see(self, request):
        if not request.url.startswith((BASE, "data:", "blob:", *self.others)):
            self.faults.append(f"a request to somebody else: {request.url}")
        if request.method == "POST":
            self.sent.append((request.url.removeprefix(BASE), request.post_data))

    def posts(self, end):
        """The bodies of what was sent to addresses with this end."""
        return [body for path, body in self.sent if path.endswith(end)]

    def register(self, next_page="/"):
        """Registers and signs in with the page's own form; returns the phone number."""
        phone = f"(312) 555-0{next(Api.numbers)}"
        self.page.goto(f"/register?next={next_page}")
        self.page.get_by_label("Phone number", exact=True).fill(phone)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Register and sign in").click()
        self.page.wait_for_url(BASE + next_page)
        return phone

    def wait_until(self, holds):
        """For what no locator shows. Playwright's `wait_for_function` repeats a check by `eval`, which the pages' policy forbids."""
        for _ in range(PATIENCE_MS // 50):
            if holds():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not happen in time")

    def orders(self):
        """The user's orders, as the API has them."""
        return self.context.request.get("/api/orders").json()["orders"]

    def accessible(self, what):
        """axe finds nothing serious or critical, in either colours, and nothing sticks out of a narrow window."""
        for colours in ("light", "dark"):
            # Without motion, or colours are looked at while they change.
            self.page.emulate_media(color_scheme=colours, reduced_motion="reduce")
            self.wait_until(lambda: self.page.evaluate("document.documentElement.dataset.bsTheme") == colours)
            self.page.evaluate(AXE)
            found = self.page.evaluate("axe.run().then((results) => results.violations)")
            for violation in found:
                if violation["impact"] in ("serious", "critical"):
                    places = [node["html"] + " " + node["failureSummary"] for node in violation["nodes"]]
                    self.faults.append(f"{what}, {colours}: {violation['id']}: {violation['help']}: {places}")
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": 320, "height": 640})
        wide = self.page.evaluate("document.scrollingElement.scrollWidth")
        if wide > 320:
            self.faults.append(f"{what}: {wide} pixels wide in a window of 320")
        self.page.set_viewport_size(size)

    def leave(self):
        self.context.close()
        assert not self.faults, "\n".join(self.faults)


@contextlib.contextmanager
def browser():
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield chrome
        finally:
            chrome.close()


@contextlib.contextmanager
def visitor(**options):
    with browser() as chrome:
        one = Visitor(chrome, **options)
        try:
            yield one
        except BaseException:
            print("\n".join(one.faults))
            print(one.page.url, one.page.locator("body").inner_text())
            raise
        one.leave()

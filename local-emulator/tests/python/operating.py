"""The operator in a real browser. `operating.py NAME` plays one of the scenarios below; local-emulator/tests/it/browser.rs
starts the emulator and calls them all."""

import base64
import csv
import json
import os
import re
import signal
import sys
import urllib.request
from datetime import datetime, timedelta, timezone

from browser import BASE, Api, create_sale, expect, visitor


def sign_in(one, phone, password):
    page = one.page
    page.goto("/sign-in?next=/console")
    page.get_by_label("Phone number", exact=True).fill(phone)
    page.get_by_label("Password").fill(password)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{BASE}/console")


def sign_in_as_admin(one):
    sign_in(one, os.environ["SHOP_ADMIN_PHONE"], os.environ["SHOP_ADMIN_PASSWORD"])


def units_move():
    """Units move from available to sold while the operator looks, and the figures with them."""
    sale = create_sale("Seen live", stock=10)
    shoppers = [Api() for _ in range(4)]
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        bar = page.locator(f"#figures [data-sale='{sale}']")
        expect(bar).to_contain_text("sold 0, reserved 0, available 10")
        expect(page.locator("#figures canvas")).to_have_count(3)
        page.evaluate("document.body.dataset.loaded = 'once'")
        page.evaluate(
            """() => { window.most = 0; new MutationObserver(() => {
                 const orders = Number(document.querySelector("#figures dl dd").textContent);
                 window.most = Math.max(window.most, orders || 0);
               }).observe(document.querySelector("#figures"), { subtree: true, childList: true, characterData: true }); }"""
        )
        for shopper in shoppers:
            shopper.buy(sale)
        expect(bar).to_contain_text("sold 4, reserved 0, available 6")
        width = page.evaluate("(bar) => bar.querySelector('.sold').style.width", bar.element_handle())
        assert width == "40%", width
        one.wait_until(lambda: page.evaluate("window.most") > 0)
        expect(page.locator("#figures figure").first).to_have_attribute("aria-label", re.compile("accepted: "))
        assert page.evaluate("document.body.dataset.loaded") == "once", "the page was loaded again"

        page.locator(f"#sales [data-sale='{sale}']").get_by_role("button", name="Look at the books").click()
        books = page.locator("#books")
        expect(books).to_contain_text("stock 10 = available 6 + reserved 0 + sold 4")
        expect(books.locator(".alert-success")).to_contain_text("The books balance")


def steer():
    """Creates a sale, opens and closes it."""
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        page.get_by_text("Create a sale").click()
        page.get_by_label("Title").fill("From the console")
        page.get_by_label("Price in").fill("1999")
        page.get_by_label("Units", exact=True).fill("0")
        one.expected |= {422}
        create = page.get_by_role("button", name="Create the sale")
        create.click()
        expect(page.locator("#stock")).to_be_focused()
        one.expected.clear()
        page.get_by_label("Units", exact=True).fill("3")
        create.click()
        expect(page.locator("#create")).to_contain_text("“From the console” is created.")
        row = page.locator("#sales li", has_text="From the console")
        expect(row).to_contain_text("Soon")
        row.get_by_role("button", name="Open now").click()
        expect(row).to_contain_text("Open")
        expect(row.get_by_role("button", name="Open now")).to_have_count(0)
        sale = row.get_attribute("data-sale")
        Api().buy(sale)
        row.get_by_role("button", name="Close now").click()
        page.get_by_role("button", name="Yes, close it").click()
        expect(row).to_contain_text("Ended")
        assert Api().call("GET", f"/api/sales/{sale}")["state"] == "ended"


def limits():
    """Limits who may buy when creating a sale, then changes and removes each limit; the API's answer follows."""
    local = lambda day: datetime(2026, 1, day, 12, 30)
    utc = lambda day: local(day).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    written = lambda day: local(day).strftime("%Y-%m-%dT%H:%M:%S")
    one_network, registered = "At most {} from one network.", "Only accounts registered before"
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        page.get_by_text("Create a sale").click()
        form = page.locator("#create")
        form.get_by_label("Title").fill("With limits")
        form.get_by_label("Price in").fill("1999")
        form.get_by_label("Units", exact=True).fill("9")
        form.get_by_label("Units for each network").fill("0")
        form.get_by_label("Only for users who registered before").fill(written(2))
        one.expected |= {422}
        create = page.get_by_role("button", name="Create the sale")
        create.click()
        expect(page.locator("#units_per_prefix")).to_be_focused()
        one.expected.clear()
        form.get_by_label("Units for each network").fill("4")
        create.click()
        expect(form).to_contain_text("“With limits” is created.")
        row = page.locator("#sales li", has_text="With limits")
        expect(row).to_contain_text(one_network.format(4))
        expect(row).to_contain_text(registered)
        sale = row.get_attribute("data-sale")

        def follows(limit, before):
            """The page and the API have these limits, and the trail the latest change."""
            terms = Api().call("GET", f"/api/sales/{sale}")
            assert (terms.get("units_per_prefix"), terms.get("eligible_registered_before")) == (limit, before), terms
            if limit is None:
                expect(row).not_to_contain_text("from one network")
            else:
                expect(row).to_contain_text(one_network.format(limit))
            if before is None:
                expect(row).not_to_contain_text(registered)
            else:
                expect(row).to_contain_text(registered)

        follows(4, utc(2))
        summary = row.locator("summary", has_text="Change the limits")
        of_network = row.get_by_label("Units for each network")
        before = row.get_by_label("Only for users who registered before")

        def change(field, value):
            """Opens the form, changes one field and saves."""
            summary.click()
            field.fill(value)
            row.get_by_role("button", name="Save the limits").click()
            # The row is made anew, with its form closed.
            expect(field).to_be_hidden()
            expect(summary).to_be_focused()

        summary.click()
        expect(of_network).to_have_value("4")
        expect(before).to_have_value(re.compile(f"^{local(2):%Y-%m-%dT%H:%M}"))
        one.accessible("the form of a sale's limits")
        # What the browser can't read would be sent as if it were empty.
        of_network.fill("")
        of_network.press_sequentially("1e")
        row.get_by_role("button", name="Save the limits").click()
        expect(of_network).to_be_focused()
        expect(row).to_contain_text("This can’t be read.")
        one.expected |= {422}
        of_network.fill("0")
        row.get_by_role("button", name="Save the limits").click()
        expect(of_network).to_have_attribute("aria-invalid", "true")
        one.expected.clear()
        summary.click()
        follows(4, utc(2))

        change(of_network, "5")
        follows(5, utc(2))
        change(before, written(3))
        follows(5, utc(3))
        change(of_network, "")
        follows(None, utc(3))
        change(before, "")
        follows(None, None)
        page.locator("#actions").get_by_role("button", name="Read again").click()
        latest = page.locator("#actions tbody tr")
        expect(latest.first).to_contain_text("eligible_registered_before: ")
        expect(latest.first).to_contain_text("→ –")
        expect(latest.nth(1)).to_contain_text("units_per_prefix: 5 → –")


def draws():
    """Creates a sale by draw that waits for a beacon, sees the entries, and stores the beacon's value."""
    local = lambda seconds: (datetime.now() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        page.get_by_text("Create a sale").click()
        form = page.locator("#create")
        form.get_by_label("Title").fill("By draw from the console")
        form.get_by_label("Price in").fill("1999")
        form.get_by_label("Units", exact=True).fill("1")
        expect(form.get_by_label("Entries open")).to_be_hidden()
        form.get_by_label("How units are given out").select_option("draw")
        form.get_by_label("Entries open").fill(local(-60))
        form.get_by_label("Seconds that an invitation lasts").fill("5")
        form.get_by_label("Public random value").fill("drand round 1")
        form.get_by_label("Only for users who registered before").fill(local(3600))
        form.get_by_label("Opens", exact=True).fill(local(8))
        one.expected |= {422}
        create = page.get_by_role("button", name="Create the sale")
        create.click()
        expect(page.locator("#invite_seconds")).to_be_focused()
        one.expected.clear()
        form.get_by_label("Seconds that an invitation lasts").fill("60")
        one.accessible("the form of a draw")
        form.get_by_label("Opens", exact=True).fill(local(8))
        create.click()
        expect(form).to_contain_text("“By draw from the console” is created.")
        row = page.locator("#sales li", has_text="By draw from the console")
        expect(row).to_contain_text("Not drawn yet")
        sale = row.get_attribute("data-sale")
        terms = Api().call("GET", f"/api/sales/{sale}")
        assert (terms["invite_seconds"], terms["beacon"]) == (60, "drand round 1") and terms["eligible_registered_before"], terms
        Api().call("POST", f"/api/sales/{sale}/entries", {})
        expect(row).to_contain_text("Entries: 1 in time, 0 late.")
        expect(row).to_contain_text("The draw waits for the value of: drand round 1", timeout=60_000)
        one.accessible("a draw that waits")
        row.get_by_label("The value, as its publisher writes it").fill("b9c3f0")
        row.get_by_role("button", name="Store the value").click()
        expect(row).to_contain_text("Drawn.")
        expect(row).to_contain_text("Invited so far: 1. Open invitations: 1. Free units: 0.")
        expect(row.get_by_role("button", name="Store the value")).to_have_count(0)


def parked():
    """A message that can't be used appears by itself, is tried again, and is thrown away."""
    event = {
        "rmqMessagesByQueue": {
            "flashsale.orders::/": [
                {
                    "basicProperties": {"bodySize": 6, "deliveryMode": 2, "priority": 0},
                    "data": base64.b64encode(b"<b>no</b>").decode(),
                    "redelivered": False,
                }
            ]
        }
    }
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        part = page.locator("#parked")
        expect(part).to_contain_text("No message is parked.")
        # The first second has to be there before the change.
        expect(page.locator("#figures canvas")).to_have_count(3)
        request = urllib.request.Request(f"{os.environ['SHOP_INVOKE_BASE']}/2015-03-31/functions/order-worker/invocations", data=json.dumps(event).encode())
        urllib.request.urlopen(request, timeout=10).read()
        expect(part.locator("pre")).to_have_text("<b>no</b>")
        part.get_by_role("button", name="Try again").click()
        expect(page.locator("#live")).to_have_text("The message is in the queue again.")
        # It is no better the second time.
        expect(part.locator("pre")).to_have_count(1)
        part.get_by_role("button", name="Throw away").click()
        page.get_by_role("button", name="Yes, throw it away").click()
        expect(part).to_contain_text("No message is parked.")


def under_attack():
    """Sees who is refused and why, and makes proofs of work harder and as easy as usual again."""
    shopper = Api()
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        part = page.locator("#defence")
        expect(part).to_contain_text("Nobody was refused.")
        for _ in range(3):
            try:
                shopper.call("POST", "/api/sales/00000000-0000-7000-8000-000000000000/tickets", {})
            except AssertionError as refused:
                assert "not-found" in str(refused), refused
        expect(part.locator("tr", has_text="not-found")).to_contain_text("3")
        expect(part.locator("tr", has_text="127.0.0.0/24")).to_contain_text("3")
        part.get_by_role("button", name="We are under attack").click()
        expect(part).to_contain_text("proofs of work are harder for everybody")
        back = part.get_by_role("button", name="The attack is over")
        expect(back).to_be_focused()
        expect(page.locator("#actions")).to_contain_text("Difficulty of proofs of work set")
        page.reload()
        expect(part).to_contain_text("proofs of work are harder for everybody")
        back.click()
        expect(part).to_contain_text("as easy as usual")


def bans():
    """Bans somebody and lifts the ban."""
    banned = Api()
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        page.get_by_text("Ban somebody").click()
        page.locator("#ban").get_by_label("What").select_option("phone")
        page.locator("#ban").get_by_label("Which").fill("12")
        page.locator("#ban").get_by_label("Why").fill("bought by robots")
        put = page.get_by_role("button", name="Add the ban")
        one.expected |= {422}
        put.click()
        expect(page.locator("#value")).to_be_focused()
        one.expected.clear()
        page.locator("#ban").get_by_label("Which").fill(banned.phone)
        put.click()
        row = page.locator("#blacklist tbody tr", has_text="bought by robots")
        expect(row).to_contain_text("for good")
        row.get_by_role("button", name="Lift the ban").click()
        expect(page.locator("#blacklist")).to_contain_text("Nobody is banned.")
        page.locator("#ban").get_by_label("What").select_option("network")
        page.locator("#ban").get_by_label("Which").fill("203.0.113.0/24")
        page.get_by_role("button", name="Whom does it hit?").click()
        expect(page.locator("#ban")).to_contain_text("came from 203.0.113.0/24: of 0 users")
        put.click()
        row = page.locator("#blacklist tbody tr", has_text="203.0.113.0/24")
        expect(row).to_contain_text("Network")


def orders():
    """Finds a buyer's order, cancels it with a reason that the buyer reads, saves the list, and sees the trail."""
    sale = create_sale("Judged afterwards", stock=2)
    buyers = [Api(), Api()]
    bought = [buyer.buy(sale) for buyer in buyers]
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        page.locator(f"#sales [data-sale='{sale}']").get_by_role("button", name="Show the orders").click()
        part = page.locator("#orders")
        expect(part.locator("tbody tr")).to_have_count(2)
        expect(part.locator("tbody tr").first).to_contain_text("127.0.0.0/24")
        part.get_by_label("Search").fill(buyers[0].phone)
        part.get_by_role("button", name="Search").click()
        expect(part.locator("tbody tr")).to_have_count(1)
        row = part.locator(f"[data-order='{bought[0]}']")
        row.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Yes, cancel the order").click()
        expect(page.get_by_label("Reason")).to_be_focused()
        page.get_by_label("Reason").fill("=bought by <b>robots</b>")
        page.get_by_role("button", name="Yes, cancel the order").click()
        expect(row).to_contain_text("cancelled")
        expect(row).to_contain_text("=bought by <b>robots</b>")
        expect(row.get_by_role("button", name="Cancel")).to_have_count(0)
        expect(page.locator("#actions tbody tr").first).to_contain_text("Order cancelled")
        expect(page.locator("#actions tbody tr").first).to_contain_text(bought[0])

        part.get_by_label("Search").fill("")
        with page.expect_download() as saved:
            part.get_by_role("button", name="Save as CSV").click()
        with open(saved.value.path(), newline="") as file:
            lines = list(csv.DictReader(file))
        assert [line["order_id"] for line in lines] == sorted(bought), lines
        cancelled = next(line for line in lines if line["order_id"] == bought[0])
        assert cancelled["status"] == "cancelled" and cancelled["cancellation_reason"] == "'=bought by <b>robots</b>", cancelled
        part.get_by_label("Status").select_option("paid")
        part.get_by_role("button", name="Search").click()
        expect(part).to_contain_text("No order matches.")
    seen = buyers[0].call("GET", f"/api/orders/{bought[0]}")
    assert seen["cancellation_reason"] == "=bought by <b>robots</b>", seen


def only_for_operators():
    """Others see that it is not for them, and nothing else."""
    shopper = Api()
    with visitor() as one:
        page = one.page
        page.goto("/console")
        expect(page.get_by_role("main")).to_contain_text("not signed in")
        sign_in(one, shopper.phone, shopper.password)
        expect(page.get_by_role("main")).to_contain_text("This page is for administrators.")
        expect(page.locator("#figures canvas")).to_have_count(0)
        expect(page.get_by_role("link", name="Console")).to_have_count(0)


def console_accessible():
    """axe, in light and dark, and a narrow window; and the other language."""
    create_sale("To be looked at")
    with visitor() as one:
        page = one.page
        sign_in_as_admin(one)
        expect(page.locator("#figures canvas")).to_have_count(3)
        page.get_by_text("Create a sale").click()
        page.get_by_text("Ban somebody").click()
        one.accessible("/console")
        page.locator("#language").click()
        expect(page.get_by_role("heading", name="控制台")).to_be_visible()
        expect(page.locator("#figures")).to_contain_text("可售")


SCENARIOS = [
    units_move,
    steer,
    limits,
    draws,
    parked,
    under_attack,
    bans,
    orders,
    only_for_operators,
    console_accessible,
]

if __name__ == "__main__":
    # Whatever hangs, a test run does not.
    signal.alarm(180)
    {scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[1]]()

"""Shoppers of sales by draw in a real browser. `drawing.py NAME` plays one of the scenarios below;
local-emulator/tests/it/browser.rs starts the shop and calls them all."""

import hashlib
import hmac
import json
import os
import re
import signal
import sys
import uuid
from datetime import datetime, timedelta, timezone

from browser import BASE, Api, Visitor, admin, browser, create_sale, expect, visitor

# Time to register in on a slow machine, with the browser running.
TO_ENTER_S = 20
# The draw takes place some seconds after the start, when the last entries are recorded.
DRAWN_MS = 60_000

# The browser's notifications, as the page uses them, and the notes of its sounds. What was asked,
# shown and played survives a reload.
CALLS = """
const noted = (key) => JSON.parse(sessionStorage.getItem(key) ?? "[]");
const add = (key, value) => sessionStorage.setItem(key, JSON.stringify([...noted(key), value]));
globalThis.Notification = class extends EventTarget {
  constructor(title, { body }) { super(); add("shown", `${title} ${body}`); }
  static get permission() { return noted("asked").length > 0 ? "granted" : "default"; }
  static async requestPermission() { add("asked", "once"); return "granted"; }
};
const createOscillator = AudioContext.prototype.createOscillator;
AudioContext.prototype.createOscillator = function () { add("played", this.state); return createOscillator.call(this); };
"""


def moment(seconds):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def create_draw(title, opened=-1.0, **more):
    return create_sale(title, allocation="draw", entries_open_at=moment(opened), **({"stock": 1, "starts_in": TO_ENTER_S} | more))


def panel(page):
    return page.locator("#draw")


def press(page):
    return page.locator("#buy")


def reaches(page, phase, timeout=None):
    expect(panel(page)).to_have_attribute("data-phase", phase, **({"timeout": timeout} if timeout else {}))


def noted(page, key):
    return json.loads(page.evaluate(f"sessionStorage.getItem('{key}')") or "[]")


def checks(page, count=3):
    """What the page found out about the proof, by the name of the check."""
    expect(page.locator("#checks li")).to_have_count(count)
    return {line.get_attribute("data-check"): line.get_attribute("data-holds") == "true" for line in page.locator("#checks li").all()}


def end(sale):
    admin().call("PATCH", f"/api/admin/sales/{sale}", {"ends_at": moment(0)})


def wins():
    """From the list over the entry and the invitation to the order, with reloads in between."""
    with visitor() as one:
        page = one.page
        page.add_init_script(CALLS)
        sale = create_draw("Drawn soon")
        # The user has no entry at first.
        one.expected |= {404}
        page.goto("/")
        card = page.locator("article", has_text="Drawn soon")
        expect(card).to_contain_text("By draw")
        expect(card).to_contain_text("Entries are open. Draw in")
        page.goto(f"/sales/{sale}")
        reaches(page, "open")
        expect(press(page)).to_have_text("Sign in to take part")
        one.register(f"/sales/{sale}")
        reaches(page, "open")
        expect(press(page)).to_have_text("Enter the draw")
        press(page).dblclick()
        reaches(page, "entered")
        expect(press(page)).to_be_hidden()
        expect(page.locator("#draw-title")).to_be_focused()
        expect(panel(page).get_by_role("timer")).to_have_text(re.compile(r"^00:\d\d$"))

        assert noted(page, "asked") == [], "nobody is asked for notifications before a click"
        page.get_by_role("button", name="Tell me when it is my turn").click()
        expect(panel(page)).to_contain_text("hear this sound and see a notification")
        assert noted(page, "asked") == ["once"]
        assert noted(page, "played") == ["running"] * 3, "the sound was not played once"
        page.reload()
        reaches(page, "entered")
        expect(panel(page)).to_contain_text("You will be told")
        assert len(one.posts("/entries")) == 1, one.sent
        # Whatever is pressed allows the sound again.
        page.locator("h1").click()

        page.evaluate("document.body.dataset.loaded = 'once'")
        reaches(page, "invited", DRAWN_MS)
        assert page.evaluate("document.body.dataset.loaded") == "once", "the page was loaded again"
        expect(page).to_have_title(re.compile("^It is your turn! Drawn soon"))
        expect(page.locator("#live")).to_have_text("It is your turn!")
        expect(panel(page).get_by_role("timer")).to_have_text(re.compile(r"^0[12]:\d\d$"))
        assert noted(page, "shown") == ["It is your turn! You are invited to buy: Drawn soon"]
        assert noted(page, "played") == ["running"] * 6, noted(page, "played")
        page.reload()
        reaches(page, "invited")
        assert len(noted(page, "shown")) == 1, "called twice for one invitation"
        expect(press(page)).to_have_text("Buy now")
        press(page).dblclick()
        page.wait_for_url(f"{BASE}/orders/*")
        expect(page.locator("#result")).to_have_attribute("data-status", "confirmed")
        order = page.url
        assert len(one.posts("/tickets")) == 1 and len(one.orders()) == 1, one.sent
        page.go_back()
        reaches(page, "bought")
        expect(press(page)).to_be_hidden()
        page.get_by_role("link", name="Show the order").click()
        page.wait_for_url(order)


def not_this_time():
    """Two users and one unit: the other one gets the proof, which the page checks, and which does not hold for other figures."""
    with browser() as chrome:
        pair = [Visitor(chrome), Visitor(chrome)]
        for one in pair:
            one.expected |= {404}
            one.register()
        sale = create_draw("One for two")
        for one in pair:
            one.page.goto(f"/sales/{sale}")
            press(one.page).click()
            reaches(one.page, "entered")
        page = pair[0].page
        expect(panel(page)).to_have_attribute("data-phase", re.compile("^(waiting|invited)$"), timeout=DRAWN_MS)
        if panel(page).get_attribute("data-phase") == "waiting":
            pair.reverse()
        winner, loser = pair
        reaches(winner.page, "invited")
        reaches(loser.page, "waiting")
        expect(loser.page.locator("#ahead")).to_have_text("You are next.")
        press(winner.page).click()
        winner.page.wait_for_url(f"{BASE}/orders/*")
        winner.page.get_by_role("button", name="Pay").click()
        expect(winner.page.locator("#result")).to_have_attribute("data-status", "paid")

        page = loser.page
        reaches(page, "sold_out", DRAWN_MS)
        expect(page.locator("#proof")).to_contain_text("this page checks your place")
        end(sale)
        page.reload()
        assert checks(page) == {"proof.promised": True, "proof.seed": True, "proof.score": True}
        expect(page.locator("#proof")).to_contain_text(re.compile("Entries2Invited1Your place2"))
        loser.accessible("not this time")
        # The same figures, computed elsewhere.
        result = loser.context.request.get(f"/api/sales/{sale}/draw").json()
        user = page.evaluate("JSON.parse(localStorage.account).user_id")
        seed, ids = bytes.fromhex(result["seed"]), uuid.UUID(sale).bytes + uuid.UUID(user).bytes
        score = int.from_bytes(hmac.digest(seed, ids, "sha256")[:8]) >> 12
        expect(page.locator("#proof")).to_contain_text(str(score))
        expect(page.locator("#proof")).to_contain_text(hashlib.sha256(seed).hexdigest())

        def tamper(expected, **change):
            page.route(f"**/api/sales/{sale}/draw", lambda route: route.fulfill(json=result | change), times=1)
            page.reload()
            assert checks(page) == dict(zip(["proof.promised", "proof.seed", "proof.score"], expected)), change

        zeros = bytes(32)
        tamper([True, False, False], seed=zeros.hex())
        tamper([False, True, False], seed=zeros.hex(), seed_hash=hashlib.sha256(zeros).hexdigest())
        tamper([True, True, False], own=result["own"] | {"score": score + 1})
        # The value of a beacon goes into the key.
        mixed = hmac.digest(hmac.digest(seed, b"round 7", "sha256"), ids, "sha256")
        own = result["own"] | {"score": int.from_bytes(mixed[:8]) >> 12}
        tamper([True, True, True], beacon="drand", beacon_value="round 7", own=own)
        # Somebody without an entry sees the result too, after signing in.
        other = Visitor(chrome)
        other.page.goto(f"/sales/{sale}")
        reaches(other.page, "away")
        expect(press(other.page)).to_have_text("Sign in")
        other.expected |= {404}
        other.register(f"/sales/{sale}")
        reaches(other.page, "over")
        expect(press(other.page)).to_be_hidden()
        assert checks(other.page, count=2) == {"proof.promised": True, "proof.seed": True}
        for one in [*pair, other]:
            one.leave()


def passes():
    """An invitation that is not used ends before the visitor's eyes."""
    with visitor() as one:
        page = one.page
        one.expected |= {404}
        one.register()
        sale = create_draw("Too slow", invite_seconds=10, starts_in=5)
        page.goto(f"/sales/{sale}")
        press(page).click()
        reaches(page, "passed", DRAWN_MS)
        expect(page.locator("#draw-title")).to_have_text("Not this time")
        expect(press(page)).to_be_hidden()
        assert one.orders() == []


def opens():
    """Entries open while the page is looked at; who may not take part is told why; late entries stand behind."""
    old = create_draw("For old friends", starts_in=1800, eligible_registered_before=moment(-3600))
    late = create_draw("Drawn already", starts_in=-30, opened=-60)
    with visitor() as one:
        page = one.page
        one.expected |= {403, 404, 409}
        one.register()
        sale = create_draw("Opens in a moment", opened=20, starts_in=1800)
        page.reload()
        expect(page.locator("article", has_text="Opens in a moment")).to_contain_text("Entries open in")
        page.goto(f"/sales/{sale}")
        reaches(page, "closed")
        expect(press(page)).to_have_text("Not open yet")
        expect(press(page)).to_have_attribute("aria-disabled", "true")
        reaches(page, "open")
        expect(press(page)).to_have_attribute("aria-disabled", "false")
        page.locator("#draw-how").get_by_text("How the draw works").click()
        expect(page.locator("#draw-how code")).to_have_text(re.compile("^[0-9a-f]{64}$"))
        one.accessible("open entries")

        page.goto(f"/sales/{old}")
        expect(panel(page)).to_contain_text("Only accounts registered before")
        press(page).click()
        expect(page.get_by_role("alert")).to_contain_text("too new for this sale. Only accounts registered before")
        reaches(page, "open")

        page.goto(f"/sales/{late}")
        reaches(page, "late")
        one.accessible("an entry that is late")
        expect(press(page)).to_have_text("Enter behind the others")
        press(page).click()
        reaches(page, "invited", DRAWN_MS)
        one.accessible("an invitation")


def interrupted():
    """A lost answer and a reload give one entry; coming back to the page asks at once; another browser finds the entry."""
    sale = create_draw("Not so easy", starts_in=600)
    with visitor() as one:
        page = one.page
        one.expected |= {404, 429, 503}
        phone = one.register(f"/sales/{sale}")
        expect(press(page)).to_have_text("Enter the draw")
        lost = []

        def lose(route):
            lost.append(route.fetch().json())

        page.route("**/entries", lose, times=1)
        press(page).click()
        expect(page.locator("#status")).to_contain_text("being stored")
        one.wait_until(lambda: lost)
        page.reload()
        reaches(page, "entered")
        assert len(one.posts("/entries")) == 1, "the entry was there"
        page.unroute_all(behavior="ignoreErrors")

        asked = []

        def slow(route):
            asked.append(route.request.headers.get("entry"))
            route.fulfill(json={"state": "waiting", "poll_after_ms": 600_000})

        page.route("**/entries/current", slow)
        page.reload()
        reaches(page, "entered")
        page.wait_for_timeout(1_000)
        assert len(asked) == 1, asked
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        one.wait_until(lambda: len(asked) == 2)
        page.unroute_all(behavior="ignoreErrors")

        busy = []

        def refuse(route):
            busy.append(1)
            problem = {"type": "/problems/unavailable", "title": "", "status": 503, "detail": ""}
            route.fulfill(status=503, headers={"Content-Type": "application/problem+json", "Retry-After": "1"}, body=json.dumps(problem))

        page.route("**/entries/current", refuse, times=2)
        page.reload()
        expect(panel(page)).to_contain_text("does not answer at the moment")
        reaches(page, "entered")
        expect(panel(page)).not_to_contain_text("does not answer")
        assert len(busy) == 2

        # A request that never arrives is sent again after the reload.
        unheard = create_draw("Not heard", starts_in=600)
        page.goto(f"/sales/{unheard}")
        reaches(page, "open")
        page.route(f"**/{unheard}/entries", lambda route: None, times=1)
        press(page).click()
        one.wait_until(lambda: one.posts(f"{unheard}/entries"))
        page.reload()
        reaches(page, "entered")
        assert len(one.posts(f"{unheard}/entries")) == 2, one.sent

        # The other browser has nothing in its storage.
        other = one.context.browser.new_context(base_url=BASE, locale="en-US")
        second = other.new_page()
        second.goto(f"/sign-in?next=/sales/{sale}")
        second.get_by_label("Phone number", exact=True).fill(phone)
        second.get_by_label("Password").fill("battery staple")
        second.get_by_role("main").get_by_role("button", name="Sign in").click()
        second.wait_for_url(f"{BASE}/sales/{sale}")
        reaches(second, "entered")
        other.close()


def chinese_draw():
    """The other language, up to the invitation."""
    sale = create_draw("抽签活动一")
    with visitor(locale="zh-CN") as one:
        page = one.page
        one.expected |= {404}
        page.goto(f"/register?next=/sales/{sale}")
        page.get_by_label("手机号", exact=True).fill("138 1234 5679")
        page.get_by_label("密码").fill("battery staple")
        page.get_by_role("button", name="注册并登录").click()
        page.wait_for_url(f"{BASE}/sales/{sale}")
        page.get_by_role("button", name="参加抽签").click()
        expect(panel(page)).to_contain_text("您已参加抽签")
        expect(panel(page)).to_contain_text("轮到您了！", timeout=DRAWN_MS)


def draw_captcha():
    """Captchas are on: entering asks for one at that moment, and it can be put off."""
    sale = create_draw("With letters", starts_in=600)
    with visitor() as one:
        page = one.page
        one.expected |= {404, 422}
        page.goto(f"/sign-in?next=/sales/{sale}")
        page.get_by_label("Phone number", exact=True).fill(os.environ["SHOP_ADMIN_PHONE"])
        page.get_by_label("Password").fill(os.environ["SHOP_ADMIN_PASSWORD"])
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{BASE}/sales/{sale}")
        press(page).click()
        expect(page.locator("#captcha")).to_be_focused()
        expect(page.locator("#captcha-send")).to_have_text("Confirm and enter")
        assert not one.posts("/entries")
        page.locator("#captcha").fill("zzzzz")
        page.keyboard.press("Enter")
        expect(page.locator("#captcha-error")).to_contain_text("was wrong")
        page.get_by_role("button", name="Not now").click()
        expect(press(page)).to_have_text("Enter the draw")
        expect(page.locator("#captcha")).to_have_count(0)
        page.reload()
        reaches(page, "open")
        page.wait_for_timeout(500)
        expect(page.locator("#captcha")).to_have_count(0)


SCENARIOS = [wins, not_this_time, passes, opens, interrupted, chinese_draw, draw_captcha]

if __name__ == "__main__":
    # Whatever hangs, a test run does not.
    signal.alarm(240)
    {scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[1]]()

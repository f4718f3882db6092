"""What everybody can do: ask, wait out refusals that pass, prove to be a person, buy, and pay."""

import asyncio
import collections
import re
import time

from . import standins

# Refusals after which API.md asks a client to send the same request again.
PASSING = (0, 429, 503)
CAPTCHA_SLUGS = ("captcha-wrong", "captcha-gone", "captcha-required")


def kind_of(path):
    """A path without its ids."""
    return re.sub(r"[0-9a-f-]{36}", "…", path)


class World:
    """One sale while it is played. `over` is set when every unit is paid for."""

    def __init__(self, scenario, units, stand_ins):
        self.scenario, self.units, self.stand_ins = scenario, units, stand_ins
        self.sale_id, self.opening, self.end = "", 0.0, 0.0
        self.paid, self.over = 0, asyncio.Event()
        self.failures, self.unavailable = collections.Counter(), collections.Counter()

    def now(self):
        return time.time()

    async def until(self, moment):
        await asyncio.sleep(max(moment - self.now(), 0))

    def note(self, path, answer):
        """Counts answers that tell of a fault: none, or 5xx. A 503 is a request to try again, and counts apart."""
        if answer.status == 0 or answer.status >= 500:
            counts = self.unavailable if answer.status == 503 else self.failures
            counts[f"{kind_of(path)}: {answer.status} {answer.slug}"] += 1

    def count_payment(self):
        self.paid += 1
        if self.paid >= self.units:
            self.over.set()


class Actor:
    """`refusal` is the last refusal that was not followed by a success; `final` says how it ended, if it has."""

    retries = 0

    def __init__(self, world, pool, client, latency, rng, token="", user_id=""):
        self.world, self.pool, self.client, self.latency, self.rng = world, pool, client, latency, rng
        self.token, self.user_id = token, user_id
        self.refusal, self.final = "", ""
        self.captchas, self.proof, self.ticket, self.orders, self.payments = 0, None, "", 0, 0

    async def solve(self):
        """Takes the time that a captcha takes, and returns whether the answer is right."""
        raise NotImplementedError

    async def ask(self, method, path, body=None, entry=""):
        await asyncio.sleep(self.latency)
        answer = await self.pool.ask(method, path, self.client, self.token, body, entry)
        await asyncio.sleep(self.latency)
        self.world.note(path, answer)
        self.refusal = answer.slug
        return answer

    async def persist(self, method, path, body=None, entry=""):
        """Repeats a request while its refusal may pass."""
        answer = await self.ask(method, path, body, entry)
        for _ in range(self.retries):
            if answer.status not in PASSING:
                break
            await asyncio.sleep(max(answer.retry_after, 1) + self.rng.random() / 2)
            answer = await self.ask(method, path, body, entry)
        return answer

    async def prove(self, purpose="purchase"):
        """Solves a captcha: the fields of a request that carry its answer, or None if there is no captcha to be had."""
        if not self.world.scenario.captcha:
            return {}
        of_sale = {"sale_id": self.world.sale_id} if purpose == "purchase" else {}
        answer = await self.persist("POST", "/api/captchas", {"purpose": purpose} | of_sale)
        if answer.status != 201:
            return None
        self.captchas += 1
        captcha_id = answer.json()["captcha_id"]
        return {"captcha_id": captcha_id, "captcha_answer": standins.provider_token(await self.solve(), captcha_id)}

    async def with_proof(self, path):
        """Sends a request that needs a captcha. An answer that was not used up is kept for the next time."""
        proof = self.proof if self.proof is not None else await self.prove()
        if proof is None:
            return None
        answer = await self.persist("POST", path, proof)
        self.proof = proof if answer.status >= 400 and answer.slug not in CAPTCHA_SLUGS else None
        return answer

    async def buy(self):
        """One attempt: the order's id, or nothing (then `refusal` says why). A ticket that can still be used is kept."""
        path = f"/api/sales/{self.world.sale_id}"
        if not self.ticket:
            answer = await self.with_proof(f"{path}/tickets")
            if answer is None or answer.status != 201:
                return ""
            self.ticket = answer.json()["ticket"]
        answer = await self.persist("POST", f"{path}/orders", {"ticket": self.ticket})
        if answer.status == 202:
            self.ticket, self.orders = "", self.orders + 1
            return answer.json()["order_id"]
        if answer.slug in ("ticket-expired", "bad-ticket", "already-bought"):
            self.ticket = ""
        return ""

    async def finish(self, order_id, action):
        """Pays or cancels an order, once it is recorded: whether that was done."""
        while True:
            answer = await self.persist("POST", f"/api/orders/{order_id}/{action}")
            if answer.slug != "order-queued":
                break
            await asyncio.sleep(0.5)
        if answer.status == 200 and action == "payment":
            self.payments += 1
            self.world.count_payment()
        return answer.status == 200

    async def enter(self):
        """Enters the draw: the signed entry, or nothing."""
        answer = await self.with_proof(f"/api/sales/{self.world.sale_id}/entries")
        return answer.json()["entry"] if answer is not None and answer.status == 201 else ""

    async def follow(self, entry):
        """Asks about the entry as often as the answers say, until it is the actor's turn or there will be none."""
        while True:
            answer = await self.persist("GET", f"/api/sales/{self.world.sale_id}/entries/current", entry=entry)
            if answer.status != 200:
                return "unknown"
            state = answer.json()
            if state["state"] != "waiting":
                return state["state"]
            await asyncio.sleep(state["poll_after_ms"] / 1000)

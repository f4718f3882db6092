"""What the attacker does: one program with many accounts, all of which act at the same time."""

import asyncio
import collections

from . import people
from .actor import Actor

PASSWORD = "a-long-phrase-of-his"
# Accounts that he registers at the same time.
REGISTERED_AT_ONCE = 8
# He collects captchas for the opening this long before it; they live two minutes.
PREPARES_SECONDS = 4
PAYS_AFTER, GIVES_UP_AFTER = 1.0, (2.0, 5.0)
# Accounts without a unit that ask at once when he has cancelled an order.
REBUYERS = 3


class Attacker:
    """What his accounts share. Accounts that wait for a unit stand in `waiting`, in turn."""

    def __init__(self):
        self.waiting = collections.deque()
        self.accounts, self.cancelled, self.expired = [], 0, 0

    def wake(self):
        for _ in range(min(REBUYERS, len(self.waiting))):
            if not (waiter := self.waiting.popleft()).done():
                waiter.set_result(None)

    async def pause(self, seconds):
        """Waits, or less if a unit was given up."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass


class Account(Actor):
    def __init__(self, world, pool, attacker, client, rng, user_id="", token=""):
        super().__init__(world, pool, client, people.ATTACKER_LATENCY_MS / 1000, rng, token, user_id)
        self.attacker = attacker

    async def solve(self):
        return True

    async def register(self, phone):
        """Registers with a phone that he owns, and signs in."""
        proof = await self.insist(self.prove, "login")
        await self.insist(self.request, "/api/phone-codes", {"phone": phone} | proof)
        code = self.world.stand_ins.codes[phone]
        password = {"phone": phone, "password": PASSWORD}
        await self.insist(self.request, "/api/users", password | {"phone_code": code})
        answer = await self.insist(self.request, "/api/sessions", password)
        self.token, self.user_id = answer.json()["token"], answer.json()["user"]["user_id"]

    async def request(self, path, body):
        answer = await self.ask("POST", path, body)
        return answer if answer.status < 300 else None

    async def insist(self, act, *arguments):
        """Repeats as long as limits refuse."""
        while (done := await act(*arguments)) is None:
            if self.refusal not in ("rate-limited", "unavailable"):
                raise RuntimeError(f"the attacker can't register: {self.refusal}")
            await asyncio.sleep(1)
        return done

    async def play(self):
        if self.world.scenario.draw:
            self.final = await self.wait_for_turn()
        else:
            await self.world.until(self.world.opening - PREPARES_SECONDS)
            self.proof = await self.prove()
            await self.world.until(self.world.opening)
        if not self.final:
            await self.buy_and_use()

    async def wait_for_turn(self):
        """Enters and waits: how it ended without an invitation, or nothing."""
        while not (entry := await self.enter()):
            if not self.is_worth_repeating():
                return self.refusal
            await asyncio.sleep(people.ATTACKER_PAUSE)
        state = await self.follow(entry)
        return "" if state == "invited" else state

    async def buy_and_use(self):
        while self.world.now() < self.world.end:
            if order_id := await self.buy():
                if await self.use(order_id):
                    self.final = "bought"
                    return
            elif not self.is_worth_repeating():
                self.final = self.refusal
                return
            await self.attacker.pause(people.ATTACKER_PAUSE)

    def is_worth_repeating(self):
        return self.refusal not in ("not-eligible", "sale-ended", "unauthenticated", "not-found", "already-bought")

    async def use(self, order_id):
        """Pays for a unit, or gives up his first one: whether the account is done."""
        if self.orders > 1 or self.rng.random() >= self.world.scenario.gives_up:
            await asyncio.sleep(PAYS_AFTER)
            return await self.finish(order_id, "payment")
        if self.rng.random() < 0.5:
            self.attacker.expired += 1
            await asyncio.sleep(self.world.pay_within)
        else:
            await asyncio.sleep(self.rng.uniform(*GIVES_UP_AFTER))
            self.attacker.cancelled += await self.finish(order_id, "cancellation")
        self.attacker.wake()
        return False


async def register(accounts, phones):
    """Registers each account with its phone."""
    turn = asyncio.Semaphore(REGISTERED_AT_ONCE)

    async def one(account, phone):
        async with turn:
            await account.register(phone)

    await asyncio.gather(*(one(account, phone) for account, phone in zip(accounts, phones, strict=True)))

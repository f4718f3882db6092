"""What the attacker does: one program with many accounts, all of which act at the same time."""

import asyncio

from . import people
from .actor import Actor

PASSWORD = "a-long-phrase-of-his"
# Accounts that he registers at the same time.
REGISTERED_AT_ONCE = 8
# He collects captchas for the opening this long before it; they live two minutes.
PREPARES_SECONDS = 4
PAYS_AFTER, CANCELS_AFTER = 1.0, (2.0, 5.0)
# Accounts without a unit that ask when he has cancelled an order, how often, and the pause in between: it may take a second until
# the unit is for sale again.
REBUYERS, REBUY_TRIES, REBUY_PAUSE = 6, 12, 0.1


class Attacker:
    """What his accounts share. Accounts that wait for a unit stand in `waiting`, in turn."""

    def __init__(self):
        # A dictionary, because it keeps the order and removes from the middle.
        self.waiting, self.accounts, self.cancelled = {}, [], 0

    def wake(self):
        for waiter in list(self.waiting)[:REBUYERS]:
            del self.waiting[waiter]
            waiter.set_result(None)

    async def pause(self, seconds):
        """Waits until he has cancelled an order, or that long: whether he has."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiting[waiter] = True
        woken, _ = await asyncio.wait([waiter], timeout=seconds)
        self.waiting.pop(waiter, None)
        return bool(woken)


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
            await self.ask("GET", f"/api/sales/{self.world.sale_id}")
            self.proof = await self.prove()
            await self.world.until(self.world.opening)
        if not self.final:
            self.final = await self.buy_and_use()

    async def wait_for_turn(self):
        """Enters and waits: how it ended without an invitation, or nothing."""
        while not (entry := await self.enter()):
            if not self.is_worth_repeating():
                return self.refusal
            await asyncio.sleep(people.ATTACKER_PAUSE)
        state = await self.follow(entry)
        return "" if state == "invited" else state

    async def buy_and_use(self):
        """Buys and pays, as long as the sale lasts: how it ended."""
        tries = 1
        while self.world.now() < self.world.end:
            if order_id := await self.buy():
                if await self.use(order_id):
                    return "bought"
            elif not self.is_worth_repeating():
                return self.refusal
            tries -= 1
            if tries > 0:
                await asyncio.sleep(REBUY_PAUSE)
            else:
                tries = REBUY_TRIES if await self.attacker.pause(people.ATTACKER_PAUSE) else 1
        return "sale-ended"

    def is_worth_repeating(self):
        return self.refusal not in ("not-eligible", "sale-ended", "unauthenticated", "not-found", "already-bought")

    async def use(self, order_id):
        """Pays for a unit, or cancels the order if it is the first one: whether the account is done."""
        if self.orders > 1 or self.rng.random() >= self.world.scenario.cancels:
            await asyncio.sleep(PAYS_AFTER)
            return await self.finish(order_id, "payment")
        await asyncio.sleep(self.rng.uniform(*CANCELS_AFTER))
        if await self.finish(order_id, "cancellation"):
            self.attacker.cancelled += 1
            self.attacker.wake()
        return False


async def register(accounts, phones):
    """Registers each account with its phone."""
    turn = asyncio.Semaphore(REGISTERED_AT_ONCE)

    async def one(account, phone):
        async with turn:
            await account.register(phone)

    await asyncio.gather(*(one(account, phone) for account, phone in zip(accounts, phones, strict=True)))

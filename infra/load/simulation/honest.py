"""What an honest shopper does."""

import asyncio

from . import people
from .actor import CAPTCHA_SLUGS, Actor


class Shopper(Actor):
    retries = people.RETRIES

    def __init__(self, world, pool, person, user_id, token):
        super().__init__(world, pool, person.address, person.latency, person.rng, token, user_id)
        self.person, self.captcha_failures = person, 0

    async def solve(self):
        await asyncio.sleep(people.lognormal(self.rng, people.CAPTCHA))
        return self.rng.random() >= people.CAPTCHA_FAILS

    def may_try_again(self):
        """After a refusal: whether this person repeats. Counts captchas that failed."""
        if self.refusal in CAPTCHA_SLUGS:
            self.captcha_failures += 1
            return self.captcha_failures < people.CAPTCHA_TRIES
        return False

    async def play(self):
        self.final = await (self.play_draw() if self.world.scenario.draw else self.play_first_come())

    async def play_first_come(self):
        await self.world.until(self.world.opening - self.person.arrives_before)
        await self.persist("GET", f"/api/sales/{self.world.sale_id}")
        await self.world.until(self.world.opening + self.person.reaction)
        return await self.buy_and_pay()

    async def play_draw(self):
        # People begin early enough to be done, with a captcha or without, when the draw takes place.
        await asyncio.sleep(self.rng.uniform(0, people.ARRIVAL_SECONDS))
        while not (entry := await self.enter()):
            if not self.may_try_again():
                return self.refusal
        state = await self.follow(entry)
        if state != "invited":
            return state if state != "unknown" else self.refusal
        if not self.person.comes:
            return "no-show"
        await asyncio.sleep(people.lognormal(self.rng, people.INVITED_REACTION))
        return await self.buy_and_pay()

    async def buy_and_pay(self):
        while not (order_id := await self.buy()):
            if self.refusal == "sale-not-open":
                await asyncio.sleep(0.2)
            elif self.refusal == "sold-out" and self.person.is_patient:
                await asyncio.sleep(self.rng.uniform(2, 5))
            elif not self.may_try_again():
                return self.refusal
        if not self.person.pays:
            return "not-paid"
        await asyncio.sleep(people.lognormal(self.rng, people.PAYMENT))
        return "bought" if await self.finish(order_id, "payment") else "paid-too-late"

"""What is assumed about the honest shoppers and the attacker. The same seed gives the same people."""

import dataclasses
import math
import random

# -- honest shoppers

# Reaction to the opening and to an invitation, time for a captcha, time to pay: the median in seconds and the spread (sigma) of
# a lognormal distribution.
REACTION = (0.6, 0.4)
INVITED_REACTION = (2.0, 0.4)
CAPTCHA = (4.0, 0.35)
PAYMENT = (3.0, 0.4)
LATENCY_MS = (20, 300)
CAPTCHA_FAILS = 0.08
CAPTCHA_TRIES = 3
# Shares of shoppers: behind a carrier's shared addresses; ask again after sold-out; registered after the announcement; never
# come when they are invited; order and do not pay.
SHARED_ADDRESS = 0.2
PATIENT = 0.3
NEWCOMERS = 0.05
NO_SHOWS = 0.08
NON_PAYERS = 0.03
# Answers 429 and 503 that a shopper waits out before giving up.
RETRIES = 5
CARRIER_ADDRESSES = 10
ARRIVAL_SECONDS = 5

# -- the attacker

ATTACKER_ADDRESSES = 20
ATTACKER_NETWORKS = 4
ATTACKER_LATENCY_MS = 5
# How often an account without a unit asks again, in seconds; a ticket per second is what the limits allow.
ATTACKER_PAUSE = 1.0


@dataclasses.dataclass
class Person:
    number: int
    address: str
    latency: float
    arrives_before: float
    reaction: float
    is_patient: bool
    is_newcomer: bool
    comes: bool
    pays: bool
    rng: random.Random = dataclasses.field(repr=False, compare=False)


def lognormal(rng, parameters):
    median, sigma = parameters
    return rng.lognormvariate(math.log(median), sigma)


def newcomers(count):
    """How many of the shoppers registered after the announcement: the last ones."""
    return round(count * NEWCOMERS)


def address(rng, number):
    """198.18.0.0/15 is reserved for measurements: nobody has these addresses. The lower half is honest."""
    if rng.random() < SHARED_ADDRESS:
        return f"198.18.255.{1 + rng.randrange(CARRIER_ADDRESSES)}"
    return f"198.18.{number % 250}.{1 + number // 250 % 250}"


def honest(count, seed):
    old = count - newcomers(count)
    return [person(number, number >= old, seed) for number in range(count)]


def person(number, is_newcomer, seed):
    rng = random.Random(f"{seed}/{number}")
    return Person(
        number=number,
        address=address(rng, number),
        latency=rng.uniform(*LATENCY_MS) / 1000,
        arrives_before=rng.uniform(1, ARRIVAL_SECONDS),
        reaction=lognormal(rng, REACTION),
        is_patient=rng.random() < PATIENT,
        is_newcomer=is_newcomer,
        comes=rng.random() >= NO_SHOWS,
        pays=rng.random() >= NON_PAYERS,
        rng=rng,
    )


def attacker_addresses():
    each = ATTACKER_ADDRESSES // ATTACKER_NETWORKS
    return [f"198.19.{network}.{1 + host}" for network in range(ATTACKER_NETWORKS) for host in range(each)]


def phone_numbers(count, seed):
    """Numbers of the attacker's phones. Seeded users have numbers that begin with +86 139."""
    return [f"+86138{number:08}" for number in random.Random(f"{seed}/phones").sample(range(10**8), count)]

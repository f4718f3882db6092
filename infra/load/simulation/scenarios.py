"""The rows of the table: which sale, and which defences are on. A new defence is a new row."""

import dataclasses

# Every limit that counts requests, as good as off. Limits of text messages belong to the verification of phones and stay.
RATES = ("address", "ticket", "order", "entry", "order_status", "account", "captcha", "register", "login", "login_phone")
OFF = {"LIMIT": "1000000", "WINDOW_MS": "1000", "BURST": "1000000"}
NO_LIMITS = {f"LIMITS__{name.upper()}__{key}": value for name in RATES for key, value in OFF.items()} | {
    "LIMITS__NETWORK_TIMES": "1000",
    "ABUSE__REFUSALS_MAX": "1000000",
    "ABUSE__ADDRESS_REFUSALS_MAX": "0",
    "ORDERS__ATTEMPTS_MAX": "0",
}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`sale` are further fields of POST /api/admin/sales, `settings` further settings of the emulator (without FLASHSALE_)."""

    name: str
    defences: str
    draw: bool = False
    captcha: bool = False
    limits: bool = False
    verification: bool = False
    eligibility: bool = False
    # The share of his first orders that the attacker cancels, to buy the units again with other accounts.
    cancels: float = 0.3
    sale: dict = dataclasses.field(default_factory=dict)
    settings: dict = dataclasses.field(default_factory=dict)

    @property
    def allocation(self):
        return "draw" if self.draw else "first come"

    def configuration(self):
        """Settings of the emulator that belong to the defences."""
        return (
            ({} if self.limits else NO_LIMITS)
            | {"CAPTCHA": "provider" if self.captcha else "off"}
            | {"PHONE_VERIFICATION": "webhook" if self.verification else "off"}
            | self.settings
        )


EVERYTHING = {"captcha": True, "limits": True, "verification": True, "eligibility": True}
# In a draw a cancelled unit goes to the next in line, so he keeps what he gets.
DRAW = {"draw": True, "cancels": 0.0}
# Few, because he has addresses in four networks only; all shoppers of a carrier share one.
PER_NETWORK = {"sale": {"units_per_prefix": 10}}

SCENARIOS = (
    Scenario("first-come", "none"),
    Scenario("first-come-captcha", "captcha", captcha=True),
    Scenario("first-come-limits", "limits and bans", limits=True),
    Scenario("first-come-eligibility", "eligibility", eligibility=True),
    Scenario("first-come-verification", "verified phones", verification=True),
    Scenario("first-come-accounts", "verified phones, eligibility", verification=True, eligibility=True),
    Scenario("first-come-all", "all of these", **EVERYTHING),
    Scenario("first-come-network", "ten units per network", **PER_NETWORK),
    Scenario("draw", "none", **DRAW),
    Scenario("draw-rebuy", "none; he cancels and rebuys", draw=True),
    Scenario("draw-captcha", "captcha", captcha=True, **DRAW),
    Scenario("draw-limits", "limits and bans", limits=True, **DRAW),
    Scenario("draw-eligibility", "eligibility", eligibility=True, **DRAW),
    Scenario("draw-verification", "verified phones", verification=True, **DRAW),
    Scenario("draw-accounts", "verified phones, eligibility", verification=True, eligibility=True, **DRAW),
    Scenario("draw-all", "all of these", **EVERYTHING, **DRAW),
    Scenario("draw-network", "ten units per network", **PER_NETWORK, **DRAW),
)


def chosen(names):
    """The scenarios with these names, in the order of the table; all of them without a name."""
    known = {scenario.name for scenario in SCENARIOS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no scenario {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [scenario for scenario in SCENARIOS if not names or scenario.name in names]

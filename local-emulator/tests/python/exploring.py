"""schemathesis against a running emulator: exploring.py BASE INVOKE_BASE ADMIN_TOKEN TOKEN...

Sends what the OpenAPI document allows and what it does not, and accepts only answers that it describes: status, media
type, headers and body. Numbers and texts are made up; where they would only ever meet "not found", every other request
gets something real instead. What is made up is the same in every run. The tokens are those of shoppers who may be signed out.
"""

import json
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import schemathesis
from schemathesis.cli import schemathesis as command

BASE, INVOKE_BASE, ADMIN, *OTHERS = sys.argv[1:]
PASSWORD = "correct horse"
PHONES = [f"+1 201-555-{number:04}" for number in range(1000, 1100)]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    # Whatever the document forbids must be refused. That all it allows is accepted can't be asked: no schema says that a
    # sale begins before it ends.
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]


def ask(method, path, token=None, body=None, base=BASE):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(base + path, data, headers, method=method), timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except HTTPError as error:
        return json.loads(error.read())


def signed_in(phone):
    account = {"phone": phone, "password": PASSWORD}
    ask("POST", "/api/users", body=account)
    return ask("POST", "/api/sessions", body=account)["token"]


def sale(**more):
    new = {"title": "Kettle", "price": 12900, "stock": 1000, "per_user_limit": 100}
    new |= {"starts_at": "2020-01-01T00:00:00Z", "ends_at": "2099-01-01T00:00:00Z"}
    return ask("POST", "/api/admin/sales", ADMIN, new | more)["sale_id"]


def bought(sale_id, token):
    for _ in range(50):
        issued = ask("POST", f"/api/sales/{sale_id}/tickets", token, {})
        if "ticket" in issued:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(issued)
    order_id = ask("POST", f"/api/sales/{sale_id}/orders", token, {"ticket": issued["ticket"]})["order_id"]
    while ask("GET", f"/api/orders/{order_id}", token)["status"] == "queued":
        pass
    return order_id


def parked():
    """The id of a message that can't be used."""
    message = {"basicProperties": {"bodySize": 2, "deliveryMode": 2, "priority": 0}, "data": "bm8=", "redelivered": False}
    event = {"rmqMessagesByQueue": {"flashsale.orders::/": [message]}}
    ask("POST", "/2015-03-31/functions/order-worker/invocations", body=event, base=INVOKE_BASE)
    return ask("GET", "/api/admin/parked", ADMIN)["parked"][0]["parked_id"]


SHOPPER = signed_in("+1 201-555-0150")
OPEN = sale()
SOLD_OUT = sale(stock=1)
UPCOMING = sale(starts_at="2098-01-01T00:00:00Z")
ENDED = sale(ends_at="2021-01-01T00:00:00Z")
BY_DRAW = {"allocation": "draw", "per_user_limit": 1, "entries_open_at": "2019-01-01T00:00:00Z"}
ENTERED = sale(**BY_DRAW, starts_at="2098-01-01T00:00:00Z")
DRAWN = sale(**BY_DRAW)
WITH_BEACON = sale(**BY_DRAW, beacon="drand round 7")
# What an endpoint of draws can be asked about with success.
DRAWS = {"enter_draw": ENTERED, "get_entry": ENTERED, "get_draw": DRAWN, "set_beacon": WITH_BEACON}
# Phone numbers are not verified here.
ABSENT = {"send_phone_code", "recover_password"}
PAID, CANCELLED, CONFIRMED = (bought(OPEN, SHOPPER) for _ in range(3))
ask("POST", f"/api/orders/{PAID}/payment", SHOPPER)
ask("POST", f"/api/orders/{CANCELLED}/cancellation", SHOPPER)
ask("POST", f"/api/sales/{ENTERED}/entries", SHOPPER, {})
# The sweeper closes the entries of both sales within seconds.
while ask("PUT", f"/api/admin/sales/{WITH_BEACON}/beacon", ADMIN, {"value": "b9c3"}) is not None:
    time.sleep(0.2)
while ask("GET", f"/api/admin/sales/{DRAWN}/stats", ADMIN)["draw"].get("closed_at") is None:
    time.sleep(0.2)
ask("PATCH", f"/api/admin/sales/{DRAWN}", ADMIN, {"ends_at": "2021-01-01T00:00:00Z"})
REAL = {
    "sale_id": [OPEN, SOLD_OUT, OPEN, UPCOMING, ENDED],
    "order_id": [PAID, CANCELLED, CONFIRMED, bought(SOLD_OUT, OTHERS.pop())],
}

calls, seen = Counter(), {}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Fields may be added to answers, the document says; but not without a word in it."""
    for schema in raw_schema["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)


@schemathesis.auth(refresh_interval=None)
class Session:
    def get(self, case, context):
        if case.operation.path.startswith("/api/admin"):
            return ADMIN
        # Whoever signs out is not needed any more.
        return OTHERS.pop() if case.method == "DELETE" and OTHERS else SHOPPER

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


def is_id(value):
    try:
        return str(uuid.UUID(value)) == value
    except (ValueError, TypeError, AttributeError):
        return False


@schemathesis.hook
def before_call(context, case, kwargs):
    name = case.operation.definition.raw["operationId"]
    calls[name] += 1
    turn, own = divmod(calls[name], 2)
    if own:
        return
    if "parked_id" in (case.path_parameters or {}):
        case.path_parameters["parked_id"] = parked()
    for parameter, value in (case.path_parameters or {}).items():
        if is_id(value) and parameter == "captcha_id":
            case.path_parameters[parameter] = ask("POST", "/api/captchas", body={"purpose": "login"})["captcha_id"]
        elif is_id(value):
            ids = REAL[parameter]
            case.path_parameters[parameter] = ids[turn % len(ids)]
    if name in DRAWS:
        case.path_parameters["sale_id"] = DRAWS[name]
    if name == "cancel_order_of_anybody":
        case.path_parameters["order_id"] = bought(OPEN, SHOPPER)
    if name == "lift_ban" and case.query.get("kind") == "address" and isinstance(case.query.get("value"), str):
        case.query["value"] = "192.0.2.1"
        ask("POST", "/api/admin/blacklist", ADMIN, {"kind": "address", "value": "192.0.2.1", "reason": "test"})
    body = case.body if isinstance(case.body, dict) else {}
    if name == "place_order" and isinstance(body.get("ticket"), str) and case.path_parameters["sale_id"] == OPEN:
        body["ticket"] = ask("POST", f"/api/sales/{OPEN}/tickets", SHOPPER, {})["ticket"]
    if name in ("register", "sign_in") and isinstance(body.get("phone"), str) and isinstance(body.get("password"), str):
        body["phone"], body["password"] = PHONES[turn % len(PHONES)], PASSWORD
    if name == "change_sale" and type(body.get("units_per_prefix")) is int and 1 <= body["units_per_prefix"] <= 1_000_000:
        # All shoppers here share one network, and have to go on buying.
        body["units_per_prefix"] = 1_000_000
    if name == "set_beacon" and isinstance(body.get("value"), str) and 0 < len(body["value"]) <= 200:
        body["value"] = "b9c3"
    if name == "change_password" and all(isinstance(body.get(which), str) for which in ("old_password", "new_password")):
        body["old_password"] = body["new_password"] = PASSWORD


@schemathesis.hook
def after_call(context, case, response):
    name = case.operation.definition.raw["operationId"]
    seen.setdefault(name, Counter())[response.status_code] += 1


def main():
    arguments = ["run", f"{BASE}/openapi.json", "--checks", ",".join(CHECKS), "--generation-deterministic", "--continue-on-failure"]
    arguments += ["--max-examples", "30", "--no-color", "--warnings", "off"]
    # It leaves files in the folder that it is started from.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            code = command.main(arguments, standalone_mode=False)
        except SystemExit as end:
            code = end.code
        os.chdir("/")
    for name, statuses in sorted(seen.items()):
        print(f"{name}: " + ", ".join(f"{status} {count}x" for status, count in sorted(statuses.items())))
    if code:
        sys.exit(code)
    operations = {operation["operationId"] for path in ask("GET", "/openapi.json")["paths"].values() for operation in path.values()}
    without = sorted(name for name in operations - ABSENT if not any(200 <= status < 300 for status in seen.get(name, ())))
    assert not without, f"never answered with success, so hardly tested: {without}"


main()

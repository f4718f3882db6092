#!/usr/bin/env python3
"""An example of a gateway for `phone_verification = "webhook"`: it checks each request and hands the code to `deliver`.

    FLASHSALE_SMS_WEBHOOK__SECRETS=whsec_... python3 infra/sms/receiver.py 127.0.0.1:8090

It needs nothing but Python 3.8. Replace `deliver` by a call of your provider; infra/OPERATE.md shows how the fields map.
"""

import base64
import collections
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
BODY_BYTES_MAX = 16 * 1024
IDS_MAX = 100_000


def deliver(phone, code, message_id):
    """Sends the text message. Raise an exception to have the request repeated."""
    print(f"to {phone}: Your code is {code}.", flush=True)


def secrets():
    listed = os.environ["FLASHSALE_SMS_WEBHOOK__SECRETS"].split(",")
    return [base64.b64decode(one.strip().replace("whsec_", "", 1)) for one in listed]


def is_ours(headers, body, keys, now):
    """Whether the request was signed with one of the secrets, and lately."""
    message_id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent_at.isdigit() or abs(now - int(sent_at)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{sent_at}.".encode() + body
    given = [part.partition(",")[2] for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    made = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in made)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A peer that sends nothing does not keep its thread.
    timeout = 30
    keys = ()
    # Ids of delivered messages, oldest first. A gateway of several processes keeps them where all see them.
    done = collections.OrderedDict()
    lock = threading.Lock()

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_ours(self.headers, body, self.keys, time.time()):
            return self.answer(401)
        message_id = self.headers["webhook-id"]
        with self.lock:
            if message_id in self.done:
                return self.answer(204)
        message = json.loads(body)
        try:
            deliver(message["phone"], message["code"], message_id)
        except Exception as error:
            print(f"{message_id}: {error}", file=sys.stderr, flush=True)
            return self.answer(503)
        with self.lock:
            self.done[message_id] = True
            while len(self.done) > IDS_MAX:
                self.done.popitem(last=False)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Requests hold codes and numbers: nothing about them is logged."""


def main():
    host, _, port = sys.argv[1].rpartition(":")
    Receiver.keys = secrets()
    server = ThreadingHTTPServer((host, int(port)), Receiver)
    print(f"listening on http://{host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

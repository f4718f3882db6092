"""Stand-ins for two services outside the product: a captcha provider's siteverify, and a gateway for text messages."""

import asyncio
import base64
import json
import secrets
import urllib.parse


def provider_token(is_right, captcha_id):
    """What the provider's widget gives to the shopper."""
    return f"{'right' if is_right else 'wrong'}/{captcha_id}"


class StandIns:
    """`codes` has the latest code of each phone number."""

    def __init__(self):
        self.codes, self.server, self.connections = {}, None, {}

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=512)

    async def stop(self):
        self.server.close()
        tasks = list(self.connections)
        for writer in self.connections.values():
            writer.close()
        await asyncio.gather(*tasks)

    def settings(self):
        base = "http://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return {
            "CAPTCHAS__PROVIDER__SITE_KEY": "simulation",
            "CAPTCHAS__PROVIDER__SECRET": "simulation",
            "CAPTCHAS__PROVIDER__VERIFY_URL": f"{base}/siteverify",
            "SMS_WEBHOOK__URL": f"{base}/messages",
            "SMS_WEBHOOK__SECRETS": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        }

    async def serve(self, reader, writer):
        self.connections[asyncio.current_task()] = writer
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                answer = json.dumps(self.answer(head.split()[1], body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()
        finally:
            del self.connections[asyncio.current_task()]

    def answer(self, path, body):
        if path == "/siteverify":
            token = urllib.parse.parse_qs(body.decode())["response"][0]
            if token.startswith("right/"):
                return {"success": True, "error-codes": []}
            return {"success": False, "error-codes": ["invalid-input-response"]}
        message = json.loads(body)
        self.codes[message["phone"]] = message["code"]
        return {}

"""Fetches one ticket for each user of a CSV (user_id,phone,token) and writes token,ticket lines.

Usage: tickets.py BASE_URL SALE_ID USERS.csv OUT
"""
import http.client, json, sys, threading, urllib.parse

base, sale, users, out = sys.argv[1:]
host = urllib.parse.urlparse(base).netloc
tokens = [line.rstrip("\n").split(",")[2] for line in open(users)][1:]
found, lock = [], threading.Lock()


def fetch(part):
    connection = http.client.HTTPConnection(host)
    for token in part:
        connection.request("POST", f"/api/sales/{sale}/tickets", headers={"Authorization": "Bearer " + token})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            sys.exit(f"{answer.status} {body!r}")
        with lock:
            found.append(f"{token},{json.loads(body)['ticket']}\n")


threads = [threading.Thread(target=fetch, args=(tokens[n::4],)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if len(found) != len(tokens):
    sys.exit(f"only {len(found)} of {len(tokens)} tickets")
open(out, "w").writelines(found)

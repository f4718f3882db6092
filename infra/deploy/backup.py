"""infra/deploy/backup calls this: compose.yaml, a backup while shoppers buy, three losses, and what comes back after each."""

import os
import shutil
import sys
import time

import compose as shop
from compose import Crowd, Shopper, audit, compose, create_sale, healthy, proved, run, seed, until

BACKUPS = shop.WORK / "backups"
STOCK = 5000
FLUSHALL = "REDISCLI_AUTH=$(cat /run/secrets/password) redis-cli FLUSHALL"
shop.PROJECT = "flashsale-operate"
shop.PORT = int(os.environ.get("BACKUP_TEST_PORT", "18280"))
shop.SECRETS = shop.WORK / "backup-secrets"
shop.ENVIRONMENT |= {
    "COMPOSE_PROJECT_NAME": shop.PROJECT,
    "FLASHSALE_IMAGE": "flashsale:backup-test",
    "FLASHSALE_PORT": str(shop.PORT),
    "FLASHSALE_SECRETS": str(shop.SECRETS),
    "COMPOSE": f"docker compose -p {shop.PROJECT} -f {shop.ROOT}/infra/compose.yaml",
}


def up():
    # Tried again, because health checks may take too long on a busy machine.
    until("everything is up", lambda: compose("up", "-d", "--no-build", "--pull", "never", timeout=400, check=False).returncode == 0, 300)
    healthy()


def lose(*volumes):
    """Removes all containers and these volumes, and with the last volume the secrets."""
    compose("down", "-t", "5", "--remove-orphans", timeout=180)
    for volume in volumes:
        run("docker", "volume", "rm", f"{shop.PROJECT}_{volume}")


def backup(*arguments):
    print("  " + run("infra/backup", *arguments, str(BACKUPS)).stdout.strip(), flush=True)


def restore(*arguments, check=True):
    done = run("infra/restore", *arguments, str(BACKUPS), timeout=300, check=check)
    print("  " + "\n  ".join(done.stdout.strip().splitlines()), flush=True)
    return done


def statuses(accepted):
    """What each order's buyer sees: the order's status, or the HTTP status."""
    said = {}
    for order, token in accepted.items():
        status, answer = Shopper(token).again("GET", f"/api/orders/{order}")
        said[order] = answer["status"] if status == 200 else str(status)
    return said


def sales_go_on(sale, tokens, stock):
    """Buys all remaining units: together never more than the stock."""
    crowd = Crowd(sale, tokens)
    time.sleep(4)
    bought = crowd.end()
    assert bought > 0, "nobody could buy after it"
    status, shown = Shopper().again("GET", f"/api/sales/{sale}")
    assert status == 200 and 0 <= shown["available"] <= stock - bought, shown
    audit()
    return bought


def pay(order, token):
    status, answer = Shopper(token).again("POST", f"/api/orders/{order}/payment", {})
    assert status == 200 and answer["status"] == "paid", (status, answer)


def refused_while_they_run():
    done = restore(check=False)
    assert done.returncode != 0 and "emulators run" in done.stderr, done
    proved("infra/restore refuses while emulators run")


def everything_is_lost(sale, tokens):
    """Dump during a sale, binary logs up to its end; then all volumes and secrets are lost."""
    crowd = Crowd(sale, tokens)
    time.sleep(3)
    backup()
    in_dump = dict(crowd.accepted)
    time.sleep(3)
    backup("--logs")
    time.sleep(2)
    crowd.end()
    paid = list(crowd.accepted.items())[-1]
    pay(*paid)
    backup("--logs")
    refused_while_they_run()
    accepted = dict(crowd.accepted)
    assert len(accepted) > len(in_dump) > 0, (len(accepted), len(in_dump))

    lose("redis", "mysql", "rabbitmq")
    shutil.rmtree(shop.SECRETS)
    began = time.monotonic()
    restore()
    up()
    took = time.monotonic() - began
    said = statuses(accepted)
    wrong = {order: status for order, status in said.items() if status != ("paid" if order == paid[0] else "confirmed")}
    assert not wrong, f"{len(wrong)} of {len(said)}: {list(wrong.items())[:5]}"
    audit()
    more = sales_go_on(sale, tokens, STOCK)
    proved(f"dump and binary logs: {len(accepted)} orders ({len(accepted) - len(in_dump)} of them after the dump began) and a payment are back "
           f"after everything was lost, serving {took:.0f} s later; sessions go on; {more} more were sold, books balance")


def the_ledger_is_lost(sale, tokens):
    """MySQL's volume alone is lost while shoppers buy, and only the dump is left: orders that Redis knows as sold are sent again."""
    backup()
    # Redis is rebuilt after the dump, so its epoch is higher than the restored ledger's.
    compose("exec", "-T", "redis", "sh", "-c", FLUSHALL)
    crowd = Crowd(sale, tokens)
    until("orders are recorded", lambda: set(statuses(dict(list(crowd.accepted.items())[:10])).values()) == {"confirmed"}, 90)
    time.sleep(3)
    compose("rm", "-s", "-f", "mysql")
    run("docker", "volume", "rm", f"{shop.PROJECT}_mysql")
    # Shoppers go on: orders accepted now wait in RabbitMQ.
    time.sleep(4)
    crowd.stopping.set()
    for thread in crowd.threads:
        thread.join(120)
    compose("stop", "-t", "20", "nginx", "emulator", timeout=60)
    restore("--dump-only")
    began = time.monotonic()
    up()
    until("the sweeper has sent the missing orders again", lambda: set(statuses(crowd.accepted).values()) <= {"confirmed"}, 180)
    took = time.monotonic() - began
    # Shoppers whose session Redis had lost could not be recognised while the ledger was down, and gave up.
    crowd.wrong.clear()
    bought = crowd.end()
    audit()
    # The last resort in OPERATE.md: rebuild everything from the ledger.
    compose("exec", "-T", "redis", "sh", "-c", FLUSHALL)
    time.sleep(1)
    audit()
    more = sales_go_on(sale, tokens, STOCK)
    proved(f"only the ledger is lost, only the dump is left: all {bought} orders of after it are back from Redis and RabbitMQ {took:.0f} s after the start; "
           f"books balance, also after FLUSHALL; {more} more were sold")


def the_dump_alone(sale, tokens):
    """Everything but the dump is lost: exactly what happened after it is missing."""
    crowd = Crowd(sale, tokens)
    time.sleep(4)
    crowd.end()
    before = dict(crowd.accepted)
    backup()
    crowd = Crowd(sale, tokens)
    time.sleep(4)
    crowd.end()
    after = dict(crowd.accepted)
    lose("redis", "mysql", "rabbitmq")
    restore("--dump-only")
    up()
    said = statuses(before)
    assert set(said.values()) == {"confirmed"}, set(said.values())
    said = statuses(after)
    assert set(said.values()) == {"404"}, set(said.values())
    audit()
    more = sales_go_on(sale, tokens, STOCK)
    # Buyers who lost their order may buy again.
    one = next(iter(after.values()))
    again = Crowd(sale, [one], threads=1)
    time.sleep(2)
    again.wrong.clear()
    assert again.end() == 1, "a buyer whose order was lost can't buy again"
    proved(f"the dump alone: {len(before)} orders of before it are back, {len(after)} of after it are unknown (404) and their units on sale again; "
           f"{more} more were sold, books balance")


def main():
    every = [everything_is_lost, the_ledger_is_lost, the_dump_alone]
    parts = [part for part in every if part.__name__ in sys.argv[1:]] or every
    started = time.monotonic()
    shutil.rmtree(BACKUPS, ignore_errors=True)
    try:
        compose("down", "-v", "--remove-orphans", "-t", "5", timeout=180)
        shutil.rmtree(shop.SECRETS, ignore_errors=True)
        up()
        tokens, sale = [token for _ in range(20) for token in seed(150)], create_sale(STOCK)
        for part in parts:
            part(sale, tokens)
        proved(f"backup and restore, in {time.monotonic() - started:.0f} s")
    finally:
        if os.environ.get("DEPLOY_TEST_KEEP") != "1":
            compose("down", "-v", "--remove-orphans", "-t", "5", timeout=180, check=False)


if __name__ == "__main__":
    main()

"""infra/deploy/failover calls this: each server runs on several nodes, and its leading node is killed for good while shoppers buy."""

import os
import shutil
import time

import compose as shop
from compose import Crowd, audit, create_sale, healthy, proved, run, seed, until

PASSWORD = "failover"
shop.PROJECT = "flashsale-failover"
shop.PORT = int(os.environ.get("FAILOVER_TEST_PORT", "18380"))
shop.SECRETS = shop.WORK / "failover-secrets"
BACKUPS = shop.WORK / "failover-backups"
FILES = ["-f", "infra/compose.yaml", "-f", "infra/deploy/failover.yaml"]
shop.ENVIRONMENT |= {
    "COMPOSE_PROJECT_NAME": shop.PROJECT,
    "FLASHSALE_IMAGE": "flashsale:failover-test",
    "FLASHSALE_PORT": str(shop.PORT),
    "FLASHSALE_SECRETS": str(shop.SECRETS),
    "COMPOSE": f"docker compose -p {shop.PROJECT} {' '.join(FILES)}",
}


def compose(*arguments, **options):
    return run("docker", "compose", "-p", shop.PROJECT, *FILES, *arguments, **options)


shop.compose = compose


def inside(service, *command, **options):
    return compose("exec", "-T", service, *command, **options).stdout


def sql(service, statement):
    return compose("exec", "-T", "-e", f"MYSQL_PWD={PASSWORD}", service, "mysql", "-uroot", "--vertical", "-e", statement).stdout.strip()


def up():
    shutil.rmtree(shop.SECRETS, ignore_errors=True)
    for service in ["redis/password", "mysql/password", "mysql/root_password", "rabbitmq/password"]:
        path = shop.SECRETS / service
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PASSWORD)
    nodes = "".join(f"cluster_formation.classic_config.nodes.{number} = rabbit@{name}\n"
                    for number, name in enumerate(["rabbitmq", "rabbitmq2", "rabbitmq3"], 1))
    (shop.SECRETS / "rabbitmq/cluster.conf").write_text(
        f"cluster_formation.peer_discovery_backend = classic_config\n{nodes}cluster_partition_handling = pause_minority\n")
    # Tried again, because health checks may take too long on a busy machine.
    until("everything is up", lambda: compose("up", "-d", "--no-build", "--pull", "never", timeout=400, check=False).returncode == 0, 300)
    healthy()


def killed(service):
    """Kills it for good: nothing starts it again."""
    run("docker", "kill", *shop.containers(service))


def survived(name, sale, tokens, break_it):
    crowd = Crowd(sale, tokens)
    time.sleep(3)
    before = len(crowd.accepted)
    began = time.monotonic()
    break_it()
    until("an order is accepted again", lambda: len(crowd.accepted) > before + 20, 90)
    back = time.monotonic() - began
    time.sleep(3)
    bought = crowd.end()
    audit()
    proved(f"{name}: orders flow again after {back:.0f} s at most; all {bought} accepted ones are confirmed, books balance")


def members(queue):
    """The leader, and how many members are online."""
    # A node that has just lost another may refuse for some seconds.
    def listed():
        done = compose("exec", "-T", "rabbitmq3", "rabbitmqctl", "-q", "list_queues", "--online", "name", "leader", "online", check=False)
        return done.stdout if done.returncode == 0 else None

    rows = until("rabbitmq3 lists its queues", listed, 60).splitlines()
    (row,) = [row.split("\t") for row in rows if row.split("\t")[0] == queue]
    return row[1], row[2].count("rabbit@")


def queue_leader(sale, tokens):
    until("three nodes are a cluster", lambda: inside("rabbitmq3", "rabbitmqctl", "-q", "cluster_status").count("rabbit@rabbitmq2") > 1, 90)
    # The first instance that connected declared the queue; this makes nodes that joined later members.
    for name in ["rabbitmq", "rabbitmq2", "rabbitmq3"]:
        inside("rabbitmq3", "rabbitmq-queues", "-q", "grow", f"rabbit@{name}", "all")
    until("the queue has three members", lambda: members("flashsale.orders")[1] == 3, 60)
    if members("flashsale.orders")[0] == "rabbit@rabbitmq3":
        # This test asks from there.
        inside("rabbitmq3", "rabbitmqctl", "-q", "eval", 'rabbit_quorum_queue:transfer_leadership(element(2, rabbit_amqqueue:lookup({resource, <<"/">>, queue, <<"flashsale.orders">>})), \'rabbit@rabbitmq2\').')
    leader = members("flashsale.orders")[0]
    node = leader.removeprefix("rabbit@")
    assert node in ["rabbitmq", "rabbitmq2"], leader
    survived(f"kill -9 of {node}, leader of the queue", sale, tokens, lambda: killed(node))
    after, online = members("flashsale.orders")
    assert after != leader and online == 2, (after, online)


def redis_primary(sale, tokens):
    def primary():
        return inside("sentinel1", "redis-cli", "-p", "26379", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "flashsale").split()[0]

    until("the sentinels know each other and the replica", lambda: "num-other-sentinels\n2" in inside(
        "sentinel1", "redis-cli", "-p", "26379", "SENTINEL", "MASTER", "flashsale") and "num-slaves\n1" in inside(
        "sentinel1", "redis-cli", "-p", "26379", "SENTINEL", "MASTER", "flashsale"), 60)
    before = primary()
    survived("kill -9 of the Redis primary", sale, tokens, lambda: killed("redis"))
    assert primary() != before, before


def ledger_primary(sale, tokens):
    """Semi-synchronous replication, made from a backup; then the replica is promoted by hand."""
    shutil.rmtree(BACKUPS, ignore_errors=True)
    run("infra/backup", str(BACKUPS))
    (folder,) = [path for path in BACKUPS.iterdir() if path.is_dir()]
    run("sh", "-c", f"gzip -dc {folder}/ledger.sql.gz | {shop.ENVIRONMENT['COMPOSE']} exec -T -e MYSQL_PWD={PASSWORD} mysql2 mysql -uroot --binary-mode", timeout=180)
    file, position = (folder / "position").read_text().split()
    sql("mysql", f"CREATE USER replica@'%' IDENTIFIED BY '{PASSWORD}'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'; "
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET PERSIST rpl_semi_sync_source_enabled = ON")
    sql("mysql2", "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'; SET PERSIST rpl_semi_sync_replica_enabled = ON; "
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'mysql', SOURCE_USER = 'replica', SOURCE_PASSWORD = '{PASSWORD}', "
        f"SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {position}, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA; SET PERSIST super_read_only = ON")
    until("the primary waits for its replica", lambda: "Value: ON" in sql("mysql", "SHOW STATUS LIKE 'Rpl_semi_sync_source_status'"), 60)
    until("the replica has caught up", lambda: "Seconds_Behind_Source: 0" in sql("mysql2", "SHOW REPLICA STATUS"), 60)

    def promote():
        killed("mysql")
        time.sleep(3)
        # It applies everything received before it takes writes.
        sql("mysql2", "STOP REPLICA IO_THREAD")
        until("the relay log is applied", lambda: "has read all relay log" in sql("mysql2", "SHOW REPLICA STATUS"), 60)
        sql("mysql2", "STOP REPLICA; RESET REPLICA ALL; SET PERSIST super_read_only = OFF; SET PERSIST read_only = OFF")
        # Stands for an entry in the name server.
        (container,) = shop.containers("mysql2")
        network = f"{shop.PROJECT}_back"
        run("docker", "network", "disconnect", network, container)
        run("docker", "network", "connect", "--alias", "ledger", "--alias", "mysql2", network, container)

    survived("kill -9 of the MySQL primary, promotion of its replica", sale, tokens, promote)


def main():
    started = time.monotonic()
    try:
        compose("down", "-v", "--remove-orphans", "-t", "5", timeout=180)
        up()
        tokens, sale = [token for _ in range(4) for token in seed(500)], create_sale(2000)
        queue_leader(sale, tokens)
        redis_primary(sale, tokens)
        ledger_primary(sale, tokens)
        proved(f"failover, in {time.monotonic() - started:.0f} s")
    finally:
        if os.environ.get("DEPLOY_TEST_KEEP") != "1":
            compose("down", "-v", "--remove-orphans", "-t", "5", timeout=180, check=False)


if __name__ == "__main__":
    main()

# shellcheck shell=bash
# Sourced by infra/backup and infra/restore: how the ledger's server is reached, in compose or over the network.
DATABASE=${DATABASE:-flashsale}
# Split into words on purpose: a command with its arguments.
read -ra COMPOSE <<<"${COMPOSE:-docker compose -f $here/compose.yaml}"
SECRETS=${SECRETS:-${MYSQL_CNF:+/etc/flashsale}}

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}
[[ "$DATABASE" =~ ^[A-Za-z0-9_]+$ ]] || fail "DATABASE: letters, digits and _ only"
if [ -n "${MYSQL_CNF:-}" ]; then [ -r "$MYSQL_CNF" ] || fail "MYSQL_CNF: $MYSQL_CNF can't be read"; fi

# The first of these programs that this machine has: MySQL's name, then MariaDB's.
program() {
  command -v "$1" || command -v "$2" || fail "neither $1 nor $2 is installed"
}

inside() { # a program in MySQL's container, as its root user; the password never shows in a list of processes
  # shellcheck disable=SC2016
  "${COMPOSE[@]}" exec -T mysql sh -c 'MYSQL_PWD=$(cat /run/secrets/root_password) exec "$@"' sh "$@"
}

client() { # MySQL's client, with SQL on standard input
  if [ -n "${MYSQL_CNF:-}" ]; then
    "$(program mysql mariadb)" --defaults-file="$MYSQL_CNF" --binary-mode "$@"
  else
    inside mysql -uroot --binary-mode "$@"
  fi
}

ask() { client --batch --skip-column-names <<<"$1"; }

# Tells this server from others, and from itself before a restore.
identity() {
  ask "SELECT create_time FROM information_schema.tables WHERE table_schema = '$DATABASE' AND table_name = '_sqlx_migrations'"
}

dump() {
  local run options=(--single-transaction --quick --hex-blob --no-tablespaces --add-drop-database --databases "$DATABASE") help
  if [ -n "${MYSQL_CNF:-}" ]; then
    run=("$(program mysqldump mariadb-dump)" --defaults-file="$MYSQL_CNF")
    help=$("${run[@]}" --help)
  else
    run=(inside mysqldump -uroot)
    help=$(inside mysqldump --help)
  fi
  # Where the binary logs go on after the dump, as a comment.
  if grep -q -- --source-data <<<"$help"; then options+=(--source-data=2); else options+=(--master-data=2); fi
  # A server with GTIDs: those of the old server say nothing on the new one.
  if grep -q -- --set-gtid-purged <<<"$help"; then options+=(--set-gtid-purged=OFF); fi
  "${run[@]}" "${options[@]}"
}

position() { # the file and the position in it at which the dump was taken
  local line
  # Not `grep -m1` behind a pipe: gzip would end by a signal.
  line=$(gzip -dc "$1" | sed -n '1,60{s/^-- CHANGE .*_LOG_FILE=.\([^,]*\)., .*_LOG_POS=\([0-9]*\);.*/\1 \2/p}')
  [[ "$line" =~ ^[A-Za-z0-9._-]+\ [0-9]+$ ]] || fail "the server writes no binary log (log_bin), or the account may not see where it is"
  echo "$line"
}

list_logs() { # NAME SIZE of each binary log, in order; the last grows
  ask "SHOW BINARY LOGS" | cut -f1,2
}

copy_log() { # NAME SIZE FILE: what FILE lacks of it; prints how much
  local have=0
  if [ -e "$3" ]; then have=$(stat -c %s "$3"); fi
  # Whole transactions only: the size that the server says, not that of the file.
  if [ "$have" -lt "$2" ]; then
    if [ -n "${MYSQL_CNF:-}" ]; then
      local fetched
      fetched=$(mktemp -d)
      "$(program mysqlbinlog mariadb-binlog)" --defaults-file="$MYSQL_CNF" --read-from-remote-server --raw --result-file="$fetched/" "$1"
      head -c "$2" "$fetched/$1" >"$3.new"
      rm -rf "$fetched"
      mv "$3.new" "$3"
    else
      # shellcheck disable=SC2016
      "${COMPOSE[@]}" exec -T mysql sh -c 'tail -c "+$(($2 + 1))" "/var/lib/mysql/$1" | head -c "$(($3 - $2))"' sh "$1" "$have" "$2" >>"$3"
    fi
    [ "$(stat -c %s "$3")" = "$2" ] || fail "$1: $(stat -c %s "$3") of $2 bytes were copied"
  fi
  echo $(($2 - have))
}

newest() { # the newest backup in a folder
  local found
  found=$(find "$1" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*Z' | sort | tail -1)
  [ -n "$found" ] || fail "$1 holds no backup: run infra/backup $1 first"
  echo "$found"
}

keep_secrets() {
  local folder
  if [ -n "${MYSQL_CNF:-}" ]; then
    # shellcheck disable=SC2086
    tar -cf "$1" --absolute-names $SECRETS
  else
    # Through `setup`, which may read all of them.
    folder=$("${COMPOSE[@]}" run --rm -T --no-deps --entrypoint tar setup -cf - -C /secrets . | tee "$1" | tar -tf - | wc -l)
    [ "$folder" -gt 5 ] || fail "no secrets were found"
  fi
}

prepare_server() { # SECRETS.TAR: a server that answers
  if [ -n "${MYSQL_CNF:-}" ]; then
    ask "SELECT 1" >/dev/null
    return
  fi
  [ -z "$("${COMPOSE[@]}" ps -q --status running emulator)" ] || fail "emulators run: stop them first (docker compose stop nginx emulator)"
  if ! "${COMPOSE[@]}" run --rm -T --no-deps --entrypoint test setup -s /secrets/mysql/root_password; then
    echo "restoring the secrets"
    "${COMPOSE[@]}" run --rm -T --no-deps --entrypoint tar setup -xf - -C /secrets <"$1"
  fi
  "${COMPOSE[@]}" up -d --wait --no-build mysql
}

# The command that runs mysqlbinlog.
replayer() {
  if [ -n "${MYSQLBINLOG:-}" ]; then
    echo "$MYSQLBINLOG"
  elif [ -z "${MYSQL_CNF:-}" ] && inside which mysqlbinlog >/dev/null 2>&1; then
    # The server's own: it knows every event.
    echo inside
  else
    command -v mysqlbinlog || command -v mariadb-binlog
  fi
}

replay() { # POSITION LOG...: as SQL
  local run options=(--start-position="$1" --database="$DATABASE" --disable-log-bin) container
  shift
  read -ra run <<<"$(replayer)"
  if [ "${run[0]}" = inside ]; then
    container=$("${COMPOSE[@]}" ps -q mysql)
    "${COMPOSE[@]}" exec -T mysql rm -rf /tmp/replayed
    tar -cf - -C "$(dirname "$1")" "${@##*/}" | "${COMPOSE[@]}" exec -T mysql sh -c 'mkdir /tmp/replayed && tar -xf - -C /tmp/replayed'
    "${COMPOSE[@]}" exec -T mysql mysqlbinlog "${options[@]}" "${@/#*\//\/tmp\/replayed\/}"
    "${COMPOSE[@]}" exec -T mysql rm -rf /tmp/replayed
  else
    if "${run[@]}" --help | grep -q -- --skip-gtids; then options+=(--skip-gtids); fi
    "${run[@]}" --no-defaults "${options[@]}" "$@"
  fi
}

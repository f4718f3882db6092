#!/bin/sh
# nginx's image runs this before nginx. It installs infra/nginx for a container, and then keeps the upstreams up to date: Docker's
# name server has the emulators' addresses, and /readyz says which take requests. One that drains is removed from the upstreams.
#   FLASHSALE_HTTP=serve      the site on port 80, behind somebody else's TLS or none
#                  redirect   port 80 only redirects to https
#                  tls        infra/nginx/flashsale.conf as it is, with the certificate of /opt/tls
set -eu
conf=/etc/nginx/flashsale

# One line for each emulator that is ready. An emulator that does not answer in time keeps its line: it may be busy, and nginx
# notices by itself when it is gone.
upstream() {
  getent ahostsv4 emulator | awk '$2 == "STREAM" { print $1 }' | sort -u | while read -r address; do
    line="server $address:8080 max_fails=10 fail_timeout=2s;"
    status=0
    curl -fs -m 3 -o /dev/null "http://$address:8080/readyz" || status=$?
    case $status in
      0) echo "$line" ;;
      28) grep -Fx "$line" "$conf/upstream.conf" || true ;;
    esac
  done
}

cp /opt/flashsale/flashsale/* "$conf/"
echo "server_name ${FLASHSALE_NAME:-_};" >"$conf/name.conf"
: >"$conf/upstream.conf"
upstream >"$conf/upstream.new"
mv "$conf/upstream.new" "$conf/upstream.conf"
# nginx does not start without an upstream; `follow` below replaces this one.
[ -s "$conf/upstream.conf" ] || echo 'server 127.0.0.1:9 down;' >"$conf/upstream.conf"
ln -sf /dev/stdout /var/log/nginx/flashsale.log
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log

site=/etc/nginx/conf.d/flashsale.conf
# Limits, cache, log format and upstream stand before the first server.
shared() { sed '/^server[ {]/,$d' /opt/flashsale/flashsale.conf; }
case ${FLASHSALE_HTTP:-serve} in
  serve)
    { shared; cat <<'END'; } >"$site"
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    include flashsale/name.conf;
    include flashsale/site.conf;
}
END
    ;;
  redirect)
    { shared; cat <<'END'; } >"$site"
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    server_tokens off;
    return 308 https://$host$request_uri;
}
END
    if [ "${FLASHSALE_NAME:-_}" != _ ]; then sed -i "s|https://\$host|https://$FLASHSALE_NAME|" "$site"; fi
    ;;
  tls)
    for file in tls.crt tls.key; do
      [ -r "/opt/tls/$file" ] || { echo "flashsale: no $file in FLASHSALE_TLS (infra/tls)" >&2; exit 1; }
      cp "/opt/tls/$file" "$conf/$file"
    done
    chmod 600 "$conf/tls.key"
    cp /opt/flashsale/flashsale.conf "$site"
    ;;
  *)
    echo "flashsale: FLASHSALE_HTTP is serve, redirect or tls, not $FLASHSALE_HTTP" >&2
    exit 1
    ;;
esac
nginx -t -q

# While none is ready the last ones stay: a part of the shop works without some of the servers.
follow() {
  while sleep 1; do
    upstream >"$conf/upstream.new" || continue
    if [ -s "$conf/upstream.new" ] && ! cmp -s "$conf/upstream.new" "$conf/upstream.conf"; then
      mv "$conf/upstream.new" "$conf/upstream.conf"
      nginx -s reload || true
    fi
  done
}
follow >/dev/stderr 2>&1 &

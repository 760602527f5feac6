#!/usr/bin/env bash
# PostgreSQL, Redis and PKCS#12 by the examples in deploy/examples: a client gets through, a rotation is taken, one who is revoked is refused
# (by PostgreSQL), or gets in until his certificate ends (Redis, which reads no lists).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/files.sh"
postgres=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1 || true)
[ -n "$postgres" ] || skip "postgresql is not installed"
for program in redis-server redis-cli psql; do command -v $program >/dev/null || skip "$program is not installed"; done
start_domain
keep "$work/client" "$(pod shop.backend)"
copy() { signet-agent write --once --dir "$1" --socket "$(pod shop.frontend)" >/dev/null 2>&1; }
# As PostgreSQL will not run as root.
as_owner=()
if [ "$(id -u)" = 0 ]; then
  as_owner=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
chmod 711 "$work"

# PKCS#12.
mkdir "$work/pkcs12"
example pkcs12 0
echo secret >"$work/pkcs12/password"
keep_as_shipped pkcs12 "$SPIFFE_ENDPOINT_SOCKET"
opened() {
  openssl pkcs12 -in "$work/pkcs12/run/svid.p12" -passin pass:secret -nodes -out "$work/opened" 2>/dev/null &&
    [ "$(serial "$work/opened")" = "$(serial "$work/pkcs12/files/svid.pem")" ]
}
eventually opened
first=$(serial "$work/opened")
eventually eval 'opened && [ "$(serial "$work/opened")" != "$first" ]'
cmp <(openssl pkey -in "$work/opened" -pubout) <(openssl x509 -in "$work/opened" -noout -pubkey) || fail "the key is another's"
echo "PKCS#12: two files, each with the identity of its time"

# PostgreSQL.
mkdir "$work/postgresql"
port=$(free_port)
example postgresql "$port"
run=$work/postgresql/run
# Only root may give files away; without root the server runs as this user.
[ "$(id -u)" = 0 ] || sed -i 's/ --owner postgres:postgres//' "$work/postgresql/postgresql.conf"
keep_as_shipped postgresql "$SPIFFE_ENDPOINT_SOCKET"
[ "$(id -u)" != 0 ] || chown postgres:postgres "$run"
"${as_owner[@]}" "$postgres/initdb" --pgdata "$run/data" --auth peer --username postgres >"$work/initdb.log"
"${as_owner[@]}" "$postgres/postgres" -D "$run/data" -c "config_file=$work/postgresql/postgresql.conf" >"$work/postgresql/log" 2>&1 &
children+=($!)
super() { "${as_owner[@]}" psql --quiet --no-psqlrc --host "$run" --port "$port" --username postgres --dbname postgres "$@"; }
eventually super --command "create role app login password 'app'" 2>/dev/null
# DIR: one connection of its own.
ask() {
  local set
  set=$(set_of "$1")
  PGPASSWORD=app psql --no-psqlrc --tuples-only --no-align --command 'select 1' "host=localhost port=$port user=app dbname=postgres \
    sslmode=verify-full sslrootcert=$set/bundle.pem sslcrl=$set/crl.pem sslcert=$set/svid.pem sslkey=$set/svid_key.pem"
}
eventually ask "$work/client" >/dev/null
pg_shown() {
  openssl s_client -starttls postgres -connect "localhost:$port" </dev/null 2>/dev/null | openssl x509 -noout -serial | cut -d= -f2
}
first=$(pg_shown)
eventually eval '[ "$(pg_shown)" != "$first" ]'
ask "$work/client" >/dev/null
refused env PGPASSWORD=app psql "host=localhost port=$port user=app dbname=postgres sslmode=require sslcert=/nowhere sslkey=/nowhere"
holds "$refusal" 'certificate'
copy "$work/postgresql/victim"
ask "$work/postgresql/victim" >/dev/null
signet-server revoke --serial "$(serial "$work/postgresql/victim/svid.pem")" --reason keyCompromise >/dev/null
begun=$(date +%s%N)
while ask "$work/postgresql/victim" >/dev/null 2>&1; do :; done
took=$((($(date +%s%N) - begun) / 1000000))
refused ask "$work/postgresql/victim"
holds "$refusal" 'certificate revoked'
[ $took -lt 2000 ] || fail "PostgreSQL: refused after $took ms"
ask "$work/client" >/dev/null
echo "PostgreSQL: rotated; new connections refused $took ms after the revocation"

# Redis.
mkdir "$work/redis"
port=$(free_port)
example redis "$port"
keep_as_shipped redis "$SPIFFE_ENDPOINT_SOCKET"
redis-server "$work/redis/redis.conf" >"$work/redis/log" 2>&1 &
children+=($!)
ping() {
  local set
  set=$(set_of "$1")
  redis-cli -e -h localhost -p "$port" --tls --cacert "$set/bundle.pem" --cert "$set/svid.pem" --key "$set/svid_key.pem" ping
}
eventually ping "$work/client" >/dev/null
first=$(shown "$port")
eventually eval '[ "$(shown "$port")" != "$first" ]'
ping "$work/client" >/dev/null
refused redis-cli -e -h localhost -p "$port" --tls --cacert "$work/client/bundle.pem" ping
copy "$work/redis/victim"
ping "$work/redis/victim" >/dev/null
signet-server revoke --serial "$(serial "$work/redis/victim/svid.pem")" --reason keyCompromise >/dev/null
ping "$work/redis/victim" >/dev/null || fail "Redis refuses one who is revoked: docs/files.md says that it does not"
INTEROP_TIMEOUT=20 eventually eval '! ping "$work/redis/victim" >/dev/null 2>&1'
ping "$work/client" >/dev/null
echo "Redis: rotated; one who is revoked got in until the certificate had ended"

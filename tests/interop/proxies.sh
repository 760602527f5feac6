#!/usr/bin/env bash
# nginx and HAProxy on files that `signet-agent write` keeps, by the examples in deploy/examples: 20 rotations, a rotation of the authority and
# a restart of the agent under a client that never stops sending; then one who is revoked is refused.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/files.sh"
export PATH=$PATH:/usr/sbin
count=${INTEROP_ROTATIONS:-20}
for program in nginx haproxy socat; do command -v $program >/dev/null || skip "$program is not installed"; done
start_domain
keep "$work/client" "$(pod shop.backend)"
declare -A port

mkdir "$work/nginx" "$work/haproxy"
port[nginx]=$(free_port)
example nginx "${port[nginx]}"
# The hook waits for the program as the program waits for the files.
keep_as_shipped nginx "$SPIFFE_ENDPOINT_SOCKET"
nginx -v
nginx -g "daemon off; $([ "$(id -u)" != 0 ] || echo 'user root;')" -e "$work/nginx/run/error.log" -c "$work/nginx/nginx.conf" &
children+=($!)

port[haproxy]=$(free_port)
example haproxy "${port[haproxy]}"
keep_as_shipped haproxy "$SPIFFE_ENDPOINT_SOCKET"
haproxy -v | sed -n 1p
read -ra haproxy < <(run_as "$work/haproxy/haproxy.cfg")
(cd "$work/haproxy" && exec "${haproxy[@]}") >"$work/haproxy/log" 2>&1 &
children+=($!)

for name in nginx haproxy; do
  eventually request "$work/client" "${port[$name]}"
  keep_sending $name "${port[$name]}" &
  children+=($!)
done

# One after the other, while certificates go on changing.
signet-server ca rotate
third=$((count / 3))
both_rotate() { # COUNT
  local name pid waiting=()
  for name in nginx haproxy; do rotations "${port[$name]}" "$1" & waiting+=($!); done
  for pid in "${waiting[@]}"; do wait "$pid" || fail "a certificate was not taken: $(tail -n 5 "$work"/*/files.log)"; done
}
both_rotate $third
old=$(agent_pid)
kill -KILL "$old"
both_rotate $((count - third))
[ "$(agent_pid)" != "$old" ] || fail "the agent was not restarted"
[ "$(grep -c BEGIN "$work/nginx/files/bundle.pem")" = 2 ] || fail "the authority was not rotated"

for name in nginx haproxy; do
  # Somebody has a copy of an identity, and an open connection.
  signet-agent write --once --dir "$work/$name/victim" --socket "$(pod shop.frontend)" >/dev/null 2>&1
  stolen=$work/$name/victim
  request "$stolen" "${port[$name]}"
  mkfifo "$work/$name/hold"
  openssl s_client -quiet -connect "localhost:${port[$name]}" -cert "$stolen/svid.pem" -key "$stolen/svid_with_key.pem" \
    <"$work/$name/hold" >/dev/null 2>&1 &
  connection=$!
  children+=($connection)
  exec {hold}>"$work/$name/hold"
  signet-server revoke --serial "$(serial "$stolen/svid.pem")" --reason keyCompromise >/dev/null
  begun=$(date +%s%N)
  while request "$stolen" "${port[$name]}" 2>/dev/null; do :; done
  took=$((($(date +%s%N) - begun) / 1000000))
  [ $took -lt 2000 ] || fail "$name: refused after $took ms"
  case $name in
    nginx) grep -q 'certificate revoked' "$work/nginx/run/error.log" || fail "refused for another reason" ;;
    haproxy) refused request "$stolen" "${port[$name]}"; holds "$refusal" 'certificate revoked' ;;
  esac
  while kill -0 $connection 2>/dev/null; do
    [ $((($(date +%s%N) - begun) / 1000000000)) -lt 15 ] || fail "$name: an old connection outlives its bound"
    sleep 0.1
  done
  echo "$name: new connections refused $took ms after the revocation, the old one ended after $((($(date +%s%N) - begun) / 1000000)) ms"
  exec {hold}>&-
done

touch "$work/stop"
for name in nginx haproxy; do
  sleep 0.2
  ! grep failed "$work/$name.requests" || fail "$name: requests failed"
  answered=$(grep -c ok "$work/$name.requests" || true)
  [ "$answered" -gt 100 ] || fail "$name: $answered requests were answered"
  echo "$name: $answered requests, none failed"
done

# A set that HAProxy does not load is not taken for loaded: `write` tries again.
rm "$work/haproxy/run/loaded.sum"
cp "$work/haproxy/haproxy.cfg" "$work/haproxy.good"
echo 'no such thing' >>"$work/haproxy/haproxy.cfg"
refused "$work/haproxy/take-files"
[ ! -e "$work/haproxy/run/loaded.sum" ] || fail "haproxy: what it refuses counts as loaded"
cp "$work/haproxy.good" "$work/haproxy/haproxy.cfg"
eventually test -e "$work/haproxy/run/loaded.sum"

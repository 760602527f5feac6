#!/usr/bin/env bash
# TLS by Go's crypto/tls with the server's doors, and with a workload of ours: who has which key exchange, and whether it takes another round trip.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
command -v go >/dev/null || skip "needs Go 1.24 or later: no go here"
version=$(go env GOVERSION)
minor=$(sed -n 's/^go1\.\([0-9]*\).*/\1/p' <<<"$version")
[ "${minor:-0}" -ge 24 ] || skip "needs Go 1.24 or later: this is $version"
echo "$version"
# Nothing but its own library: no network, no other toolchain.
export GOTOOLCHAIN=local GOPROXY=off GOFLAGS= GODEBUG=
(cd "$(dirname "$0")/go" && go build -o "$work/peer" ./peer)
fetch "$work/now"

# GROUPS EXPECTED: at both doors.
dials() {
  for door in "$(agents_door)" "$(bundle_door)"; do
    said=$(timeout 20 "$work/peer" dial "$door" "$1")
    echo "a client of Go with $1 at $door: $said"
    [ "$said" = "$2" ] || fail "expected: $2"
  done
}
dials default 'group X25519MLKEM768, retried false'
dials X25519MLKEM768 'group X25519MLKEM768, retried false'
dials x25519,X25519MLKEM768 'group X25519MLKEM768, retried false'
dials x25519 'group x25519, retried false'
dials secp256r1 'group secp256r1, retried false'

# GROUPS GROUP RETRIED: a workload of ours at a server of Go.
serves() {
  : >"$work/server"
  "$work/peer" serve "$work/now/svid.pem" "$work/now/svid_key.pem" "$work/now/bundle.pem" "$1" >"$work/server" 2>&1 &
  children+=($!)
  eventually grep -q '^listening on' "$work/server"
  workload "$(sed -n 's/^listening on //p' "$work/server")" "$2" "$3"
  eventually grep -q "^group $2, retried $3\$" "$work/server"
  echo "a server of Go with $1: $(tail -n 1 "$work/server")"
}
serves default X25519MLKEM768 false
serves X25519MLKEM768 X25519MLKEM768 false
serves x25519 x25519 false
serves secp256r1 secp256r1 true

#!/usr/bin/env bash
# TLS by OpenSSL 3.5 or later with the server's doors, and with a workload of ours: who has which key exchange. INTEROP_OPENSSL is the program, by
# default the one on the path.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
openssl=${INTEROP_OPENSSL:-openssl}
version=$("$openssl" version)
read -r major minor < <(sed -n 's/^OpenSSL \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' <<<"$version")
[ "${major:-0}" -gt 3 ] || [ "${major:-0}" = 3 -a "${minor:-0}" -ge 5 ] || skip "needs OpenSSL 3.5 or later: this is $version"
echo "$version"
fetch "$work/now"

# What s_client says, ARGUMENT...: at both doors. It lists a second ClientHello where it was asked for one.
dials() {
  local expected=$1 door said
  shift
  for door in "$(agents_door)" "$(bundle_door)"; do
    said=$(timeout 20 "$openssl" s_client -connect "$door" -tls1_3 -msg "$@" 2>&1 </dev/null | tr -d '\0')
    holds "$said" "$expected"
    [ "$(grep -c ', ClientHello' <<<"$said")" = 1 ] || fail "another round trip: $said"
    echo "a client of OpenSSL at $door: $expected"
  done
}
dials 'Negotiated TLS1.3 group: X25519MLKEM768'
dials 'Negotiated TLS1.3 group: X25519MLKEM768' -groups X25519MLKEM768
dials 'Temp Key: X25519,' -groups X25519
dials 'Temp Key: ECDH, prime256v1,' -groups P-256

# GROUP RETRIED ARGUMENT...: a workload of ours at a server of OpenSSL.
serves() {
  local group=$1 retried=$2
  shift 2
  : >"$work/server"
  "$openssl" s_server -www -accept 127.0.0.1:0 -tls1_3 -cert "$work/now/svid.pem" -key "$work/now/svid_key.pem" \
    -Verify 1 -verify_return_error -CAfile "$work/now/bundle.pem" "$@" >"$work/server" 2>&1 </dev/null &
  children+=($!)
  eventually grep -q '^ACCEPT .*:[0-9]' "$work/server"
  workload "127.0.0.1:$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$work/server")" "$group" "$retried"
  echo "a server of OpenSSL: $group"
}
serves X25519MLKEM768 false
serves X25519MLKEM768 false -groups X25519MLKEM768
serves x25519 false -groups X25519
serves secp256r1 true -groups P-256

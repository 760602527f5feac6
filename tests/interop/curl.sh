#!/usr/bin/env bash
# curl against an SVID with a DNS name, against the published lists, and against the bundle endpoint.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
curl --version | head -n 1
get() { curl --silent --show-error --fail --max-time 20 "$@"; }

# ARGUMENT...: openssl serves what is in $work/now. The system picks the port; s_server says which.
serve() {
  : >"$work/server"
  openssl s_server -www -accept 127.0.0.1:0 -cert "$work/now/svid.pem" -key "$work/now/svid_key.pem" "$@" \
    >"$work/server" 2>&1 </dev/null &
  children+=($!)
  eventually grep -q '^ACCEPT .*:[0-9]' "$work/server"
  url=https://localhost:$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$work/server")/
}
# Of a file named by -CRL, s_server reads the first list only; of the authorities' file it reads all that is in it.
mutual=(-Verify 1 -verify_return_error -CAfile "$work/anchors.pem" -crl_check)
anchors() { cat "$work/now/bundle.pem" "$work/now/crl.pem" >"$work/anchors.pem"; }

fetch "$work/now"
cp -r "$work/now" "$work/old"
number=$(serial "$work/old/svid.pem")
trust=(--cacert "$work/now/bundle.pem" --crlfile "$work/now/crl.pem")
serve
get "${trust[@]}" "$url" >/dev/null
refused get "$url"
old_server=$url

anchors
serve "${mutual[@]}"
get "${trust[@]}" --cert "$work/now/svid.pem" --key "$work/now/svid_key.pem" "$url" >/dev/null
refused get "${trust[@]}" "$url"

# When revoke returns, the published list names the serial.
revoke "$number"
get --output "$work/now/crl.pem" "$SIGNET_PUBLISH_URL/crl.pem"
lists "$work/now/crl.pem" "$number" || fail "revoke returned before the list was published"
refused get "${trust[@]}" "$old_server"
holds "$refusal" 'certificate revoked'

# A client is refused likewise, and the next SVID works both ways.
reissued() { fetch "$work/now" && lists "$work/now/crl.pem" "$number" && [ "$(serial "$work/now/svid.pem")" != "$number" ]; }
eventually reissued
anchors
serve "${mutual[@]}"
get "${trust[@]}" --cert "$work/now/svid.pem" --key "$work/now/svid_key.pem" "$url" >/dev/null
refused get "${trust[@]}" --cert "$work/old/svid.pem" --key "$work/old/svid_key.pem" "$url"
grep -q 'certificate revoked' "$work/server" || fail "the server says: $(cat "$work/server")"

# The list that the certificate itself points to, DER, and what caches need.
point=$(openssl x509 -in "$work/now/svid.pem" -noout -ext crlDistributionPoints | sed -n 's/.*URI://p')
get --dump-header "$work/headers" --output "$work/crl.der" "$point"
openssl crl -inform DER -in "$work/crl.der" -noout
grep -qi '^content-type: application/pkix-crl' "$work/headers" || fail "$(cat "$work/headers")"
tag=$(sed -n 's/^etag: *\(.*[^\r]\)\r*$/\1/Ip' "$work/headers")
status() { curl --silent --output /dev/null --write-out '%{http_code}' --max-time 20 "$@"; }
[ "$(status --header "If-None-Match: $tag" "$point")" = 304 ] || fail "no 304 for $tag"
[ "$(status --header 'If-None-Match: "other"' "$point")" = 200 ] || fail "no 200 for another tag"
[ "$(status --time-cond "$work/crl.der" "$point")" = 200 ] || fail "a date hides a list"
[ "$(status --head "$point")" = 200 ] || fail "no answer to HEAD"
[ "$(status --request POST "$point")" = 405 ] || fail "POST is not refused"

# https_spiffe: the server proves a SPIFFE ID, not a DNS name; what it serves are the authorities of the bundle.
refused get "$SIGNET_BUNDLE_URL"
get --insecure --output "$work/bundle.json" "$SIGNET_BUNDLE_URL"
served=$(json '"\n".join(sorted(key["x5c"][0] for key in it["keys"] if key["use"] == "x509-svid"))' <"$work/bundle.json")
known=$(python3 - "$work/now/bundle.pem" <<'PYTHON'
import re, sys
blocks = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END", open(sys.argv[1]).read(), re.S)
print("\n".join(sorted("".join(block.split()) for block in blocks)))
PYTHON
)
[ "$served" = "$known" ] || fail "the bundle endpoint serves other authorities: $(cat "$work/bundle.json")"
endpoint=${SIGNET_BUNDLE_URL#https://}
openssl s_client -connect "${endpoint%%/*}" -CAfile "$work/now/bundle.pem" -verify_return_error </dev/null >"$work/client" 2>&1 ||
  fail "the endpoint's SVID does not verify: $(cat "$work/client")"
openssl x509 -in "$work/client" -noout -ext subjectAltName

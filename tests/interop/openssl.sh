#!/usr/bin/env bash
# The files of `signet-agent fetch x509 --write` read by openssl: certificates, keys, lists, and a revoked certificate.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
openssl version
fetch "$work/now"
cd "$work/now"

verify() { openssl verify -x509_strict -CAfile bundle.pem -CRLfile crl.pem "$@"; }
for purpose in sslserver sslclient; do
  verify -crl_check -purpose $purpose svid.pem
  verify -crl_check_all -purpose $purpose svid.pem
done

# The leaf as X509-SVID §4 and §5 want it.
leaf=$(openssl x509 -in svid.pem -noout -text)
names=$(openssl x509 -in svid.pem -noout -ext subjectAltName)
[ "$(grep -o 'URI:' <<<"$names" | wc -l)" = 1 ] || fail "not exactly one URI: $names"
holds "$names" 'URI:spiffe://'
# The subject is empty, so the names are critical (RFC 5280 §4.1.2.6).
holds "$leaf" 'Subject: $'
holds "$names" 'Subject Alternative Name: critical'
holds "$leaf" 'CA:FALSE'
[ "$(openssl x509 -in svid.pem -noout -ext keyUsage | tail -n 1 | xargs)" = 'Digital Signature' ] || fail "$leaf"
holds "$(openssl x509 -in svid.pem -noout -ext keyUsage)" 'critical'
holds "$leaf" 'TLS Web Server Authentication, TLS Web Client Authentication'
openssl x509 -in svid.pem -noout -checkend 60
[ "$(openssl x509 -in svid.pem -noout -pubkey)" = "$(openssl pkey -in svid_key.pem -pubout)" ] || fail "another key"
openssl pkey -in svid_key.pem -noout -check
openssl asn1parse -in svid.pem >/dev/null

# Each authority has one list, signed by it; openssl says so in words, not by its exit status.
split_pem crl.pem "$work/lists"
for crl in "$work"/lists/*; do
  holds "$(openssl crl -in "$crl" -noout -CAfile bundle.pem -verify 2>&1)" '^verify OK'
  text=$(openssl crl -in "$crl" -noout -text)
  holds "$text" 'Version 2'
  holds "$text" 'X509v3 CRL Number'
  holds "$text" 'X509v3 Authority Key Identifier'
  openssl asn1parse -in "$crl" >/dev/null
done
[ "$(grep -c BEGIN bundle.pem)" = "$(grep -c BEGIN crl.pem)" ] || fail "not one list for each authority"

old=$work/old
cp -r "$work/now" "$old"
number=$(serial "$old/svid.pem")
revoke "$number"
reissued() { fetch "$work/now" && lists crl.pem "$number" && [ "$(serial svid.pem)" != "$number" ]; }
eventually reissued
for check in -crl_check -crl_check_all; do
  refused verify $check "$old/svid.pem"
  holds "$refusal" 'certificate revoked'
  verify $check svid.pem
done
listed=$(for crl in "$work"/listed/*; do openssl crl -in "$crl" -noout -text; done)
holds "$listed" 'Key Compromise'
holds "$listed" 'Invalidity Date'

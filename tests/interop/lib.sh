# Sourced by the scripts here: short names for what they share.

# COMMAND...: tried until it succeeds; fails when INTEROP_TIMEOUT seconds end first.
eventually() {
  local deadline=$((SECONDS + ${INTEROP_TIMEOUT:-60}))
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for: $*"
    sleep 0.1
  done
}

fail() {
  echo "failed: $*"
  exit 1
}

# Ends the peer's script; run.sh reports the reason.
skip() {
  echo "$*"
  exit 77
}

# COMMAND...: must end with an error. Its output is kept in $refusal.
refused() {
  if refusal=$("$@" 2>&1); then fail "must be refused, was not: $*"; fi
  echo "refused, as it must be: $* ($(tail -n 1 <<<"$refusal"))"
}

# TEXT PATTERN: the text must hold a line like this.
holds() { grep -q -- "$2" <<<"$1" || fail "no line like '$2' in: $1"; }

# PYTHON EXPRESSION over `it`: reads JSON from standard input.
json() { python3 -c "import json, sys; it = json.load(sys.stdin); print($1)"; }

# A folder that goes when the script ends, whatever ends it; so do the processes in $children.
children=()
tidy() {
  for pid in "${children[@]}"; do { kill "$pid" && wait "$pid"; } 2>/dev/null || true; done
  rm -rf "$work"
}
work=$(mktemp -d -t signet-peer.XXXXXX)
trap tidy EXIT
trap 'exit 143' TERM INT

serial() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; }

# DIR: the shell's own SVID, key, bundle and CRLs as files.
fetch() { signet-agent fetch x509 --write "$1" >/dev/null; }

# SERIAL: revokes this certificate, with all that an entry can say; its holder gets another one.
revoke() {
  signet-server revoke --serial "$1" --reason keyCompromise --invalid-since "$(date -u -d '1 hour ago' +%FT%TZ)"
}

# FILE SERIAL: the CRLs in the file name this serial.
lists() {
  split_pem "$1" "$work/listed"
  for crl in "$work"/listed/*; do
    openssl crl -in "$crl" -noout -text | grep -q -- "Serial Number: $2" && return
  done
  return 1
}

# FILE DIR: one file for each PEM block.
split_pem() {
  rm -rf "$2" && mkdir "$2"
  awk -v dir="$2" '/-----BEGIN/ { file = sprintf("%s/%02d.pem", dir, ++count) } { print > file }' "$1"
}

# Where the server's doors are, as host:port; its configuration is JSON.
agents_door() { json 'it["listen"]["agents"]' <"$(dirname "$SIGNET_ADMIN_SOCKET")/server.yaml"; }
bundle_door() { json 'it["listen"]["bundle"]' <"$(dirname "$SIGNET_ADMIN_SOCKET")/server.yaml"; }

# ADDRESS GROUP RETRIED: a workload of ours connects there, and has this key exchange.
workload() {
  INTEROP_TLS_ADDRESS=$1 INTEROP_TLS_GROUP=$2 INTEROP_TLS_RETRIED=$3 \
    cargo test --quiet --workspace --test interop_tls -- --ignored
}

#!/usr/bin/env bash
# Programs that nobody here wrote against a whole trust domain on this machine: one line for each. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
for tool in cargo python3 openssl curl; do
  command -v $tool >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
python3 -c 'import ensurepip, venv' || { echo "missing: the Debian package python3-venv" >&2; exit 1; }

# With the tests' features and profile: after `cargo test --workspace` nothing is compiled again.
cargo build --quiet --workspace --bins --test interop_spiffe --test interop_tls
target=$(realpath "${CARGO_TARGET_DIR:-target}")
logs=$target/interop/logs
rm -rf "$logs" && mkdir -p "$logs"
export INTEROP_VENV=${INTEROP_VENV:-$target/interop/venv} PATH=$target/debug:$PATH

# Below /tmp, whatever TMPDIR says: the paths of Unix sockets are short.
domain=$(mktemp -d -t signet-interop.XXXXXX)
signet-dev --dir "$domain" >"$logs/signet-dev.log" 2>&1 </dev/null &
dev=$!
finish() {
  kill "$dev" 2>/dev/null || true
  wait "$dev" || true
  for part in server laptop; do cp "$domain/$part/log" "$logs/signet-$part.log" 2>/dev/null || true; done
  rm -rf "$domain"
}
trap finish EXIT
trap 'exit 143' TERM INT
until [ -f "$domain/env" ]; do
  if ! kill -0 "$dev" 2>/dev/null || [ "$SECONDS" -gt 600 ]; then
    echo "signet-dev did not start:" >&2
    cat "$logs/signet-dev.log" >&2
    exit 1
  fi
  sleep 0.1
done
. "$domain/env"

failed=0
peer() { # NAME COMMAND...
  local name=$1 log=$logs/${1//[ \/]/-}.log start=$SECONDS status=0
  shift
  timeout --kill-after 10 300 "$@" >"$log" 2>&1 </dev/null || status=$?
  case $status in
    0) echo "ok       $name ($((SECONDS - start)) s)" ;;
    77) echo "skipped  $name: $(tail -n 1 "$log")" ;;
    *)
      echo "FAILED   $name (exit $status after $((SECONDS - start)) s)"
      sed 's/^/         | /' "$log"
      failed=1
      ;;
  esac
}

shell=${SPIFFE_ENDPOINT_SOCKET#unix://}
pod=$SIGNET_POD_SOCKETS/shop.frontend/spiffe.sock
for client in grpcio pyspiffe spiffe; do
  peer "$client on a pod's socket" "$here/workload_api.sh" $client "$pod" spiffe://example.org/ns/shop/sa/frontend
  peer "$client on the shell's socket" "$here/workload_api.sh" $client "$shell" "spiffe://example.org/dev/uid/$(id -u)"
done
peer openssl "$here/openssl.sh"
peer curl "$here/curl.sh"
# Domains of their own, whose SVIDs rotate every few seconds.
peer "nginx and HAProxy on kept files" "$here/proxies.sh"
peer "PostgreSQL, Redis and PKCS#12 on kept files" "$here/stores.sh"
peer "TLS of Go" "$here/go.sh"
peer "TLS of OpenSSL" "$here/openssl_tls.sh"

# All of it once more by authorities of the other algorithm.
signet-server ca rotate --algorithm p384 >"$logs/rotate.log" 2>&1
export SPIFFE_ENDPOINT_SOCKET
peer "clients under P-384" "$here/clients.sh" fetch
for program in openssl curl nginx; do
  peer "$program under P-384" "$here/$program.sh"
done
[ $failed = 0 ] || echo "logs: $logs"
exit $failed

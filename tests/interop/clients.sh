#!/usr/bin/env bash
# Foreign Workload API clients against a running agent: clients.sh fetch|watch|deny. See README.md.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=1
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in fetch | watch | deny) mode=$1 ;; *) echo "usage: $0 fetch|watch|deny" >&2; exit 2 ;; esac
: "${SPIFFE_ENDPOINT_SOCKET:?set it to the socket, as unix:///absolute/path}"
venv=${INTEROP_VENV:-$here/../../target/interop/venv}

# One environment for all runs, made anew when the pinned versions change.
python_environment() {
  if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt" || ! "$venv/bin/python" -c ''; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
  fi
}

client() { # PEER
  case $1 in
    # The whole workspace is named so that nothing is compiled with other features than before.
    spiffe) (cd "$here/../.." && INTEROP_MODE=$mode cargo test --quiet --workspace --test interop_spiffe -- --ignored) ;;
    *) python_environment && "$venv/bin/python" "$here/$1.py" "$mode" ;;
  esac
}

failed=0
for peer in ${INTEROP_PEERS:-grpcio pyspiffe spiffe}; do
  # In a process of its own: `set -e` means nothing inside an `if`.
  (set -e; client "$peer") &
  if wait $!; then
    echo "ok: $peer $mode"
  else
    echo "FAILED: $peer $mode"
    failed=1
  fi
done
exit $failed

#!/usr/bin/env bash
# Runs foreign Workload API clients against a running agent: run.sh fetch|watch|deny. See README.md.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=1
here=$(cd "$(dirname "$0")" && pwd)
mode=${1:-fetch}
case $mode in fetch | watch | deny) ;; *) echo "usage: $0 fetch|watch|deny" >&2; exit 2 ;; esac
: "${SPIFFE_ENDPOINT_SOCKET:?set it to the socket, as unix:///absolute/path}"
venv=${INTEROP_VENV:-$here/../../target/interop/venv}

# One environment for all runs, made anew when the pinned versions change.
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi

failed=0
for peer in ${INTEROP_PEERS:-grpcio pyspiffe}; do
  if "$venv/bin/python" "$here/$peer.py" "$mode"; then
    echo "ok: $peer $mode"
  else
    echo "FAILED: $peer $mode"
    failed=1
  fi
done
exit $failed

#!/usr/bin/env bash
# workload_api.sh CLIENT SOCKET SPIFFE_ID: one client on one socket, from its first SVID through rotation and denial.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
export INTEROP_PEERS=$1 SPIFFE_ENDPOINT_SOCKET=unix://$2 INTEROP_SPIFFE_ID=$3

"$here/clients.sh" fetch

# The new authority signs from now on; a revocation that goes on issuing makes this workload change over at once.
INTEROP_REVOKES=1 INTEROP_ROTATE="signet-server ca rotate --output json &&
  signet-server revoke --spiffe-id $3 --keep-issuing --reason superseded" "$here/clients.sh" watch

denial=$(signet-server revoke --spiffe-id "$3" --comment interop --output json | json 'it["denial_id"]')
refused_by_agent() { ! signet-agent fetch x509 >"$work/answer" 2>&1 && grep -q "no identity issued" "$work/answer"; }
eventually refused_by_agent
"$here/clients.sh" deny

signet-server allow "$denial"
# The agent may still tell a client the former verdict while it asks the server again; clients try again, as this does.
eventually "$here/clients.sh" fetch

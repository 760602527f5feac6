# Sourced by the scripts that run programs on files which `signet-agent write` keeps: a domain of their own, whose SVIDs live for ten seconds.

# Starts it; its variables are this shell's.
start_domain() {
  signet-dev --dir "$work/d" --svid-ttl 10s >"$work/signet-dev.log" 2>&1 </dev/null &
  dev=$!
  children+=($dev)
  eventually test -f "$work/d/env"
  . "$work/d/env"
}

# The agent alone; signet-dev starts another one.
agent_pid() {
  local pid
  for pid in $(cat "/proc/$dev/task/$dev/children"); do
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'agent'; then echo "$pid"; fi
  done
}

# DIR SOCKET ARGUMENT...: files that are kept for as long as this script runs.
keep() {
  local dir=$1 socket=$2
  shift 2
  signet-agent write --dir "$dir" --socket "$socket" "$@" >"$dir.log" 2>&1 </dev/null &
  children+=($!)
  eventually test -e "$dir/svid.pem"
}
pod() { echo "unix://$SIGNET_POD_SOCKETS/$1/spiffe.sock"; }

# NAME PORT: the example as it is shipped, but for places: /run/signet-files, /run/NAME, /etc/NAME and port 8443 are this test's.
example() {
  local name=$1 port=$2 file
  mkdir -p "$work/$name/run"
  for file in "$here/../../deploy/examples/$name"/*; do
    sed -e "s#/run/signet-files#$work/$name/files#g; s#/run/$name#$work/$name/run#g; s#/etc/$name#$work/$name#g; s#\b8443\b#$port#g" "$file" \
      >"$work/$name/$(basename "$file")"
    [ ! -x "$file" ] || chmod +x "$work/$name/$(basename "$file")"
  done
}

# NAME SOCKET [OPTION...]: the files of an example, kept as its header says, from this socket and with these options besides. The places in the
# header are this test's, as `example` made them.
keep_as_shipped() {
  local name=$1 socket=$2 file words
  shift 2
  for file in "$here/../../deploy/examples/$name"/*; do
    read -ra words < <(header "$work/$name/$(basename "$file")") || continue
    [ "${words[*]:0:3}" = "signet-agent write --dir" ] || fail "$file: its header keeps files by another command: ${words[*]}"
    keep "${words[3]}" "$socket" "$@" "${words[@]:4}"
    return
  done
  fail "no file of $name says how its files are kept"
}

# FILE: the command in its header, on one line.
header() { awk '/^#   signet-agent write / { on = 1 } on { sub(/^# +/, ""); more = sub(/ *\\$/, ""); printf "%s ", $0 } on && !more { print ""; exit }' "$1"; }

# FILE: the command by which its header has the program run.
run_as() { sed -n 's/^# Run it as `\([^`]*\)`.*/\1/p' "$1"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Of a set that is resolved once, so that what is opened fits together: the files of a client, in $1.
set_of() { readlink -f "$1/..data"; }

# DIR PORT: one request over a connection of its own, as this client.
request() {
  local set
  set=$(set_of "$1")
  curl --silent --show-error --fail --max-time 10 --output /dev/null --cacert "$set/bundle.pem" --crlfile "$set/crl.pem" \
    --cert "$set/svid_with_key.pem" --key "$set/svid_with_key.pem" "https://localhost:$2/"
}

# NAME PORT: a client that never stops sending, until $work/stop is there. One line in $work/NAME.requests for each answer.
keep_sending() {
  until [ -e "$work/stop" ]; do
    if said=$(request "$work/client" "$2" 2>&1); then
      echo ok
    else
      echo "failed at $(date +%T.%N): $said"
    fi
  done >"$work/$1.requests"
}

# PORT: the serial that the server shows.
shown() {
  openssl s_client -connect "localhost:$1" -cert "$work/client/svid.pem" -key "$work/client/svid_with_key.pem" </dev/null 2>/dev/null |
    openssl x509 -noout -serial | cut -d= -f2
}

# PORT COUNT: waits until so many further certificates were shown.
rotations() {
  local seen last= now
  seen=-1
  local deadline=$((SECONDS + 15 * $2 + 30))
  until [ "$seen" -ge "$2" ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "only $seen rotations were seen"
    now=$(shown "$1" || true)
    if [ -n "$now" ] && [ "$now" != "$last" ]; then
      last=$now
      seen=$((seen + 1))
    fi
    sleep 0.3
  done
  echo "$2 rotations were seen at port $1"
}

#!/usr/bin/env bash
# nginx with SVIDs on both sides and `ssl_crl`: it serves a client, and refuses it once it is revoked. Run for the authorities of the second
# round; by those of the first proxies.sh looks at the same, and at more.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
if [ -z "$nginx" ]; then
  # Only unpacked: an installed package would start a server of its own.
  command -v apt-get dpkg-deb >/dev/null || skip "nginx is not installed"
  cd "$work"
  apt-get download -qq nginx >apt.log 2>&1 || skip "nginx is not installed, and apt-get has none: $(tail -n 1 apt.log)"
  dpkg-deb --extract nginx_*.deb unpacked
  nginx=$work/unpacked/usr/sbin/nginx
  [ -x "$nginx" ] || skip "nginx is not installed, and Debian's package has another shape"
fi
"$nginx" -v

fetch "$work/now"
cp -r "$work/now" "$work/old"
number=$(serial "$work/old/svid.pem")
cat >"$work/nginx.conf" <<CONF
daemon off;
master_process on;
pid $work/pid;
error_log $work/error.log info;
$([ "$(id -u)" = 0 ] && echo 'user root;')
events {}
http {
  access_log off;
  client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
  uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
  server {
    listen unix:$work/nginx.sock ssl;
    ssl_certificate $work/now/svid.pem;
    ssl_certificate_key $work/now/svid_key.pem;
    ssl_client_certificate $work/now/bundle.pem;
    ssl_verify_client on;
    ssl_crl $work/now/crl.pem;
    location / { return 200 "\$ssl_client_verify\n"; }
  }
}
CONF
"$nginx" -e "$work/error.log" -c "$work/nginx.conf" &
children+=($!)

# DIR: the HTTP status that this client gets.
status_for() {
  curl --silent --output /dev/null --write-out '%{http_code}' --max-time 20 --unix-socket "$work/nginx.sock" \
    --cacert "$work/now/bundle.pem" --crlfile "$work/now/crl.pem" --cert "$1/svid.pem" --key "$1/svid_key.pem" https://localhost/
}
gets() { [ "$(status_for "$1")" = "$2" ]; }
eventually test -S "$work/nginx.sock"
eventually gets "$work/now" 200

revoke "$number"
reissued() { fetch "$work/now" && lists "$work/now/crl.pem" "$number" && [ "$(serial "$work/now/svid.pem")" != "$number" ]; }
eventually reissued
kill -HUP "$(cat "$work/pid")"
eventually gets "$work/old" 400
grep -q 'certificate revoked' "$work/error.log" || fail "$(cat "$work/error.log")"
eventually gets "$work/now" 200

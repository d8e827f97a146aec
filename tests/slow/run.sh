#!/bin/bash
# Plays slowhttptest against a started cutover and fails unless it stayed available throughout.
#
# usage: tests/slow/run.sh PATH-TO-CUTOVER [SECONDS-PER-ATTACK]
#
# Everything listens on 127.0.0.1. Slow heads (-H), slow bodies (-B), overlapping ranges (-R) and slow readers
# (-X), 1,000 connections each. Beside each attack a client asks ten times a second and may not see one error.
set -euo pipefail

cutover=$(realpath "$1")
seconds=${2:-20}
folder=$(mktemp -d)
started=()

end() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap end EXIT

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
arm=$(port) proxy=$(port) admin=$(port)

mkdir -p "$folder/www/v1"
head -c 2000000 /dev/zero | tr '\0' 'x' > "$folder/www/v1/large"
echo '{}' > "$folder/www/v1/models"
python3 -m http.server --bind 127.0.0.1 --directory "$folder/www" "$arm" >/dev/null 2>&1 &
started+=($!)
cat > "$folder/cutover.toml" <<END
[proxy]
listen = "127.0.0.1:$proxy"
keep-alive = "10s"
client-stall = "10s"
[admin]
listen = "127.0.0.1:$admin"
[store]
url = "sqlite:$folder/cutover.db"
[arms.legacy]
base-url = "http://127.0.0.1:$arm/v1"
[arms.canary]
base-url = "http://127.0.0.1:$arm/other/v1"
api-key = "client"
END
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
"$cutover" run --config "$folder/cutover.toml" > "$folder/log" 2>&1 &
daemon=$!
started+=("$daemon")
for _ in $(seq 600); do
  curl -sf -o /dev/null "http://127.0.0.1:$proxy/v1/models" && break
  sleep 0.1
done
curl -sf -o /dev/null "http://127.0.0.1:$proxy/v1/models" || { cat "$folder/log" >&2; exit 1; }

files() { find "/proc/$daemon/fd" -mindepth 1 2>/dev/null | wc -l; }
memory() { awk '/VmRSS/ { print $2 }' "/proc/$daemon/status"; }

failed=0
attack() { # name, further arguments
  local name=$1 errors=0 asked=0 pid
  shift
  slowhttptest -c 1000 -r 500 -l "$seconds" -p 5 -g -o "$folder/$name" "$@" > "$folder/$name.out" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    asked=$((asked + 1))
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$proxy/v1/models" || errors=$((errors + 1))
    sleep 0.1
  done
  # Seconds, closed, pending, connected, available: zero in the last column is an outage.
  local outages
  outages=$(awk -F, 'NR > 1 && $5 + 0 == 0' "$folder/$name.csv" | wc -l)
  echo "$name: $asked requests beside it, $errors errors, $outages seconds unavailable," \
    "$(files) files and $(memory) KiB after it"
  [ "$errors" = 0 ] && [ "$outages" = 0 ] || failed=1
}

url=http://127.0.0.1:$proxy/v1/models
echo "before: $(files) files, $(memory) KiB"
attack slow-heads -H -i 2 -t GET -u "$url" -x 24
attack slow-bodies -B -i 2 -s 8192 -t POST -u "http://127.0.0.1:$proxy/v1/chat/completions" -x 10
# Fewer, because the arm here is slow itself.
attack slow-readers -X -c 200 -r 50 -w 512 -y 1024 -n 5 -z 32 -k 3 -u "http://127.0.0.1:$proxy/v1/large"
attack ranges -R -u "$url" -t HEAD -a 10 -b 3000
kill -0 "$daemon"
# Every place is free again when the limits are over.
for _ in $(seq 300); do
  [ "$(files)" -lt 100 ] && break
  sleep 0.1
done
echo "at the end: $(files) files, $(memory) KiB"
[ "$(files)" -lt 100 ] && [ "$failed" = 0 ]

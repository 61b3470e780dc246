#!/usr/bin/env bash
# Tests the running API against its OpenAPI description with schemathesis: every check, a limited number of examples.
# Before that it checks that the description is valid OpenAPI and that the samples of docs/api.md do what they say.
#
#   scripts/api-check.sh [EXAMPLES [SEED]]     by default 50 for each operation, with a fixed seed
#
# Starts `ledger dev` on a free port with a private PostgreSQL and stops it again.
set -euo pipefail
cd "$(dirname "$0")/.."

examples=${1:-50}
seed=${2:-1}
version=4.32.5
validator=0.9.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/ledger/tools/schemathesis-$version-$validator
ledger=${LEDGER:-target/debug/ledger}

if [ ! -x "$tools/bin/schemathesis" ]; then
  echo "api-check: installing schemathesis $version (once)" >&2
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet "schemathesis==$version" "openapi-spec-validator==$validator"
fi

work=$(mktemp -d)
chmod 711 "$work"
"$ledger" dev --listen 127.0.0.1:0 --data-dir "$work/data" >"$work/out" 2>"$work/log" &
pid=$!
finish() {
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

for _ in $(seq 300); do
  url=$(grep -o -m 1 'http://127\.0\.0\.1:[0-9]*' "$work/out" || true)
  [ -n "$url" ] && break
  if ! kill -0 "$pid" 2>/dev/null; then
    cat "$work/log" >&2
    exit 1
  fi
  sleep 0.1
done
if [ -z "$url" ]; then
  echo "api-check: ledger dev did not start within 30 s" >&2
  cat "$work/log" >&2
  exit 1
fi

"$ledger" openapi >"$work/openapi.json"
"$tools/bin/openapi-spec-validator" "$work/openapi.json" >&2
"$tools/bin/python" scripts/check_samples.py "$url" >&2
"$tools/bin/schemathesis" --config-file config/schemathesis.toml run "$url/openapi.json" --max-examples "$examples" --seed "$seed"

#!/usr/bin/env bash
# Checks all files other than Rust code: image, compose file, alerts, dashboard, chart, playbook, scripts and documents,
# and whether they fit the binary (LEDGER, default target/debug/ledger). Takes seconds; its tools are installed once, into
# a cache outside the tree. A check that cannot run counts as failed, except for the rendering
# of the chart, which is reported as NOT RUN. scripts/platform-check.sh has the longer checks.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -ne 0 ] || scripts/setup.sh checks
python=$(scripts/platform-tools.sh python)
prometheus=$(scripts/platform-tools.sh prometheus)
ledger=${LEDGER:-target/debug/ledger}
# Helm is built from source. Where that is impossible, the templates of the chart are not rendered.
if helm=$(timeout 900 scripts/platform-tools.sh helm); then
  helm=$helm/bin/helm
else
  helm=
  echo "NOT RUN: the chart is not rendered, because Helm cannot be built here; scripts/platform-check.sh renders it" >&2
fi
PATH=$python/bin:$prometheus/bin:$PATH

files() { # PATTERN...: lists matching files of the tree, except for those that git ignores
  git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do [ ! -f "$file" ] || echo "$file"; done
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=()
check() { # NAME COMMAND...
  local name=$1
  shift
  # Runs in the background: inside a condition bash would continue after a command that fails.
  "$@" >"$output" 2>&1 </dev/null &
  if wait $!; then
    printf '%-12s ok\n' "$name"
  else
    printf '%-12s FAILED\n' "$name" >&2
    cat "$output" >&2
    failed+=("$name")
  fi
}

yaml() {
  mapfile -t list < <(files '*.yml' '*.yaml')
  yamllint --strict --config-file .yamllint.yaml "${list[@]}"
}

shell() {
  mapfile -t list < <(files '*.sh' '.ci/*')
  shellcheck "${list[@]}"
}

json() {
  local file
  mapfile -t list < <(files '*.json')
  for file in "${list[@]}"; do
    echo "$file"
    python3 -m json.tool "$file" >/dev/null
  done
}

shipped() {
  [ -x "$ledger" ] || { echo "there is no $ledger; \`make build\` builds it"; exit 1; }
  scripts/check_shipped.py --ledger "$ledger" ${helm:+--helm "$helm"}
}

chart() { # checks the schema, the values files, the values that the chart refuses, and who sets the number of replicas
  local value schedule
  check-jsonschema --check-metaschema k8s/ledger/values.schema.json
  check-jsonschema --schemafile k8s/ledger/values.schema.json k8s/ledger/values*.yaml
  [ -n "$helm" ] || return 0
  template() { "$helm" template ledger k8s/ledger --kube-version 1.32.0 "$@"; }
  refused() { if template "$@" >/dev/null 2>&1; then echo "the chart accepts $*" && exit 1; fi; }
  for value in sevre.replicas=3 serve.replica=3 serve.resources.limits.memory=1Gb serve.resources.requests.cpu=1cpu \
    listenAddress=localhost listenAddress=::; do
    refused --set "$value"
  done
  refused --set serve.autoscaling.enabled=true,serve.autoscaling.minReplicas=7,serve.autoscaling.maxReplicas=6
  for schedule in '*/15 * * *' '*/15 * * * * *' '*/0 * * * *' 'every hour' '@often' 'a * * * *'; do
    refused --set-string "aggregate.schedule=$schedule"
  done
  for schedule in '0 */2 * * *' '5\,35 0-6 1 JAN-JUN MON' '@hourly' '10-50/10 * * * 1-5'; do
    template --set-string "aggregate.schedule=$schedule" >/dev/null
  done
  template --set serve.autoscaling.enabled=true --show-only templates/serve.yaml >"$output.chart"
  if grep -q '^  replicas:' "$output.chart"; then echo "serve sets replicas, although an autoscaler does" && exit 1; fi
  template --show-only templates/serve.yaml | grep -q '^  replicas: 2$'
  rm "$output.chart"
}

alerts() {
  promtool check config --lint=all --lint-fatal config/prometheus/prometheus.yml
  promtool check rules --lint=all --lint-fatal config/prometheus/ledger.rules.yml
  promtool test rules config/prometheus/ledger.rules.test.yml
}

playbook() {
  ANSIBLE_CONFIG=ansible/ansible.cfg ansible-playbook --syntax-check ansible/playbook.yml
}

same() { # NAME VALUE VALUE...: fails unless all values were found and are equal
  local name=$1 first=$2 value
  shift
  for value in "$@"; do
    [ -n "$value" ] && [ "$value" = "$first" ] || { echo "$name: the versions differ: $*"; return 1; }
  done
}

versions() { # compares versions that more than one file names
  same Rust "$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)" \
    "$(sed -n 's/^ARG BUILD_IMAGE=rust:\(.*\)-bookworm$/\1/p' Containerfile)"
  same ledger "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
    "$(sed -n 's/^appVersion: //p' k8s/ledger/Chart.yaml)"
  same Kafka "$(sed -n 's/^readonly KAFKA_VERSION=//p' scripts/kafka.sh)" \
    "$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>|\1|p' scripts/kafka/pom.xml)" \
    "$(sed -n 's|^ *image: apache/kafka:||p' compose.yaml)"
}

targets() { # runs every target of `make help`, and the targets that they call, as a dry run
  make --no-print-directory help >/dev/null
  sed -n 's/^\([a-z-]*\):.*## .*/\1/p' Makefile | xargs -r make --dry-run
}

links() {
  mapfile -t list < <(files '*.md' 'config/prometheus/*.yml')
  scripts/check_links.py "${list[@]}"
}

check yaml yaml
check shell shell
check json json
check image hadolint --no-color Containerfile
check compose check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
check alerts alerts
check chart chart
check playbook playbook
check versions versions
check shipped shipped
check metrics scripts/check_metrics.py
check links links
check make targets

if [ ${#failed[@]} -gt 0 ]; then
  echo "lint-platform-quick: failed: ${failed[*]}" >&2
  exit 1
fi

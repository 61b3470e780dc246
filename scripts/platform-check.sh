#!/usr/bin/env bash
# Checks the deployment files at length: the chart, the compose file as Docker reads it, the playbook, the units, the
# TeamCity settings, and the dashboard and alerts on a real Prometheus. Takes several minutes the first time, when it
# builds its tools, then about one. A check that cannot run counts as failed. scripts/lint-platform-quick.sh has the
# quick checks.
#
#   scripts/platform-check.sh [CHECK…]     all, or some of: chart compose playbook units teamcity dashboard
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -ne 0 ] || { scripts/setup.sh test && scripts/setup.sh checks; }

kubernetes_versions=(1.30 1.32)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=()
check() { # NAME COMMAND...
  local name=$1 started=$SECONDS
  shift
  # Runs in the background: inside a condition bash would continue after a command that fails.
  "$@" >"$work/output" 2>&1 </dev/null &
  if wait $!; then
    printf '%-12s ok (%s s)\n' "$name" $((SECONDS - started))
  else
    printf '%-12s FAILED\n' "$name" >&2
    cat "$work/output" >&2
    failed+=("$name")
  fi
}

# Checks the manifests of every values file, and of options that no values file uses, against the schemas of
# Kubernetes. `kubernetes-validate` only warns about kinds that are unknown or removed, so a warning fails.
chart() {
  helm=$(scripts/platform-tools.sh helm)/bin/helm
  validate=$(scripts/platform-tools.sh kubernetes)/bin/kubernetes-validate
  cp config/rules.toml "$work/rules.toml"
  render() { # ARGUMENT...
    local version
    "$helm" lint --strict --quiet k8s/ledger "$@"
    for version in "${kubernetes_versions[@]}"; do
      "$helm" template ledger k8s/ledger --namespace ledger --kube-version "$version.0" "$@" >"$work/manifests.yaml"
      "$validate" --strict -k "$version" "$work/manifests.yaml" >"$work/validated" 2>&1 || { cat "$work/validated"; exit 1; }
      if grep WARN "$work/validated"; then exit 1; fi
    done
  }
  for values in k8s/ledger/values*.yaml; do
    render --values "$values"
  done
  render --set-file rules="$work/rules.toml" --set fullnameOverride=other,serviceAccount.create=false \
    --set 'imagePullSecrets[0].name=registry,extraEnv[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,extraEnv[0].value=http://otel:4317' \
    --set database.migrate.existingSecret=owner,serve.autoscaling.enabled=true
  render --set 'listenAddress=[::]' \
    --set 'relay.initContainers[0].name=connector,relay.initContainers[0].image=connector:1,relay.initContainers[0].restartPolicy=Always' \
    --set 'relay.extraContainers[0].name=agent,relay.extraContainers[0].image=agent:1' \
    --set 'relay.extraVolumes[0].name=secrets,relay.extraVolumes[0].emptyDir.medium=Memory' \
    --set 'relay.extraVolumeMounts[0].name=secrets,relay.extraVolumeMounts[0].mountPath=/secrets'
}

compose() {
  docker_compose=$(scripts/platform-tools.sh compose)/bin/docker-compose
  "$docker_compose" --file compose.yaml config --quiet
}

ansible() {
  tools=$(scripts/platform-tools.sh kubernetes)
  export PATH=$tools/bin:$PATH ANSIBLE_CONFIG=$PWD/ansible/ansible.cfg ANSIBLE_LOCALHOST_WARNING=false
}

playbook() {
  ansible
  cd ansible
  ansible-playbook --syntax-check playbook.yml
  ansible-lint --offline --profile production --strict
}

# Checks the units as the role renders them, with a command that exists on this machine.
units() {
  command -v systemd-analyze >/dev/null || { echo "needs systemd-analyze, from the Debian package systemd"; exit 1; }
  ansible
  mkdir "$work/units"
  ansible-playbook --inventory localhost, ansible/render-units.yml \
    --extra-vars "render_to=$work/units ansible_python_interpreter=$tools/bin/python3"
  sed -i 's|^ExecStart=/usr/local/bin/ledger|ExecStart=/bin/true|' "$work"/units/*.service
  systemd-analyze verify "$work"/units/ledger-* 2>"$work/verified" || { cat "$work/verified"; exit 1; }
  # The output also names units of this machine, which do not matter here.
  if grep ledger "$work/verified"; then exit 1; fi
  # The scale goes from 0 (best) to 100 (worst).
  systemd-analyze security --offline=true --threshold=20 "$work"/units/ledger-*.service
}

# Runs real roles under traffic and a real Prometheus, and evaluates every query of the dashboard and the alerts.
dashboard() {
  prometheus=$(scripts/platform-tools.sh prometheus)/bin/prometheus
  scripts/check_dashboard.py --ledger "${LEDGER:-target/debug/ledger}" --prometheus "$prometheus"
}

# Checks the format, then compiles the settings and runs them against the stub, whose steps print their commands.
teamcity() {
  lib=$(scripts/platform-tools.sh kotlin)/lib
  shellcheck=$(scripts/platform-tools.sh python)/bin/shellcheck
  compiler=org.jetbrains.kotlin.cli.jvm.K2JVMCompiler
  runtime=$(echo "$lib"/kotlin-stdlib-2.*.jar):$(echo "$lib"/kotlin-script-runtime-*.jar)
  scripting=$(printf '%s,' "$lib"/kotlin-script*.jar "$lib"/kotlinx-coroutines-core-jvm-*.jar)
  java -cp "$lib/*" com.pinterest.ktlint.Main --log-level=none teamcity/settings.kts 'teamcity/stub/*.kt'
  java -cp "$lib/*" "$compiler" -no-stdlib -no-reflect -nowarn -cp "$runtime" -d "$work/stub" teamcity/stub/*.kt
  java -cp "$lib/*" "$compiler" -no-stdlib -no-reflect -nowarn -Xplugin="${scripting%,}" -cp "$work/stub:$runtime" \
    -script teamcity/settings.kts >"$work/commands.sh"
  grep -q '^make test$' "$work/commands.sh"
  "$shellcheck" --shell=sh "$work/commands.sh"
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(chart compose playbook units teamcity dashboard)
for name in "${wanted[@]}"; do
  case $name in
    chart | compose | playbook | units | teamcity | dashboard) check "$name" "$name" ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "platform-check: failed: ${failed[*]}" >&2
  exit 1
fi

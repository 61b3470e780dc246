#!/usr/bin/env bash
# Installs the system packages that building and testing need, and names them.
#
#   scripts/setup.sh build   a C compiler and linker, for the crates that hold C
#   scripts/setup.sh test    the same; Java, Maven and OpenSSL for a real Kafka; PostgreSQL and locales for a German one;
#                            PgBouncer; ip, for a network namespace
#   scripts/setup.sh bench   the same as test, and PostgreSQL, wrk and Python, for the benchmarks
#   scripts/setup.sh checks  the same as build, and Python, for checkers from the Python package index
#
# Most tests use an installed PostgreSQL or download a portable one. The tests of translated messages need the package.
set -euo pipefail

case "${1:-}" in
  build) wanted=(cc:gcc make:make) ;;
  test) wanted=(cc:gcc make:make java:default-jre-headless mvn:maven openssl:openssl ip:iproute2) ;;
  bench) wanted=(cc:gcc make:make java:default-jre-headless mvn:maven wrk:wrk python3:python3) ;;
  checks) wanted=(cc:gcc make:make python3:python3) ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
  echo "setup: there is no Rust toolchain; install it with rustup, then retry" >&2
  exit 1
fi

packages=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
done
if [[ $1 == checks || $1 == bench ]] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  packages+=(python3-venv)
fi
if [[ $1 == test || $1 == bench ]] && command -v apt-get >/dev/null; then
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
  [ -e /usr/share/i18n/locales/de_DE ] || packages+=(locales)
  [ "$1" = bench ] || command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
fi
[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup: please install (Debian names): ${packages[*]}" >&2
  exit 1
fi
run=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: please run as root: apt-get install ${packages[*]}" >&2
    exit 1
  fi
  run=(sudo)
fi
echo "setup: installing ${packages[*]}" >&2
"${run[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null

#!/usr/bin/env bash
# Builds and runs the containers without a registry: the image with every role under the restrictions of
# compose file and chart, and the playbook, which runs twice against a Debian host with a running systemd.
#
#   scripts/container-check.sh [image] [host]     both by default; some minutes
#
# Needs root and the Debian packages buildah, podman, runc and debootstrap. The base system comes from Debian's
# archive; no image is pulled. The build image copies an existing binary (LEDGER, default target/debug/ledger), so
# this does not check that the crate compiles in it.
set -euo pipefail
cd "$(dirname "$0")/.."

ledger=$(realpath "${LEDGER:-target/debug/ledger}")
tools=${XDG_CACHE_HOME:-$HOME/.cache}/ledger/tools

[ "$(id -u)" -eq 0 ] || { echo "container-check: needs root" >&2; exit 1; }
for command in buildah podman runc debootstrap; do
  command -v "$command" >/dev/null || { echo "container-check: please install the Debian package $command" >&2; exit 1; }
done

work=$(mktemp -d)
# PostgreSQL runs as another user, who must reach the data.
chmod 711 "$work"
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
run=(podman "${storage[@]}" --runtime runc --cgroup-manager cgroupfs)
limits=(--ulimit nofile=20000:20000 --ulimit nproc=1024:1024)

finish() {
  "${run[@]}" rm --all --force --time 10 >/dev/null 2>&1 || true
  if [ -n "${dev:-}" ]; then
    kill "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

fail() {
  echo "container-check: $*" >&2
  exit 1
}

until_ok() { # SECONDS COMMAND…
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >"$work/until" 2>&1; do
    [ $SECONDS -lt $deadline ] || { cat "$work/until" >&2 && fail "timed out waiting for: $*"; }
    sleep 0.2
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Caches a Debian base system without downloaded packages, so that the next run starts in seconds.
base() {
  if [ ! -e "$tools/debian-bookworm.tar" ]; then
    echo "container-check: fetching a base system (once)" >&2
    mkdir -p "$tools"
    debootstrap --variant=minbase --include=ca-certificates,systemd,systemd-sysv,dbus,python3 bookworm "$work/base" \
      http://deb.debian.org/debian >"$work/debootstrap.log" || { tail -3 "$work/debootstrap.log" >&2 && fail "debootstrap failed"; }
    rm -rf "$work"/base/var/cache/apt/archives/*.deb
    tar -C "$work/base" -cf "$work/debian.tar" .
    mv "$work/debian.tar" "$tools/debian-bookworm.tar"
    rm -rf "$work/base"
  fi
  "${run[@]}" import "$tools/debian-bookworm.tar" localhost/debian:1 >/dev/null 2>&1
}

# Starts a private PostgreSQL. `database NAME` creates a database in it and prints the URL.
postgres() {
  "$ledger" dev --listen 127.0.0.1:0 --admin-listen off --data-dir "$work/data" >"$work/dev.out" 2>"$work/dev.log" &
  dev=$!
  until_ok 60 grep -o 'postgres://[^ ]*' "$work/dev.out"
}

database() {
  local url
  url=$(grep -o 'postgres://[^ ]*' "$work/dev.out")
  psql=$(command -v psql || find /usr/lib/postgresql -name psql -path '*/bin/*' | tail -1)
  "$psql" "$url" --quiet --command "CREATE DATABASE $1"
  echo "${url%/ledger}/$1"
}

traffic() { # URL
  "$ledger" simulate --url "$1" --rate 50 --duration 3s --output json >"$work/traffic.json" 2>"$work/traffic.log" ||
    { cat "$work/traffic.log" >&2 && fail "the API answered wrongly"; }
}

# Builds the image with a fake cargo, which checks the documented command and files and copies the binary.
build_image() {
  mkdir "$work/build"
  cp "$ledger" "$work/build/ledger"
  cat >"$work/build/cargo" <<'END'
#!/bin/bash
set -eu
[ "$*" = "build --release --locked --bin ledger" ]
ls Cargo.toml Cargo.lock src/main.rs migrations config/default.toml config/rules.toml >/dev/null
mkdir -p target/release
cp /prebuilt/ledger target/release/ledger
END
  chmod 755 "$work/build/cargo"
  printf 'FROM localhost/debian:1\nCOPY ledger /prebuilt/ledger\nCOPY cargo /usr/local/bin/cargo\n' >"$work/build/Containerfile"
  buildah "${storage[@]}" bud --isolation chroot --pull-never --tag localhost/build:1 "$work/build"
  buildah "${storage[@]}" bud --isolation chroot --pull-never --file Containerfile \
    --build-arg BUILD_IMAGE=localhost/build:1 --tag localhost/ledger:1 .
}

image() {
  build_image >"$work/image.log" 2>&1 || { tail -20 "$work/image.log" >&2 && fail "the image does not build"; }
  local url api admin name
  url=$(database image)
  api=127.0.0.1:$(free_port)
  admin=127.0.0.1:$(free_port)
  role=("${run[@]}" run --network host "${limits[@]}" --read-only --cap-drop ALL --security-opt no-new-privileges
    --env "LEDGER_DATABASE__URL=$url" --env "LEDGER_SERVE__LISTEN=$api")
  "${role[@]}" --rm localhost/ledger:1 migrate >/dev/null
  "${role[@]}" --detach --name serve --env "LEDGER_ADMIN__LISTEN=$admin" localhost/ledger:1 serve >/dev/null
  for name in relay consume-risk; do
    "${role[@]}" --detach --name "$name" --env LEDGER_ADMIN__LISTEN=off localhost/ledger:1 "$name" >/dev/null
  done
  until_ok 30 curl --silent --fail "http://$admin/readyz"
  traffic "http://$api"
  "${role[@]}" --rm localhost/ledger:1 aggregate >/dev/null
  LEDGER_DATABASE__URL=$url "$ledger" verify --wait 30s >"$work/verify" || { cat "$work/verify" >&2 && fail "verify differs"; }
  if "${run[@]}" exec serve /bin/sh -c true 2>/dev/null; then fail "the image has a shell"; fi
  [ "$("${run[@]}" inspect --format '{{.Config.User}}' serve)" = 10001:10001 ] || fail "the image does not run as 10001"
  "${run[@]}" stop --time 10 serve relay consume-risk >/dev/null
  for name in serve relay consume-risk; do
    [ "$("${run[@]}" inspect --format '{{.State.ExitCode}}' "$name")" = 0 ] || fail "$name did not stop cleanly"
  done
}

play() { # ARGUMENT…
  "$ansible/bin/ansible-playbook" --inventory "$work/inventory.yml" ansible/playbook.yml "$@" >"$work/play.log" 2>&1
}

on_host() { # COMMAND…
  "${run[@]}" exec host "$@"
}

processes() { # lists the roles with their process ids
  on_host systemctl show --property Id,MainPID ledger-serve ledger-relay ledger-consume-risk | paste - - -
}

host() {
  ansible=$(scripts/platform-tools.sh ansible)
  # Ansible calls its own programs by name.
  export PATH=$ansible/bin:$PATH ANSIBLE_CONFIG=$PWD/ansible/ansible.cfg
  "${run[@]}" run --detach --name host --systemd always --privileged --network host "${limits[@]}" --tmpfs /run --tmpfs /tmp \
    localhost/debian:1 /sbin/init >/dev/null
  until_ok 30 "${run[@]}" exec host systemctl is-system-running --wait
  local url api
  url=$(database host)
  api=127.0.0.1:$(free_port)
  cat >"$work/inventory.yml" <<END
ledger:
  hosts:
    host:
  vars:
    ansible_connection: containers.podman.podman
    ansible_podman_extra_args: ${run[*]:1}
    ansible_python_interpreter: /usr/bin/python3
    ansible_become: false
    ledger_binary: $ledger
    ledger_database_url: $url
    ledger_broker_kind: postgres
    ledger_rules_file: $PWD/config/rules.toml
    ledger_serve_listen: $api
    ledger_admin_listen:
      serve: 127.0.0.1:$(free_port)
      relay: 127.0.0.1:$(free_port)
      consume-risk: 127.0.0.1:$(free_port)
END
  play --check || { tail -20 "$work/play.log" >&2 && fail "the playbook fails with --check on a fresh host"; }
  if on_host test -e /etc/ledger; then fail "--check changes the host"; fi
  play || { tail -20 "$work/play.log" >&2 && fail "the playbook fails"; }
  traffic "http://$api"
  "${run[@]}" exec host systemctl start ledger-aggregate.service
  LEDGER_DATABASE__URL=$url "$ledger" verify --wait 30s >"$work/verify" || { cat "$work/verify" >&2 && fail "verify differs"; }
  play || { tail -20 "$work/play.log" >&2 && fail "the playbook fails when run again"; }
  grep -q 'changed=0 .*failed=0' "$work/play.log" || { tail -20 "$work/play.log" >&2 && fail "a second run changes something"; }
  # A new binary with a wrong configuration: nothing is replaced.
  cp "$ledger" "$work/newer"
  printf newer >>"$work/newer"
  local before
  before=$(processes)
  if play --extra-vars '{"ledger_config": "[serve]\nwritters = 3\n", "ledger_binary": "'"$work/newer"'"}'; then
    fail "a wrong configuration is installed"
  fi
  [ "$(processes)" = "$before" ] || fail "a refused play restarts roles"
  [ "$(on_host sha256sum /usr/local/bin/ledger | cut -d' ' -f1)" = "$(sha256sum "$ledger" | cut -d' ' -f1)" ] ||
    fail "a refused play replaces the binary"
  # A play that ends between the installation and the restart is completed by the next one.
  "${run[@]}" cp "$work/newer" host:/usr/local/bin/ledger
  play --extra-vars "ledger_binary=$work/newer" || { tail -20 "$work/play.log" >&2 && fail "the upgrade fails"; }
  [ "$(processes | grep -cFxf <(echo "$before"))" = 0 ] || fail "a role runs the old binary after the upgrade"
  # A setting that only serve reads restarts only serve. A role that is taken out is stopped and stays so.
  before=$(processes)
  play --extra-vars '{"ledger_config": "[log]\nformat = \"text\"\n[serve]\nwriters = 3\n", "ledger_binary": "'"$work/newer"'"}' ||
    { tail -20 "$work/play.log" >&2 && fail "a new setting fails"; }
  [ "$(processes | grep -cFxf <(echo "$before"))" = 2 ] || fail "a setting of serve restarts: $before -> $(processes)"
  play --extra-vars '{"ledger_services": ["serve", "relay"]}' || { tail -20 "$work/play.log" >&2 && fail "a role fewer fails"; }
  if on_host systemctl is-active ledger-consume-risk >/dev/null; then fail "a role that was taken out runs"; fi
  if on_host systemctl is-enabled ledger-consume-risk 2>/dev/null; then fail "a role that was taken out is enabled"; fi
  # The owner's password goes when it is no longer configured.
  play --extra-vars "ledger_migrate_database_url=$url" || { tail -20 "$work/play.log" >&2 && fail "the owner's URL fails"; }
  on_host test -e /etc/ledger/migrate.env || fail "the owner's URL is not installed"
  play || { tail -20 "$work/play.log" >&2 && fail "the playbook fails in the end"; }
  if on_host test -e /etc/ledger/migrate.env; then fail "the owner's URL stays"; fi
  on_host systemctl is-active ledger-serve ledger-relay ledger-consume-risk >/dev/null
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(image host)
for name in "${wanted[@]}"; do
  case $name in
    image | host) ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
base
postgres
for name in "${wanted[@]}"; do
  started=$SECONDS
  "$name"
  printf '%-12s ok (%s s)\n' "$name" $((SECONDS - started))
done

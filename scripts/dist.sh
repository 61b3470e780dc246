#!/usr/bin/env bash
# Builds the release archive in target/dist: the stripped binary, shell completions, man pages, the configuration and the
# rules, with SHA256SUMS beside it. Paths of this machine and times are kept out, so that two builds of one commit with the
# same toolchain give the same bytes.
#
#   scripts/dist.sh            build and pack
#   scripts/dist.sh compare    do both twice, in two directories, and compare the archives (two full builds)
#
# LEDGER packs an existing binary.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
platform=$(rustc -vV | sed -n 's/^host: //p')
name=ledger-$version-$platform
output=$PWD/target/dist
# Keeps git from finding a repository around an unpacked archive.
export GIT_CEILING_DIRECTORIES=${PWD%/*}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
LEDGER_BUILD_COMMIT=${LEDGER_BUILD_COMMIT:-$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || true)}
LEDGER_BUILD_DATE=${LEDGER_BUILD_DATE:-$(git log -1 --format=%cs 2>/dev/null || true)}
export SOURCE_DATE_EPOCH LEDGER_BUILD_COMMIT LEDGER_BUILD_DATE

build() {
  local cargo_home=${CARGO_HOME:-$HOME/.cargo}
  local build=$PWD/target/dist-build
  # A target directory of its own: other flags would make cargo build everything again.
  RUSTFLAGS="--remap-path-prefix=$PWD=/ledger --remap-path-prefix=$cargo_home=/cargo" \
    CFLAGS="-ffile-prefix-map=$PWD=/ledger -ffile-prefix-map=$cargo_home=/cargo" \
    cargo build --locked --release --bin ledger --target-dir "$build" >&2
  echo "$build/release/ledger"
}

pack() { # BINARY
  local work folder
  work=$(mktemp -d)
  folder=$work/$name
  mkdir -p "$folder/completions" "$folder/config" "$output"
  install -m 0755 "$1" "$folder/ledger"
  cp LICENSE README.md CHANGELOG.md "$folder"
  cp config/default.toml config/rules.toml "$folder/config"
  "$folder/ledger" completions bash >"$folder/completions/ledger.bash"
  "$folder/ledger" completions zsh >"$folder/completions/_ledger"
  "$folder/ledger" completions fish >"$folder/completions/ledger.fish"
  "$folder/ledger" man "$folder/man" >&2
  tar --directory "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s \
    --format=gnu --create "$name" | gzip --no-name --best >"$output/$name.tar.gz"
  rm -rf "$work"
  (cd "$output" && sha256sum "$name.tar.gz" >SHA256SUMS)
  echo "$output/$name.tar.gz"
}

compare() {
  local copies folder
  # The copies are the commit, without changes of the working tree.
  LEDGER_BUILD_COMMIT=${LEDGER_BUILD_COMMIT%-dirty}
  [ -z "${LEDGER:-}" ] || LEDGER=$(realpath "$LEDGER")
  copies=$(mktemp -d)
  for folder in one other-place; do
    mkdir "$copies/$folder"
    git archive HEAD | tar --extract --directory "$copies/$folder"
    LEDGER=${LEDGER:-} "$copies/$folder/scripts/dist.sh"
  done
  cmp "$copies"/{one,other-place}/target/dist/"$name.tar.gz" || {
    echo "the builds differ; they are kept in $copies" >&2
    exit 1
  }
  echo "both builds of $LEDGER_BUILD_COMMIT are the same"
  rm -rf "$copies"
}

case "${1:-}" in
  '') pack "${LEDGER:-$(build)}" ;;
  compare) compare ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

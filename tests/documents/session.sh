# The shell of one page of the documents. `tests/documents.rs` writes a script for each page: this file, then for each
# block `block FILE:LINE`, the block as it is written, and `end_of_block`; at the end `end_of_page`.
#
# The only differences from the terminal of a user:
#
# - `ledger` is the binary of the tests. A role in the foreground runs until it has started, and then gets Ctrl-C. With
#   `&` it runs until the end of the page. `ledger dev` runs until `stop_dev`, or until the end of the page.
# - `make` compiles nothing, and `make test` does nothing, because it would run this script again.
# - `curl` fails if the status is 400 or above.
# - `ledger simulate` and `ledger demo` send fewer transactions.
# - Time limits of the database and of leases are longer, for a busy machine.
# shellcheck shell=bash

set -eo pipefail

dev=

ledger() {
  case "$1 $*" in
    dev\ *) start_dev "$TEST_LEDGER" "$@" ;;
    serve\ * | relay\ * | consume-risk\ * | aggregate\ *--every*)
      # In the background, a function has a process of its own.
      if [ "$BASHPID" = "$$" ]; then start_and_interrupt "$@"; else exec "$TEST_LEDGER" "$@" >"roles/$BASHPID" 2>&1; fi
      ;;
    simulate\ *)
      set -- "${@/#1m/2s}"
      set -- "${@/#1000/100}"
      "$TEST_LEDGER" "$@"
      ;;
    *) "$TEST_LEDGER" "$@" ;;
  esac
}

make() {
  case "$1" in
    test) ;;
    dev) start_dev make dev CARGO=true LEDGER="$TEST_LEDGER" ;;
    *) command make "$@" CARGO=true LEDGER="$TEST_LEDGER" ;;
  esac
}

curl() { command curl --fail-with-body --silent --show-error --max-time 60 "$@" && echo; }

fail() {
  echo "FAILED: $*"
  exit 1
}

# Waits until the process has printed the text into the file.
wait_for_text() {
  local process=$1 file=$2 text=$3
  for _ in $(seq 600); do
    ! grep -q -- "$text" "$file" 2>/dev/null || return 0
    kill -0 "$process" 2>/dev/null || break
    sleep 0.1
  done
  cat "$file"
  fail "the process above did not print '$text'"
}

start_and_interrupt() {
  "$TEST_LEDGER" "$@" >roles/foreground 2>&1 &
  wait_for_text $! roles/foreground 'started role='
  kill -INT $!
  wait $! || fail "ledger $* ended with $? after Ctrl-C: $(cat roles/foreground)"
}

start_dev() {
  setsid "$@" >roles/dev 2>&1 &
  dev=$!
  wait_for_text "$dev" roles/dev 'ledger is running'
}

# Sends Ctrl-C to the process group, as a terminal does.
stop_dev() {
  [ -n "$dev" ] || return 0
  kill -INT -- "-$dev"
  wait "$dev" || true
  dev=
}

background_roles() { (cd roles && find . -name '[0-9]*' -printf '%f\n'); }

block() { echo "== $1"; }

# Checks the exit code of the block, and that each role in its background has started and still runs.
end_of_block() {
  local status=$? process
  [ "$status" = 0 ] || fail "exit code $status"
  for process in $(background_roles); do
    wait_for_text "$process" "roles/$process" 'started role='
    kill -0 "$process" 2>/dev/null || fail "a role in the background has ended: $(cat "roles/$process")"
  done
}

end_of_page() {
  local process
  stop_dev
  for process in $(background_roles); do
    kill -TERM "$process"
    wait "$process" || fail "a role ended with $? after SIGTERM: $(cat "roles/$process")"
    rm "roles/$process"
  done
}

# Ends what a failed block has left.
clean_up() {
  local status=$? process
  if [ "$status" != 0 ]; then
    for process in $(jobs -p); do kill -TERM "$process" 2>/dev/null || true; done
    stop_dev
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 143' TERM

# Starts the API on an empty database. For `<!-- first: … -->` in the pages, as are the functions below.
run_serve() {
  ledger migrate
  ledger serve &
  end_of_block
}

# Starts every role, and lets them handle some transactions.
run_roles() {
  ledger migrate
  ledger serve &
  LEDGER_ADMIN__LISTEN=127.0.0.1:9191 ledger relay &
  LEDGER_ADMIN__LISTEN=127.0.0.1:9192 ledger consume-risk &
  end_of_block
  ledger simulate --rate 100 --transactions 50
  ledger aggregate
  ledger verify --wait 5m
}

# Leaves the positions of a consumer group without a consumer.
run_old_group() {
  LEDGER_ADMIN__LISTEN=off LEDGER_CONSUME_RISK__GROUP=old-group "$TEST_LEDGER" consume-risk >roles/old-group 2>&1 &
  for _ in $(seq 600); do
    ! ledger consumers --group old-group --output json | grep -q '"position": *[1-9]' || break
    sleep 0.1
  done
  kill -INT $!
  wait $!
}

# Writes the files that the page about imports names.
write_import_files() {
  local columns=account_id,idempotency_key,direction,amount,currency,created_at
  printf '%s\n' $columns a,1,credit,900.00,EUR,2023-01-01T08:00:00Z a,2,debit,0.50,EUR,2023-01-02T08:00:00Z >history.csv
  gzip history.csv
  printf '%s\n' $columns,branch b,1,credit,7.00,EUR,2024-01-01T08:00:00Z,Berlin >2024.csv
  printf '%s\n' $columns,branch b,2,debit,7.00,EUR,2025-01-01T08:00:00Z,Berlin >2025.csv
  cp config/import/samples/dkb_girokonto.csv Umsaetze.csv
}

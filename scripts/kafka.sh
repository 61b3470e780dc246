#!/usr/bin/env bash
# Runs a real Apache Kafka node (KRaft, no containers) for tests and experiments on one machine.
#
# `up` starts the node and prints the settings for `ledger` on stdout and everything else on stderr, so that
# `eval "$(scripts/kafka.sh up)"` works. Each data directory is one broker; brokers with different directories run in
# parallel. The jars are fetched once and cached.
#
# - `--secure` adds listeners with TLS and SASL, users and an authorizer. The plain listener stays open for the
#   administrator.
# - `--join` makes the node another broker of an existing cluster, to test the loss of replicas.
#
# Deliberately absent: more than one controller. This is not a way to run Kafka in production.

set -euo pipefail

readonly KAFKA_VERSION=4.1.0
readonly JAVA_VERSION_MIN=17
readonly START_TIMEOUT_SECONDS=60
readonly STOP_TIMEOUT_SECONDS=20
readonly START_ATTEMPTS_MAX=3
readonly PORT_TIMEOUT_SECONDS=5

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ledger/kafka-$KAFKA_VERSION
data_dir=${XDG_STATE_HOME:-$HOME/.local/state}/ledger/kafka
port=
advertise=
keep=
secure=
join=
settings=()
scram=()

usage() {
  cat <<USAGE
Usage: scripts/kafka.sh COMMAND [OPTIONS]

Commands:
  up                 start the broker unless it runs, wait until it answers, print its settings
  down               stop the broker and remove its data
  status             print whether the broker runs and answers; exit 1 if not
  env                print the settings of a running broker
  tool CLASS ARGS…   run one of Kafka's own tools, e.g. org.apache.kafka.tools.TopicCommand
  fetch              fetch the jars into the cache, do nothing else

Options:
  --data-dir DIR     directory of the broker's files (default: $data_dir)
  --port PORT        listen on this port of 127.0.0.1 (default: a free one)
  --advertise PORT   also listen on a second free port and advertise PORT there, for a proxy between client and
                     broker. The second port is written to DIR/proxied-port
  --secure           also listen with TLS, with SASL, and with both (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512). User
                     "ledger" has every permission, user "guest" has none. DIR/secure holds the addresses, the
                     certificate of the authority and the passwords; the printed settings use TLS and SCRAM
  --join DIR         join the cluster of the broker with data directory DIR as its second broker; the third one
                     also needs --set node.id=3, at each start
  --set KEY=VALUE    add a line to server.properties; may be repeated
  --keep             with down: keep the data, for the next up

Examples:
  eval "\$(scripts/kafka.sh up | sed 's/^/export /')"
  scripts/kafka.sh up --data-dir /tmp/kafka-a --port 19092
  scripts/kafka.sh tool org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:19092 --list
  scripts/kafka.sh down --data-dir /tmp/kafka-a
USAGE
}

say() { printf 'kafka: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
misused() { say "$*"; usage >&2; exit 2; }

java_command() { printf '%s' "${JAVA_HOME:+$JAVA_HOME/bin/}java"; }

require_java() {
  local java version
  java=$(java_command)
  command -v "$java" >/dev/null ||
    die "no java found; Kafka needs Java $JAVA_VERSION_MIN or newer (Debian: apt-get install openjdk-17-jre-headless)"
  version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  [[ $version =~ ^[0-9]+$ && $version -ge $JAVA_VERSION_MIN ]] ||
    die "$java is version ${version:-unknown}; Kafka needs $JAVA_VERSION_MIN or newer (Debian: apt-get install openjdk-17-jre-headless)"
}

# Fetches the jars into a temporary directory and renames it, so that the cache is complete or absent. One run at a time.
fetch_jars() {
  [[ -d $cache/lib ]] && return
  command -v mvn >/dev/null || die "no mvn found; it fetches Kafka's jars once (Debian: apt-get install maven)"
  mkdir -p "$(dirname "$cache")"
  (
    flock 9
    [[ -d $cache/lib ]] && exit
    say "fetching Apache Kafka $KAFKA_VERSION into $cache (once)"
    building=$(mktemp -d "$cache.building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    mvn -q -B -Dstyle.color=never --strict-checksums -f "$here/kafka/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$building/lib" -Dkafka.version="$KAFKA_VERSION" >&2 ||
      die "Maven could not fetch Kafka's jars"
    chmod 755 "$building"
    mv -T "$building" "$cache"
  ) 9>"$cache.lock"
}

# Most tools end before the optimising compiler pays off. LEDGER_KAFKA_TOOL_JVM sets other options for a long run.
run_class() {
  local class=$1
  shift
  # shellcheck disable=SC2086
  "$(java_command)" ${LEDGER_KAFKA_TOOL_JVM:--XX:TieredStopAtLevel=1} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$cache/lib/*" "$class" "$@"
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Waits for the port. A broker that was killed a moment ago may still hold the port of its data.
port_becomes_free() {
  local deadline=$((SECONDS + PORT_TIMEOUT_SECONDS))
  while port_is_taken "$1"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# Prints a free port below the range of ephemeral ports. If another process takes the port before Kafka does, Kafka
# exits and `up` retries with other ports.
free_port() {
  local candidate
  while :; do
    candidate=$((16384 + (RANDOM << 1 | RANDOM & 1) % 16000))
    port_is_taken "$candidate" || break
  done
  printf '%s' "$candidate"
}

# Succeeds if the broker answers a Metadata request (version 7, no topics) with at least one live broker. An open port
# alone does not mean that the broker is ready. The request is written byte by byte, which is a second faster than a JVM.
answers() {
  local words
  words=$(
    exec 2>/dev/null
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 0
    printf '\x00\x00\x00\x0f\x00\x03\x00\x07\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00\x00' >&3
    timeout 2 od -An -v -tu1 -w16 -N16 <&3
  )
  # size, correlation id, throttle time, number of brokers: four big-endian integers.
  # shellcheck disable=SC2086
  set -- $words
  (($# == 16)) && ((${16} >= 1))
}

# Prints the pid of the broker of this directory, unless the pid now belongs to another process.
running_pid() {
  local pid
  pid=$(cat "$data_dir/pid" 2>/dev/null) || return 1
  [[ -n $pid ]] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fxq "$data_dir/server.properties" || return 1
  printf '%s' "$pid"
}

print_env() {
  printf 'LEDGER_BROKER__KIND=kafka\n'
  if [[ -e $data_dir/secure/listeners ]]; then
    printf 'LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS=%s\n' "$(sed -n 's/^SASL_SSL //p' "$data_dir/secure/listeners")"
    printf 'LEDGER_BROKER__KAFKA__TLS=true\n'
    printf 'LEDGER_BROKER__KAFKA__TLS_CA_FILE=%s\n' "$data_dir/secure/ca.pem"
    printf 'LEDGER_BROKER__KAFKA__SASL_MECHANISM=scram-sha-512\n'
    printf 'LEDGER_BROKER__KAFKA__SASL_USERNAME=ledger\n'
    printf 'LEDGER_BROKER__KAFKA__SASL_PASSWORD_FILE=%s\n' "$data_dir/secure/ledger-password"
    return
  fi
  printf 'LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS=%s\n' "$(cat "$data_dir/bootstrap")"
}

write_properties() {
  local port=$1 controller_port=$2 proxied_port=$3
  local listeners="PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port"
  local advertised="PLAINTEXT://127.0.0.1:$port"
  if [[ -n $proxied_port ]]; then
    listeners+=",PROXIED://127.0.0.1:$proxied_port"
    advertised+=",PROXIED://127.0.0.1:$advertise"
  fi
  cat >"$data_dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
listeners=$listeners
advertised.listeners=$advertised
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs=$data_dir/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
PROPERTIES
  [[ ! -e $data_dir/joined ]] || join_cluster "$(cat "$data_dir/joined")"
  scram=()
  [[ -z $secure && ! -e $data_dir/secure/listeners ]] || secure_properties
  ((${#settings[@]} == 0)) || printf '%s\n' "${settings[@]}" >>"$data_dir/server.properties"
}

# Changes the properties so that the node is a broker and no controller.
join_cluster() {
  local controller_port
  read -r _ controller_port <"$1/ports"
  sed -i "s/^process.roles=.*/process.roles=broker/
    s/^node.id=.*/node.id=2/
    s/^\(controller.quorum.bootstrap.servers\)=.*/\1=127.0.0.1:$controller_port/
    s/^\(listeners=.*\),CONTROLLER:[^,]*/\1/" "$data_dir/server.properties"
}

# Creates an authority and a certificate of the broker. The certificate is valid only for `localhost`, so that tests can
# check that a client refuses any other name.
make_certificates() {
  local dir=$data_dir/secure key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  [[ ! -e $dir/broker.pem ]] || return 0
  cat >"$dir/openssl.cnf" <<'OPENSSL'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[broker]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:localhost
extendedKeyUsage = serverAuth
OPENSSL
  {
    openssl req -x509 "${key[@]}" -days 365 -subj "/CN=authority for tests" -config "$dir/openssl.cnf" \
      -extensions authority -keyout "$dir/ca-key.pem" -out "$dir/ca.pem" &&
      openssl req -new "${key[@]}" -subj /CN=localhost -config "$dir/openssl.cnf" \
        -keyout "$dir/broker-key.pem" -out "$dir/broker.csr" &&
      openssl x509 -req -in "$dir/broker.csr" -days 365 -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -CAcreateserial \
        -extfile "$dir/openssl.cnf" -extensions broker -out "$dir/broker-certificate.pem"
  } >"$dir/openssl.log" 2>&1 || {
    tail -n 20 "$dir/openssl.log" >&2
    die "openssl could not create the certificates"
  }
  cat "$dir/broker-key.pem" "$dir/broker-certificate.pem" >"$dir/broker.pem"
}

# Adds listeners, users and permissions to the properties. The plain listener is for the administrator.
secure_properties() {
  local dir=$data_dir/secure ledger guest name ports
  command -v openssl >/dev/null || die "no openssl found; it creates the certificates (Debian: apt-get install openssl)"
  mkdir -p "$dir"
  chmod 700 "$dir"
  make_certificates
  for name in ledger guest; do
    [[ -e $dir/$name-password ]] || head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/$name-password"
  done
  ledger=$(cat "$dir/ledger-password") guest=$(cat "$dir/guest-password")
  # Kept data keeps its ports, because clients know them.
  if [[ -e $data_dir/log/meta.properties && -e $dir/listeners ]]; then
    mapfile -t ports < <(sed 's/.*://' "$dir/listeners")
  else
    ports=("$(free_port)" "$(free_port)" "$(free_port)")
  fi
  printf '%s localhost:%s\n' SSL "${ports[0]}" SASL_SSL "${ports[1]}" SASL_PLAINTEXT "${ports[2]}" >"$dir/listeners"
  sed -i "s/^\(listeners=.*\)$/\1,SSL:\/\/127.0.0.1:${ports[0]},SASL_SSL:\/\/127.0.0.1:${ports[1]},SASL_PLAINTEXT:\/\/127.0.0.1:${ports[2]}/
    s/^\(advertised.listeners=.*\)$/\1,SSL:\/\/localhost:${ports[0]},SASL_SSL:\/\/localhost:${ports[1]},SASL_PLAINTEXT:\/\/localhost:${ports[2]}/
    s/^\(listener.security.protocol.map=.*\)$/\1,SSL:SSL,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT/" \
    "$data_dir/server.properties"
  cat >>"$data_dir/server.properties" <<PROPERTIES
ssl.keystore.type=PEM
ssl.keystore.location=$dir/broker.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:ledger
PROPERTIES
  for name in sasl_ssl sasl_plaintext; do
    cat >>"$data_dir/server.properties" <<PROPERTIES
listener.name.$name.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.$name.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ledger="$ledger" user_guest="$guest";
listener.name.$name.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.$name.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
PROPERTIES
  done
  for name in SCRAM-SHA-256 SCRAM-SHA-512; do
    scram+=(--add-scram "$name=[name=ledger,password=$ledger]" --add-scram "$name=[name=guest,password=$guest]")
  done
}

format_storage() {
  local id alone=(--standalone)
  [[ -e $data_dir/log/meta.properties ]] && return
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  if [[ -e $data_dir/joined ]]; then
    id=$(sed -n 's/^cluster.id=//p' "$(cat "$data_dir/joined")/log/meta.properties")
    alone=()
  fi
  run_class kafka.tools.StorageTool format "${alone[@]}" -t "${id/#-/A}" -c "$data_dir/server.properties" "${scram[@]}" \
    >"$data_dir/format.log" 2>&1 || {
    tail -n 20 "$data_dir/format.log" >&2
    die "could not format $data_dir/log"
  }
}

# Starts the broker. Fails if the broker ends or does not answer in time; it is stopped in the latter case.
start_once() {
  local port=$1 pid deadline
  setsid "$(java_command)" "-Xmx${LEDGER_KAFKA_HEAP:-512m}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$cache/lib/*" kafka.Kafka "$data_dir/server.properties" \
    </dev/null >"$data_dir/kafka.log" 2>&1 8>&- &
  pid=$!
  printf '%s\n' "$pid" >"$data_dir/pid"
  deadline=$((SECONDS + START_TIMEOUT_SECONDS))
  while ((SECONDS < deadline)); do
    kill -0 "$pid" 2>/dev/null || return 1
    answers "$port" && return 0
    sleep 0.1
  done
  say "no answer within $START_TIMEOUT_SECONDS s"
  stop
  return 1
}

up() {
  local attempt chosen controller_port proxied_port
  require_java
  fetch_jars
  mkdir -p "$data_dir"
  data_dir=$(cd "$data_dir" && pwd -P)
  exec 8>"$data_dir/lock"
  flock 8
  [[ -z $join ]] || (cd "$join" && pwd -P) >"$data_dir/joined"
  if running_pid >/dev/null; then
    say "already running on $(cat "$data_dir/bootstrap"); the options of this call are ignored"
    print_env
    return
  fi
  # Kept data contains the address of its controller, so it must use the same ports.
  for ((attempt = 1; attempt <= START_ATTEMPTS_MAX; attempt++)); do
    if [[ -e $data_dir/log/meta.properties ]]; then
      read -r chosen controller_port <"$data_dir/ports"
      [[ -z $port || $port == "$chosen" ]] || die "the data in $data_dir was created for port $chosen; down without --keep removes it"
    else
      chosen=${port:-$(free_port)}
      controller_port=$(free_port)
    fi
    port_becomes_free "$chosen" || die "port $chosen of 127.0.0.1 is in use by another process"
    proxied_port=${advertise:+$(free_port)}
    write_properties "$chosen" "$controller_port" "$proxied_port"
    format_storage
    printf '%s %s\n' "$chosen" "$controller_port" >"$data_dir/ports"
    printf '127.0.0.1:%s\n' "$chosen" >"$data_dir/bootstrap"
    [[ -z $proxied_port ]] || printf '%s\n' "$proxied_port" >"$data_dir/proxied-port"
    if start_once "$chosen"; then
      say "Apache Kafka $KAFKA_VERSION answers on 127.0.0.1:$chosen (pid $(cat "$data_dir/pid"), data in $data_dir)"
      print_env
      return
    fi
    rm -f "$data_dir/pid"
    [[ -z $port && ! -e $data_dir/kept ]] || break
    grep -q 'Address already in use' "$data_dir/kafka.log" || break
    say "a port is in use; retrying with others"
    rm -rf "$data_dir/log"
  done
  tail -n 30 "$data_dir/kafka.log" >&2
  die "Kafka did not start; its log is $data_dir/kafka.log"
}

stop() {
  local pid deadline
  pid=$(running_pid) || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  deadline=$((SECONDS + STOP_TIMEOUT_SECONDS))
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      say "did not stop within $STOP_TIMEOUT_SECONDS s; killing it"
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.1
  done
}

down() {
  [[ -d $data_dir ]] || { say "no directory $data_dir"; return; }
  data_dir=$(cd "$data_dir" && pwd -P)
  exec 8>"$data_dir/lock"
  flock 8
  stop
  rm -f "$data_dir/pid"
  if [[ -n $keep ]]; then
    touch "$data_dir/kept"
    say "stopped; its data stays in $data_dir"
    return
  fi
  # Removes only files that `up` created, so that a mistyped --data-dir does no harm.
  rm -rf "$data_dir/log"
  rm -f "$data_dir"/secure/{openssl.cnf,openssl.log,ca.pem,ca.srl,ca-key.pem,broker-key.pem,broker.csr,broker-certificate.pem,broker.pem,ledger-password,guest-password,listeners}
  rmdir "$data_dir/secure" 2>/dev/null || true
  rm -f "$data_dir"/{server.properties,kafka.log,format.log,ports,bootstrap,proxied-port,joined,kept,lock}
  rmdir "$data_dir" 2>/dev/null || true
  say "stopped and removed"
}

status() {
  local pid
  data_dir=$(cd "$data_dir" 2>/dev/null && pwd -P) || die "not running: no $data_dir"
  pid=$(running_pid) || die "not running in $data_dir"
  answers "$(sed 's/.*://' "$data_dir/bootstrap")" || die "pid $pid runs but does not answer on $(cat "$data_dir/bootstrap")"
  printf 'running pid=%s bootstrap=%s data=%s\n' "$pid" "$(cat "$data_dir/bootstrap")" "$data_dir"
}

environment() {
  data_dir=$(cd "$data_dir" 2>/dev/null && pwd -P) || die "not running: no $data_dir"
  running_pid >/dev/null || die "not running in $data_dir; start it with: scripts/kafka.sh up"
  print_env
}

options() {
  while (($#)); do
    case $1 in
      --data-dir | --port | --advertise | --join | --set) (($# >= 2)) || misused "$1 needs a value" ;;
    esac
    case $1 in
      --data-dir) data_dir=$2; shift ;;
      --port) port=$2; shift ;;
      --advertise) advertise=$2; shift ;;
      --join) join=$2; shift ;;
      --set) [[ $2 == *=* ]] || misused "--set needs KEY=VALUE, not $2"; settings+=("$2"); shift ;;
      --keep) keep=yes ;;
      --secure) secure=yes ;;
      -h | --help) usage; exit ;;
      *) misused "unknown option $1" ;;
    esac
    shift
  done
  local value
  for value in "$port" "$advertise"; do
    [[ -z $value || $value =~ ^[1-9][0-9]{0,4}$ ]] || misused "$value is not a port"
  done
}

command=${1:-}
(($# == 0)) || shift
case $command in
  up) options "$@"; up ;;
  down) options "$@"; down ;;
  status) options "$@"; status ;;
  env) options "$@"; environment ;;
  fetch) options "$@"; require_java; fetch_jars ;;
  tool)
    (($#)) || misused "tool needs a class"
    require_java
    fetch_jars
    run_class "$@"
    ;;
  -h | --help | help) usage ;;
  '') misused "no command" ;;
  *) misused "unknown command $command" ;;
esac

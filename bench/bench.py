#!/usr/bin/env python3
"""Measures `ledger serve` beside its yardsticks, in turn, on one private PostgreSQL, and prints one table.

    make bench                    the usual: 3 rounds of 10 s each
    bench/bench.py --rounds 1 --seconds 3 --only P1,P2

Needs wrk, pgbench and PostgreSQL's programs (Debian: wrk, postgresql), python3 with venv for the FastAPI yardstick,
and target/release/ledger. Results go to bench/results/DATE.json. After every run `ledger verify` must be clean, and the
number of acknowledged transactions must be found in the ledger.
"""
import argparse
import contextlib
import datetime
import glob
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEDGER = ROOT / "target/release/ledger"
BENCH = ROOT / "bench"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ledger/tools"
FASTAPI = "fastapi==0.115.6 uvicorn[standard]==0.34.0 sqlalchemy[asyncio]==2.0.36 asyncpg==0.30.0".split()
TIME_MAX = 900  # seconds; nothing here takes that long, so whatever does is stuck
SETTINGS = {"shared_buffers": "512MB", "min_wal_size": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min",
            "max_connections": "200", "listen_addresses": "127.0.0.1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(name):
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if not found:
        sys.exit(f"bench: {name} is missing (Debian: apt-get install wrk postgresql)")
    return found


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=TIME_MAX, **options)
    if done.returncode:
        sys.exit(f"bench: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Postgres:
    """A private cluster with fsync on, owned by an unprivileged user."""

    def __init__(self, directory):
        self.data, self.port = directory / "data", free_port()
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        demote = {"user": self.user} if os.geteuid() == 0 else {}
        if demote:
            shutil.chown(directory, self.user)
        run(program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions", **demote)
        options = [f"-c{k}={v}" for k, v in SETTINGS.items()] + [f"-cunix_socket_directories={directory}"]
        self.process = subprocess.Popen([program("postgres"), "-D", str(self.data), f"-p{self.port}", *options],
                                        stderr=open(directory / "postgres.log", "w"), **demote)
        wait_for(lambda: self.sql("SELECT 1", check=False), "PostgreSQL")

    def url(self, database, scheme="postgres"):
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres", check=True):
        done = subprocess.run([program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qAt", "-v",
                               "ON_ERROR_STOP=1", database], input=text, capture_output=True, text=True)
        if check and done.returncode:
            sys.exit(f"bench: {text[:200]}: {done.stderr}")
        return done.stdout.strip() if done.returncode == 0 else None

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def wait_for(ready, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"bench: {what} did not start")
        time.sleep(0.02)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=1).read()
        return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def process(command, environment, url, log, cwd=None):
    started = time.monotonic()
    child = subprocess.Popen([str(c) for c in command], env={**os.environ, **environment}, cwd=cwd,
                             stdout=open(log, "w"), stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(lambda: answers(url), command[0])
        child.ready_ms = (time.monotonic() - started) * 1000
        yield child
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(20)


def memory_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def wrk(url, script, connections, seconds, accounts=10000):
    out = run(program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", BENCH / "load" / script, url,
              env={**os.environ, "ACCOUNTS": str(accounts)})
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if wrong:
        sys.exit(f"bench: {wrong[1]} wrong answers from {url}")
    number = {"us": 0.001, "ms": 1, "s": 1000}
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "p99_ms": float(p99[1]) * number[p99[2]],
            "requests": int(re.search(r"(\d+) requests in", out)[1])}


def open_accounts(url):
    """All 10,000 accounts, so that no balance is missing later."""
    for start in range(1, 10001, 1000):
        items = [{"idempotency_key": "open", "account_id": f"acct-{n}", "direction": "credit", "amount": "1.00", "currency": "USD"}
                 for n in range(start, start + 1000)]
        request = urllib.request.Request(url + "/transactions/batch", json.dumps({"transactions": items}).encode(),
                                         {"Content-Type": "application/json"})
        results = json.load(urllib.request.urlopen(request, timeout=30))["results"]
        if any(result["status"] != 201 for result in results):
            sys.exit("bench: the accounts could not be opened")


class Ledger:
    def __init__(self, postgres, work, database="ledger"):
        self.postgres, self.work, self.database = postgres, work, database
        postgres.sql(f"DROP DATABASE IF EXISTS {database}")
        postgres.sql(f"CREATE DATABASE {database}")
        self.environment = {"LEDGER_DATABASE__URL": postgres.url(database), "LEDGER_ADMIN__LISTEN": "off",
                            "LEDGER_SERVE__LISTEN": f"127.0.0.1:{free_port()}"}
        self.url = "http://" + self.environment["LEDGER_SERVE__LISTEN"]
        run(LEDGER, "migrate", env={**os.environ, **self.environment})

    def serve(self):
        return process([LEDGER, "serve"], self.environment, self.url + "/accounts/x", self.work / "serve.log")

    def rows(self):
        return int(self.postgres.sql("SELECT count(*) FROM transactions", self.database))

    def check(self, acknowledged):
        """`acknowledged` answers were seen; requests in flight when the load ended may add a few rows."""
        rows = self.rows()
        if rows < acknowledged:
            sys.exit(f"bench: {acknowledged} were acknowledged but only {rows} are in the ledger")
        self.postgres.sql("VACUUM ANALYZE", self.database)
        run(LEDGER, "verify", env={**os.environ, **self.environment})


def fastapi(postgres, work):
    venv = CACHE / "bench-fastapi-1"
    if not (venv / "bin/uvicorn").exists():
        print("bench: installing the FastAPI yardstick (once)", file=sys.stderr)
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin/pip", "install", "-q", *FASTAPI)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [venv / "bin/uvicorn", "fastapi_service:app", "--workers", "2", "--loop", "uvloop", "--http", "httptools",
               "--no-access-log", "--port", port]
    environment = {"DATABASE_URL": postgres.url("yardstick", "postgresql+asyncpg")}
    return url, process(command, environment, url + "/accounts/x/balance", work / "fastapi.log", cwd=BENCH / "yardstick")


def pgbench(postgres, script, clients, seconds, options=()):
    out = run(program("pgbench"), "-h", "127.0.0.1", "-p", postgres.port, "-U", "postgres", "-n", "-M", "prepared", *options,
              *(("-f", BENCH / "yardstick" / script) if script else ()), "-c", clients, "-j", "1", "-T", seconds, "yardstick")
    return float(re.search(r"tps = ([\d.]+)", out)[1])


BARE_INSERT = """
DO $$ DECLARE n int; began timestamptz := clock_timestamp(); rounds int := 0; BEGIN
  WHILE clock_timestamp() < began + interval '%d s' LOOP
    INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
    SELECT 'bare-' || (random() * 10000)::int, nextval('outbox_id'), gen_random_uuid(), 1050, 1050, now(), md5(random()::text)
    FROM generate_series(1, 1000);
    INSERT INTO outbox (lane, topic, key, value, event_id, event_type)
    SELECT i %% 32, 'transactions.v1', 'bare', convert_to(repeat('x', 260), 'UTF8'), gen_random_uuid(), 'TransactionCreated.v1'
    FROM generate_series(1, 1000) i;
    COMMIT;
    rounds := rounds + 1;
  END LOOP;
  RAISE NOTICE 'rounds %%', rounds;
END $$;
"""


def bare_insert(ledger, seconds):
    done = subprocess.run([program("psql"), "-h", "127.0.0.1", "-p", str(ledger.postgres.port), "-U", "postgres", "-q", ledger.database],
                          input=BARE_INSERT % seconds, capture_output=True, text=True)
    return int(re.search(r"rounds (\d+)", done.stderr)[1]) * 1000 / seconds


def fdatasync_ms(work):
    out = run(program("pg_test_fsync"), "-s", "1", "-f", work / "fsync")
    return float(re.search(r"fdatasync\s+[\d.]+ ops/sec\s+([\d.]+) usecs/op", out)[1]) / 1000


def simulate(url, rate, seconds):
    out = run(LEDGER, "simulate", "--url", url, "--rate", int(rate), "--duration", f"{seconds}s", "--output", "json",
              "--connections", "128", "--duplicate-share", "0", "--hot-share", "0", env={**os.environ, "LEDGER_ADMIN__LISTEN": "off"})
    return json.loads(out)


def measure(postgres, work, seconds, wanted, results):
    def keep(name, value):
        results.setdefault(name, []).append(value)

    ledger = Ledger(postgres, work)
    postgres.sql("DROP DATABASE IF EXISTS yardstick")
    postgres.sql("CREATE DATABASE yardstick")
    acknowledged = 0
    fastapi_url, fastapi_process = fastapi(postgres, work)
    with ledger.serve() as serve:
        keep("P11 ready, ms", serve.ready_ms)
        keep("P11 idle, MiB", memory_mib(serve.pid))
        open_accounts(ledger.url)
        if "P1" in wanted:
            for connections in (128, 512):
                seen = wrk(ledger.url, "post.lua", connections, seconds)
                acknowledged += seen["requests"]
                keep(f"P1 spread, {connections} connections, tx/s", seen["rate"])
                keep(f"P1 spread, {connections} connections, p99 ms", seen["p99_ms"])
            keep("P11 under P1, MiB", memory_mib(serve.pid))
        if "P2" in wanted:
            seen = wrk(ledger.url, "post.lua", 512, seconds, accounts=1)
            acknowledged += seen["requests"]
            keep("P2 hot, 512 connections, tx/s", seen["rate"])
        if "P3" in wanted:
            seen = wrk(ledger.url, "batch.lua", 4, seconds)
            acknowledged += seen["requests"] * 1000
            keep("P3 batches of 1,000, tx/s", seen["rate"] * 1000)
        if "P5" in wanted:
            keep("P5 balance, 128 connections, 1/s", wrk(ledger.url, "balance.lua", 128, seconds)["rate"])
        if "P4" in wanted:
            half = statistics.median(results["P1 spread, 128 connections, tx/s"]) / 2
            keep("P4 p99 at half of P1, ms", simulate(ledger.url, min(half, 10000), seconds)["latency_ms"]["p99"])
    ledger.check(acknowledged)
    if "P3" in wanted:
        keep("bare INSERT … SELECT, rows/s", bare_insert(ledger, seconds))
    with fastapi_process:
        for script, accounts in (("spread.sql", 10000), ("hot.sql", 1)):
            for clients in (8, 32) if accounts > 1 else (32,):
                keep(f"pgbench {script[:-4]}, {clients} clients, tx/s", pgbench(postgres, script, clients, seconds))
            keep(f"FastAPI {script[:-4]}, tx/s", wrk(fastapi_url, "post.lua", 64, seconds, accounts)["rate"])
        if "P5" in wanted:
            postgres.sql("INSERT INTO balances SELECT 'acct-' || i, 'USD', 0 FROM generate_series(1, 10000) i ON CONFLICT DO NOTHING", "yardstick")
            keep("FastAPI balance, 1/s", wrk(fastapi_url, "balance.lua", 128, seconds)["rate"])
    if "P5" in wanted:
        run(program("pgbench"), "-h", "127.0.0.1", "-p", postgres.port, "-U", "postgres", "-i", "-q", "yardstick")
        keep("pgbench -S, 32 clients, 1/s", pgbench(postgres, None, 32, seconds, ("-S",)))


def table(results):
    width = max(map(len, results))
    for name, values in results.items():
        print(f"{name:<{width}}  {statistics.median(values):>10,.1f}   ({min(values):,.1f} … {max(values):,.1f})")


def ratios(results):
    median = {name: statistics.median(values) for name, values in results.items()}
    best = lambda start: max((v for k, v in median.items() if k.startswith(start) and "p99" not in k), default=None)
    pairs = [("P1 / pgbench spread", best("P1 spread"), best("pgbench spread"), 4),
             ("P1 / FastAPI", best("P1 spread"), median.get("FastAPI spread, tx/s"), 25),
             ("P2 / pgbench hot", best("P2 hot"), best("pgbench hot"), 25),
             ("P2 / P1", best("P2 hot"), best("P1 spread"), 1),
             ("P3 / bare INSERT", best("P3"), best("bare"), 0.5),
             ("P5 / FastAPI", best("P5"), median.get("FastAPI balance, 1/s"), 10),
             ("P5 / pgbench -S", best("P5"), best("pgbench -S"), 0.5)]
    for name, ours, theirs, goal in pairs:
        if ours and theirs:
            print(f"{name:<24} {ours / theirs:6.2f}   (goal {goal})")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--only", default="P1,P2", help="of P1 spread, P2 hot, P3 batches, P4 latency (needs P1), P5 balances")
    options = options.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="ledger-bench-"))
    work.chmod(0o755)
    cluster = work / "cluster"
    cluster.mkdir()
    results = {}
    postgres = Postgres(cluster)
    try:
        results["fdatasync, ms"] = [fdatasync_ms(work)]
        for number in range(options.rounds):
            print(f"bench: round {number + 1} of {options.rounds}", file=sys.stderr)
            measure(postgres, work, options.seconds, options.only.split(","), results)
    finally:
        postgres.stop()
        shutil.rmtree(work, ignore_errors=True)
    results["P11 release binary, MiB"] = [LEDGER.stat().st_size / 2**20]
    table(results)
    print()
    ratios(results)
    (BENCH / "results").mkdir(exist_ok=True)
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    record = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "cpu": cpu[1] if cpu else "", "settings": SETTINGS,
              "rounds": options.rounds, "seconds": options.seconds, "results": results}
    path = BENCH / "results" / f"{record['date']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\nwritten to {path.relative_to(ROOT)}")


main()

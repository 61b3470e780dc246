#!/usr/bin/env python3
"""Measures `ledger serve` and its yardsticks in turn on one private PostgreSQL and prints one table.

    make bench                                      all but P10: 3 rounds
    bench/bench.py --rounds 1 --seconds 3           quicker
    bench/bench.py --only P1,P4                     some parts
    bench/bench.py --only P10 --rounds 1            growth: loads 10,000,000 rows first

P1   POST /transactions over 10,000 accounts, 128 and 512 connections; pgbench and FastAPI do the same
P2   the same on one account; pgbench does the same
P3   batches of 1,000; a bare INSERT … SELECT into the same tables
P4   latency at half of P1's rate, counted from the moment a request was due; bare commits of as many rows, counted from
     the moment they were sent; FastAPI at half of its own rate
P5   balances, 128 connections; FastAPI, and pgbench -S
P10  P1 and pages of history, on an empty ledger and on one of --rows rows
P11  memory, time to ready, size of the binary

Needs wrk, PostgreSQL's programs, Python with venv and rustc (scripts/setup.sh bench) and target/release/ledger. Results
go to bench/results/DATE.json. After every part `ledger verify` must find no difference, and the ledger must contain the
acknowledged transactions. For P4 every id is looked up. For the other parts the new rows are counted: as many as were
acknowledged, plus at most the requests in flight when wrk stopped.
"""
import json
import os
import re
import sys
import urllib.request

from harness import (BENCH, CACHE, LEDGER, Failed, Goal, Ledger, Postgres, Process, answers, arguments, environment, free_port, main,
                     program, progress, run, step)

ACCOUNTS = 10000
FASTAPI = "fastapi==0.115.6 uvicorn[standard]==0.34.0 sqlalchemy[asyncio]==2.0.36 asyncpg==0.30.0".split()

P1 = {c: f"P1 POST /transactions, {ACCOUNTS:,} accounts, {c} connections (tx/s)" for c in (128, 512)}
PGBENCH = {c: f"P1 pgbench spread, {c} clients (tx/s)" for c in (8, 32)}
FASTAPI_SPREAD = "P1 FastAPI spread, 64 connections (tx/s)"
P2, PGBENCH_HOT = "P2 POST /transactions, one account, 512 connections (tx/s)", "P2 pgbench hot, 32 clients (tx/s)"
P3, BARE = "P3 POST /transactions/batch, 1,000 a call (tx/s)", "P3 bare INSERT … SELECT, 1,000 rows a commit (rows/s)"
P4, P4_FASTAPI = "P4 p99 at half of P1's rate (ms)", "P4 FastAPI, p99 at half of its rate (ms)"
P4_RATE = "P4 rate that was kept (tx/s)"
FDATASYNC = "P4 fdatasync (ms)"
# The size of a typical group of two writers at half of P1's rate.
GROUP_ROWS = 16
P4_BARE = f"P4 bare INSERT, {GROUP_ROWS} rows a commit at that rate, p99 (ms)"
# About FastAPI's own rate.
SLOW_RATE = 1000
P4_SLOW = f"P4 p99 at {SLOW_RATE:,} a second (ms)"
P5, P5_FASTAPI, P5_PGBENCH = "P5 GET balance, 128 connections (1/s)", "P5 FastAPI balance, 128 connections (1/s)", "P5 pgbench -S, 32 clients (1/s)"
READY, IDLE, LOADED, BINARY = "P11 serve, start to ready (ms)", "P11 serve, idle (MiB)", "P11 serve, peak under P1 (MiB)", "P11 release binary (MiB)"
PAGES = {"account": "newest page of an account", "account-range": "page of an account by time", "ledger": "newest page of the ledger",
         "ledger-range": "page of the ledger by time"}
SIZES = ("empty", "grown")


def p10(size):
    return f"P10 POST /transactions, {size} (tx/s)"


def p10_page(size, kind):
    return f"P10 {PAGES[kind]}, {size}, p99 (ms)"


GOALS = [
    Goal("P1", "POST ÷ pgbench spread", lambda s: s.ratio(list(P1.values()), list(PGBENCH.values())), 4, "×"),
    Goal("P1", "POST ÷ FastAPI", lambda s: s.ratio(list(P1.values()), FASTAPI_SPREAD), 25, "×"),
    Goal("P2", "one account ÷ pgbench hot", lambda s: s.ratio(P2, PGBENCH_HOT), 25, "×"),
    Goal("P2", "one account ÷ 10,000 accounts", lambda s: s.ratio(P2, list(P1.values())), 1, "×"),
    Goal("P3", "batches ÷ bare INSERT … SELECT", lambda s: s.ratio(P3, BARE), 0.5, "×"),
    Goal("P4", "p99 at half rate ÷ bare commits", lambda s: s.ratio(P4, P4_BARE), 2, "×", at_most=True),
    Goal("P5", "balance ÷ FastAPI", lambda s: s.ratio(P5, P5_FASTAPI), 10, "×"),
    Goal("P5", "balance ÷ pgbench -S", lambda s: s.ratio(P5, P5_PGBENCH), 0.5, "×"),
    Goal("P10", "POST, grown ÷ empty", lambda s: s.ratio(p10("grown"), p10("empty")), 0.8, "×"),
    *(Goal("P10", f"{PAGES[kind]}, p99, grown ÷ empty", lambda s, k=kind: s.ratio(p10_page("grown", k), p10_page("empty", k)), 1.5, "×",
           at_most=True) for kind in PAGES),
    Goal("P11", "serve, idle", lambda s: s.median(IDLE), 40, "MiB", at_most=True),
    Goal("P11", "serve, under P1", lambda s: max(s.values[LOADED]) if LOADED in s.values else None, 200, "MiB", at_most=True),
    Goal("P11", "start to ready", lambda s: s.median(READY), 300, "ms", at_most=True),
    Goal("P11", "release binary", lambda s: s.median(BINARY), 40, "MiB", at_most=True),
]


def wrk(url, script, connections, seconds, **variables):
    out = run(program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", BENCH / "load" / script, url,
              env=environment(**variables))
    if wrong := re.search(r"Non-2xx or 3xx responses: (\d+)", out):
        raise Failed(f"{wrong[1]} wrong answers from {url}")
    if errors := re.search(r"Socket errors: .*", out):
        raise Failed(f"{errors[0]} from {url}")
    requests = int(re.search(r"(\d+) requests in", out)[1])
    if not requests:
        raise Failed(f"not one answer from {url} in {seconds} s; give it more with --seconds")
    milliseconds = {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", out)
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "p99_ms": float(p99[1]) * milliseconds[p99[2]],
            "requests": requests}


def post(url, script, connections, seconds, accounts=ACCOUNTS):
    return wrk(url, script, connections, seconds, ACCOUNTS=str(accounts))


def paced(url, rate, seconds, ids_file):
    """Sends requests at a fixed rate over 128 connections; see load/paced.rs."""
    client = CACHE / "bench-paced"
    source = BENCH / "load/paced.rs"
    if not client.exists() or client.stat().st_mtime < source.stat().st_mtime:
        client.parent.mkdir(parents=True, exist_ok=True)
        run(program("rustc"), "--edition", "2024", "-O", "-o", client, source)
    return json.loads(run(client, url.removeprefix("http://"), max(1, int(rate)), seconds, 128, ACCOUNTS, ids_file))


def pgbench(postgres, script, clients, seconds, *options):
    out = run(program("pgbench"), "-h", "127.0.0.1", "-p", postgres.port, "-U", "postgres", "-n", "-M", "prepared", *options,
              *(("-f", BENCH / "yardstick" / script) if script else ()), "-c", clients, "-j", "1", "-T", seconds, "yardstick")
    found = re.search(r"tps = ([\d.]+)", out)
    if not found:
        raise Failed(f"pgbench measured nothing in {seconds} s; give it more with --seconds")
    return float(found[1])


def bare_insert(ledger, seconds):
    """Returns the rows per second of one connection that inserts 1,000 rows per commit without any check."""
    text = (BENCH / "yardstick/bare_insert.sql").read_text().replace(":seconds", str(seconds))
    ledger.sql(text)
    return ledger.count("transactions") / seconds


def bare_commits_p99_ms(ledger, work, rows_per_second, seconds):
    """Returns the p99 of commits by two connections, counted from the moment each was sent, without queueing."""
    rate = rows_per_second / GROUP_ROWS
    run(program("pgbench"), "-h", "127.0.0.1", "-p", ledger.postgres.port, "-U", "postgres", "-n", "-M", "prepared", "-c", 2, "-j", 1,
        "-f", BENCH / "yardstick/bare_group.sql", "-D", f"rows={GROUP_ROWS}", "-R", rate, "-T", seconds, "--log", ledger.database, cwd=work)
    took = []
    for log in work.glob("pgbench_log.*"):
        for line in log.read_text().splitlines():
            fields = line.split()
            took.append(int(fields[2]) - int(fields[6]))
        log.unlink()
    if len(took) < 0.8 * rate * seconds:
        raise Failed(f"pgbench made {len(took)} commits of the {rate * seconds:,.0f} that were asked for")
    return sorted(took)[int(len(took) * 0.99)] / 1000


def fdatasync_ms(work):
    out = run(program("pg_test_fsync"), "-s", "1", "-f", work / "fsync")
    return float(re.search(r"fdatasync\s+[\d.]+ ops/sec\s+([\d.]+) usecs/op", out)[1]) / 1000


def fastapi(postgres, work):
    venv = CACHE / "bench-fastapi-1"
    if not (venv / "bin/uvicorn").exists():
        progress("installing the FastAPI yardstick (once)")
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin/pip", "install", "-q", *FASTAPI)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [venv / "bin/uvicorn", "fastapi_service:app", "--workers", "2", "--loop", "uvloop", "--http", "httptools",
               "--no-access-log", "--port", port]
    env = environment(DATABASE_URL=postgres.url("yardstick", "postgresql+asyncpg"))
    process = Process(command, env, work / "fastapi.log", lambda: answers(url + "/accounts/x/balance"), cwd=BENCH / "yardstick")
    process.url = url
    return process


def open_accounts(url):
    """Opens all accounts, so that every balance exists later."""
    for start in range(1, ACCOUNTS + 1, 1000):
        items = [{"idempotency_key": "open", "account_id": f"acct-{n}", "direction": "credit", "amount": "1.00", "currency": "USD"}
                 for n in range(start, start + 1000)]
        request = urllib.request.Request(url + "/transactions/batch", json.dumps({"transactions": items}).encode(),
                                         {"Content-Type": "application/json"})
        results = json.load(urllib.request.urlopen(request, timeout=30))["results"]
        if any(result["status"] not in (200, 201) for result in results):
            raise Failed("the accounts could not be opened")


class Round:
    """One round: a new database, `serve` on it, and the yardsticks."""

    def __init__(self, postgres, work, sheet, given):
        self.postgres, self.work, self.sheet, self.given = postgres, work, sheet, given
        self.ledger = Ledger(postgres, work)
        self.seconds = given.seconds

    def wants(self, part):
        return part in self.given.wanted

    def step(self, name, times=1):
        """Begins a step whose load takes `times` times --seconds."""
        return step(name, 60 + 2 * times * self.seconds)

    def checked(self, part, load, in_flight, each=1):
        """Runs a load in which each response stands for `each` rows, and compares the ledger with the acknowledged count."""
        before = self.ledger.count("transactions")
        seen = load()
        acknowledged = seen["requests"] * each
        # Requests in flight when the client stopped may still be committed.
        self.wait_until_still()
        rows = self.ledger.count("transactions") - before
        if not acknowledged <= rows <= acknowledged + in_flight * each:
            raise Failed(f"{acknowledged} were acknowledged and up to {in_flight * each} in flight, but {rows} are in the ledger")
        return seen

    def wait_until_still(self):
        rows = -1
        while rows != (rows := self.ledger.count("transactions")):
            pass

    def settle(self, part):
        """Waits until the disk has written the pages of earlier parts, so that they do not affect this latency."""
        with step(f"{part}: waiting for the disk", 120):
            self.postgres.sql("CHECKPOINT")
            os.sync()

    def verify(self, part):
        with step(f"{part}: ledger verify", 180):
            self.ledger.verify()

    def spread(self, serve):
        for connections, name in P1.items():
            with self.step(f"P1: {connections} connections"):
                seen = self.checked("P1", lambda c=connections: post(serve.url, "post.lua", c, self.seconds), connections)
                self.sheet.add(name, seen["rate"])
                self.sheet.add(name.replace("(tx/s)", "p99 (ms)"), seen["p99_ms"])
        if self.wants("P11"):
            self.sheet.add(LOADED, serve.memory_mib("VmHWM"))
        self.verify("P1")

    def hot(self, serve):
        with self.step("P2: one account, 512 connections"):
            seen = self.checked("P2", lambda: post(serve.url, "post.lua", 512, self.seconds, accounts=1), 512)
            self.sheet.add(P2, seen["rate"])
        self.verify("P2")

    def batches(self, serve):
        with self.step("P3: batches of 1,000, 4 connections"):
            seen = self.checked("P3", lambda: post(serve.url, "batch.lua", 4, self.seconds), 4, each=1000)
            self.sheet.add(P3, seen["rate"] * 1000)
        self.verify("P3")

    def paced(self, serve, rate):
        """Every acknowledged id must be in the ledger."""
        ids = self.work / "acknowledged"
        seen = paced(serve.url, rate, self.seconds, ids)
        missing = self.ledger.sql("CREATE TEMP TABLE acknowledged (id uuid);\n\\copy acknowledged FROM '" + str(ids) + "'\n"
                                  "SELECT count(*) FROM acknowledged LEFT JOIN transactions USING (id) WHERE account_id IS NULL")
        if missing != "0":
            raise Failed(f"{missing} acknowledged transactions are not in the ledger")
        return seen

    def half_rate(self, serve):
        rate = self.sheet.best(*P1.values())
        if rate is None:
            with self.step("P4: what is half of P1's rate?"):
                rate = post(serve.url, "post.lua", 128, min(5, self.seconds))["rate"]
        self.settle("P4")
        with self.step(f"P4: {rate / 2:,.0f} a second"):
            seen = self.paced(serve, rate / 2)
            self.sheet.add(P4_RATE, seen["rate"])
            self.sheet.add("P4 p50 at half of P1's rate (ms)", seen["p50_ms"])
            self.sheet.add(P4, seen["p99_ms"])
        with self.step(f"P4: {SLOW_RATE:,} a second"):
            self.sheet.add(P4_SLOW, self.paced(serve, SLOW_RATE)["p99_ms"])
        self.verify("P4")

    def ours(self):
        with step("a new database", 60):
            self.ledger.create()
        with self.ledger.serve() as serve:
            with step("opening the accounts", 60):
                if self.wants("P11"):
                    self.sheet.add(READY, serve.ready_ms)
                    self.sheet.add(IDLE, serve.memory_mib())
                open_accounts(serve.url)
            if self.wants("P1"):
                self.spread(serve)
            if self.wants("P2"):
                self.hot(serve)
            if self.wants("P3"):
                self.batches(serve)
            if self.wants("P4"):
                self.half_rate(serve)
            if self.wants("P5"):
                with self.step("P5: balances, 128 connections"):
                    self.sheet.add(P5, wrk(serve.url, "balance.lua", 128, self.seconds)["rate"])

    def yardsticks(self):
        with step("a new database for the yardsticks", 60):
            self.postgres.create("yardstick")
        if {"P1", "P2", "P4", "P5"} & set(self.given.wanted):
            with step("starting FastAPI", 300):
                service = fastapi(self.postgres, self.work).__enter__()
            try:
                self.beside_fastapi(service.url)
            finally:
                service.stop()
        bare = Ledger(self.postgres, self.work, "bare")
        if self.wants("P3"):
            with self.step("P3: bare INSERT … SELECT"):
                bare.create()
                self.sheet.add(BARE, bare_insert(bare, self.seconds))
        if self.wants("P4"):
            rate = self.sheet.values[P4_RATE][-1]
            with self.step(f"P4: bare commits, {rate:,.0f} rows a second"):
                bare.create()
                self.sheet.add(P4_BARE, bare_commits_p99_ms(bare, self.work, rate, self.seconds))

    def beside_fastapi(self, url):
        """Runs pgbench on the tables that the service has created."""
        if self.wants("P1"):
            for clients, name in PGBENCH.items():
                with self.step(f"P1: pgbench spread, {clients} clients"):
                    self.sheet.add(name, pgbench(self.postgres, "spread.sql", clients, self.seconds))
        if self.wants("P1") or self.wants("P4"):
            with self.step("P1: FastAPI spread"):
                rate = post(url, "post.lua", 64, self.seconds)["rate"]
                self.sheet.add(FASTAPI_SPREAD, rate)
        if self.wants("P2"):
            with self.step("P2: pgbench hot"):
                self.sheet.add(PGBENCH_HOT, pgbench(self.postgres, "hot.sql", 32, self.seconds))
        if self.wants("P4"):
            self.settle("P4")
            with self.step(f"P4: FastAPI, {rate / 2:,.0f} a second"):
                self.sheet.add(P4_FASTAPI, paced(url, rate / 2, self.seconds, self.work / "acknowledged-by-fastapi")["p99_ms"])
        if self.wants("P5"):
            with self.step("P5: FastAPI and pgbench -S", 3):
                self.postgres.sql(f"INSERT INTO balances SELECT 'acct-' || i, 'USD', 0 FROM generate_series(1, {ACCOUNTS}) i"
                                  " ON CONFLICT DO NOTHING", "yardstick")
                self.sheet.add(P5_FASTAPI, wrk(url, "balance.lua", 128, self.seconds)["rate"])
                run(program("pgbench"), "-h", "127.0.0.1", "-p", self.postgres.port, "-U", "postgres", "-i", "-q", "yardstick")
                self.sheet.add(P5_PGBENCH, pgbench(self.postgres, None, 32, self.seconds, "-S"))

    def growth(self, size):
        """Runs P10 on an empty ledger, or on one with `--rows` rows."""
        with step(f"P10: a new database, {size}", 60):
            self.ledger.create()
        if size == "grown":
            with step(f"P10: loading {self.given.rows:,} rows", 120 + self.given.rows // 10000):
                self.ledger.sql((BENCH / "yardstick/grow.sql").read_text().replace(":rows", str(self.given.rows))
                                .replace(":accounts", str(ACCOUNTS)))
        with self.ledger.serve() as serve:
            with step("P10: opening the accounts", 60):
                open_accounts(serve.url)
            with self.step(f"P10: {size}, warming up"):
                post(serve.url, "post.lua", 128, self.seconds)
            self.settle("P10")
            with self.step(f"P10: {size}, 128 connections"):
                self.sheet.add(p10(size), self.checked("P10", lambda: post(serve.url, "post.lua", 128, self.seconds), 128)["rate"])
            with step("P10: VACUUM ANALYZE", 300):
                self.ledger.sql("VACUUM ANALYZE; CHECKPOINT")
            # From one eighth to seven eighths of the ledger's time range.
            bounds = self.ledger.sql("SELECT to_char(a AT TIME ZONE 'UTC', f), to_char(b AT TIME ZONE 'UTC', f)"
                                     " FROM (SELECT min(created_at) + (max(created_at) - min(created_at)) / 8 AS a,"
                                     " min(created_at) + (max(created_at) - min(created_at)) / 8 * 7 AS b FROM transactions) r,"
                                     " (VALUES ('YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')) AS v (f)").split("|")
            for kind in PAGES:
                with self.step(f"P10: {size}, {PAGES[kind]}, 2 connections"):
                    seen = wrk(serve.url, "page.lua", 2, self.seconds, PAGE=kind, FROM=bounds[0], TO=bounds[1])
                    self.sheet.add(p10_page(size, kind), seen["p99_ms"])
                    self.sheet.add(p10_page(size, kind).replace("p99 (ms)", "rate (1/s)"), seen["rate"])
        with step("P10: the ledger against itself", 300):
            # `verify` would report the loaded rows, because they have no events.
            wrong = self.ledger.sql("SELECT count(*) FROM accounts a FULL JOIN (SELECT account_id, count(*), max(account_seq), sum(amount)"
                                    " FROM transactions GROUP BY account_id) t USING (account_id)"
                                    " WHERE (a.account_seq, a.account_seq, a.balance) IS DISTINCT FROM (t.count, t.max, t.sum)")
            if wrong != "0":
                raise Failed(f"{wrong} accounts are not what their rows add up to")


def measure(given):
    def measured(work, sheet, about):
        cluster = work / "cluster"
        cluster.mkdir()
        with step("starting a private PostgreSQL", 60):
            postgres = Postgres(cluster)
        try:
            about.update(postgresql=postgres.version(), settings=postgres.settings)
            if "P11" in given.wanted:
                sheet.add(BINARY, LEDGER.stat().st_size / 2**20)
            for number in range(given.rounds):
                progress(f"round {number + 1} of {given.rounds}")
                if "P4" in given.wanted:
                    with step("P4: fdatasync", 60):
                        sheet.add(FDATASYNC, fdatasync_ms(work))
                now = Round(postgres, work, sheet, given)
                if set(given.wanted) - {"P10"}:
                    now.ours()
                    now.yardsticks()
                if "P10" in given.wanted:
                    for size in SIZES:
                        now.growth(size)
        finally:
            postgres.stop()
    return measured


given = arguments(__doc__, ("P1", "P2", "P3", "P4", "P5", "P10", "P11"), ("P1", "P2", "P3", "P4", "P5", "P11"),
                  rounds=(3, "how often everything is done"), seconds=(8, "how long each load runs"),
                  rows=(10_000_000, "rows that P10 loads"))
main("", given, measure(given), GOALS)

#!/usr/bin/env python3
"""Measures relay and consume-risk on a real Kafka, next to Kafka's own ProducerPerformance, and prints one table.

    make bench-events                                        all of it, 1,000,000 events
    bench/bench_events.py --rounds 1 --events 200000         smaller
    bench/bench_events.py --only P6 --events 300000          one part

P6  the relay drains an outbox, acks=all; then ProducerPerformance sends the same records
P7  consume-risk reads that topic with the shipped rules, then without rules; then a topic of one account
P8  1,000 transactions a second through serve, relay and consume-risk: time from the 201 until the assessment is readable.
    The same load runs unmeasured first, because a Kafka that has just started answers slowly
IDLE  the cost of a relay without work

Needs PostgreSQL's programs, Java and Maven (scripts/setup.sh bench) and target/release/ledger. Results go to
bench/results/DATE-events.json. After every part `ledger verify` must be clean and every event must have its assessment.
"""
import contextlib
import csv
import datetime
import http.client
import json
import random
import re
import statistics
import sys
import threading
import time

from harness import Failed, Goal, Kafka, Ledger, Postgres, arguments, main, metric, run, step, wait_for
import harness

ACCOUNTS = 10000
HISTORY_DAYS = 5
TOPIC = "transactions.v1"
PARTITIONS = 12
SAMPLES_TAKEN_FOR_PAYLOAD = 10000
PROBE_SKIP_SECONDS = 2
NO_RULES = "[levels]\nmedium = 40\nhigh = 70\n"

RELAY = "P6 relay drains the outbox, acks=all (events/s)"
PERF = {kind: f"P6 ProducerPerformance, same records, acks=all, {kind} (records/s)" for kind in ("lz4", "none")}
RULES = "P7 consume-risk, shipped rules (events/s)"
NO_RULES_RATE = "P7 consume-risk, rules off (events/s)"
HOT = "P7 consume-risk, shipped rules, one account (events/s)"
IDLE_CPU, IDLE_QUERIES = "IDLE relay, share of a core (%)", "IDLE relay (queries/s)"
P8 = {q: f"P8 accepted → assessment readable, seen from outside, {q} (ms)" for q in ("p50", "p99")}
MEMORY = [f"MEMORY {role}, peak (MiB)" for role in ("relay", "consume-risk", "serve")]

GOALS = [
    Goal("P6", "relay ÷ the better ProducerPerformance", lambda s: s.ratio(RELAY, list(PERF.values())), 0.7, "×"),
    Goal("P7", "consume-risk with the shipped rules", lambda s: s.median(RULES), 25000, "/s"),
    Goal("P7", "one account ÷ spread", lambda s: s.ratio(HOT, RULES), 0.8, "×"),
    Goal("P7", "consume-risk with rules off", lambda s: s.median(NO_RULES_RATE), 35000, "/s"),
    Goal("P8", "accepted → assessment readable, p50", lambda s: s.median(P8["p50"]), 25, "ms", at_most=True),
    Goal("P8", "accepted → assessment readable, p99", lambda s: s.median(P8["p99"]), 100, "ms", at_most=True),
    Goal("IDLE", "relay, share of a core", lambda s: s.median(IDLE_CPU), 1, "%", at_most=True),
    Goal("IDLE", "relay, queries", lambda s: s.median(IDLE_QUERIES), 20, "/s", at_most=True),
    *(Goal("MEMORY", name.split(" ")[1].rstrip(",") + ", peak", lambda s, n=name: max(s.values[n]) if n in s.values else None,
           150, "MiB", at_most=True) for name in MEMORY),
]


def write_csv(path, rows, accounts):
    """Writes purchases and refunds in order of time, over HISTORY_DAYS days, so that none is older than Kafka's retention."""
    choose = random.Random(7)
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=HISTORY_DAYS)
    pause = datetime.timedelta(days=HISTORY_DAYS) / rows
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["account_id", "idempotency_key", "direction", "amount", "currency", "created_at", "counterparty",
                      "metadata.country", "metadata.channel"])
        for n in range(rows):
            amount = choose.randrange(100, 300) << choose.randrange(8)
            out.writerow([f"acct-{choose.randrange(accounts) + 1}", f"order-{n}", "credit" if n % 3 == 0 else "debit",
                          f"{amount // 100}.{amount % 100:02}", "EUR", (start + n * pause).isoformat(timespec="microseconds"),
                          f"shop-{choose.randrange(300)}", "DE", "web"])


def filled(postgres, work, name, rows, accounts):
    """Creates a database with a backlog by `ledger import`. Rounds work on copies of it."""
    template = Ledger(postgres, work, name)
    with step(f"filling {name}: {rows:,} events of {accounts:,} accounts", 120 + rows // 4000):
        template.create()
        write_csv(work / f"{name}.csv", rows, accounts)
        template.command("import", work / f"{name}.csv")
        (work / f"{name}.csv").unlink()
        # Copies must not inherit pending work of autovacuum.
        template.sql("VACUUM (FREEZE, ANALYZE)")
        if template.count("outbox") != rows:
            raise Failed("the import did not leave one event per transaction")


def peak(sheet, process, role):
    sheet.add(f"MEMORY {role}, peak (MiB)", process.memory_mib("VmHWM"))


class Cost:
    """Measures the processor time of a role and of PostgreSQL, per event."""

    def __init__(self, process, postgres):
        self.process, self.postgres = process, postgres
        self.before = process.cpu_seconds(), postgres.cpu_seconds()

    def add_to(self, sheet, part, what, events):
        ours, theirs = self.process.cpu_seconds() - self.before[0], self.postgres.cpu_seconds() - self.before[1]
        sheet.add(f"{part} {what}, processor time (µs/event)", ours / events * 1e6)
        sheet.add(f"{part} {what}, PostgreSQL's processor time (µs/event)", theirs / events * 1e6)


def rate(count, total, process):
    """Returns the events per second between the first and the last observed event."""
    first = wait_for(lambda: process.alive() and count(), "the first event", 0.02)
    began = time.monotonic()
    seen = first
    while seen < total:
        time.sleep(0.02)
        process.alive()
        seen = count()
    return (seen - first) / (time.monotonic() - began) if seen > first else 0


def drain(ledger, sheet, events, keep):
    with step(f"P6: the relay drains {events:,} events", 60 + events // 5000), ledger.role("relay") as relay:
        cost = Cost(relay, ledger.postgres)
        seen = rate(lambda: metric(relay.metrics(), "ledger_relay_published_total", topic=TOPIC), events, relay)
        wait_for(lambda: ledger.sql("SELECT NOT EXISTS (SELECT FROM outbox)") == "t", "an empty outbox", 0.1)
        if keep:
            sheet.add(RELAY, seen)
            cost.add_to(sheet, "P6", "relay", events)
            peak(sheet, relay, "relay")


def payloads(kafka, path, count):
    """Returns the records as stored by Kafka, with key and headers, one per line."""
    lines = kafka.tool("consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap, "--topic", TOPIC, "--from-beginning",
                       "--max-messages", count, "--timeout-ms", "30000", "--property", "print.key=true", "--property", "print.headers=true")
    path.write_text(lines)
    return len(lines) / max(1, len(lines.splitlines()))


def producer_performance(kafka, sheet, work, events):
    path = work / "payloads"
    with step("P6: reading the relay's records back", 60):
        size = payloads(kafka, path, min(events, SAMPLES_TAKEN_FOR_PAYLOAD))
        sheet.add("P6 record, with key and headers (bytes)", size)
    for kind, name in PERF.items():
        topic = f"perf-{kind}-{time.monotonic_ns()}"
        with step(f"P6: ProducerPerformance, {kind}", 60 + events // 5000):
            kafka.tool("TopicCommand", "--bootstrap-server", kafka.bootstrap, "--create", "--topic", topic, "--partitions", PARTITIONS)
            out = kafka.tool("ProducerPerformance", "--topic", topic, "--num-records", events, "--payload-file", path, "--throughput", -1,
                             "--producer-props", f"bootstrap.servers={kafka.bootstrap}", "acks=all", f"compression.type={kind}")
            last = [line for line in out.splitlines() if f"{events} records sent" in line]
            if not last:
                raise Failed(f"ProducerPerformance did not send everything:\n{out}")
            sheet.add(name, float(re.search(r"([\d.]+) records/sec", last[-1])[1]))
            # Delete its segments, so that they do not slow down the next part.
            kafka.tool("TopicCommand", "--bootstrap-server", kafka.bootstrap, "--delete", "--topic", topic)


def consume(ledger, sheet, name, events, label, *arguments):
    def position():
        return int(ledger.sql("SELECT coalesce(sum(next_offset), 0) FROM consumer_positions"))
    with step(f"P7: consume-risk, {label}, {events:,} events", 60 + events // 2000), ledger.role("consume-risk", *arguments) as role:
        cost = Cost(role, ledger.postgres)
        seen = rate(position, events, role)
        sheet.add(name, seen)
        cost.add_to(sheet, "P7", f"consume-risk, {label}", events)
        peak(sheet, role, "consume-risk")
    with step(f"P7: checking, {label}", 60 + events // 2000):
        assessed, dead = ledger.count("risk_assessments"), ledger.count("dead_letters")
        if (assessed, dead) != (events, 0):
            raise Failed(f"of {events} events {assessed} have an assessment and {dead} are dead letters")
        ledger.verify()


def spread(ledger, kafka, sheet, work, given):
    with step("a fresh Kafka and a copy of the spread backlog", 120):
        kafka.up()
        ledger.settings.update(kafka.settings)
        ledger.create(template="filled_spread")
    drain(ledger, sheet, given.events, keep="P6" in given.wanted)
    if "P6" in given.wanted:
        with step("P6: ledger verify", 60 + given.events // 2000):
            ledger.verify()
        producer_performance(kafka, sheet, work, given.events)
    if "P7" in given.wanted:
        consume(ledger, sheet, RULES, given.events, "shipped rules")
        with step("P7: forgetting the assessments"):
            ledger.sql("TRUNCATE risk_assessments, outbox, consumer_positions")
            ledger.sql("CHECKPOINT")
        (work / "no-rules.toml").write_text(NO_RULES)
        consume(ledger, sheet, NO_RULES_RATE, given.events, "rules off", "--rules", work / "no-rules.toml")
    with step("stopping Kafka"):
        kafka.down()


def hot(ledger, kafka, sheet, given):
    with step("a fresh Kafka and a copy of the one-account backlog", 120):
        kafka.up()
        ledger.settings.update(kafka.settings)
        ledger.create(template="filled_hot")
    drain(ledger, sheet, given.hot_events, keep=False)
    consume(ledger, sheet, HOT, given.hot_events, "one account")
    with step("stopping Kafka"):
        kafka.down()


class Probe(threading.Thread):
    """A client that posts and then polls until the assessment exists. `waited` collects the milliseconds in between."""

    def __init__(self, url, number, seconds, per_second, skip_seconds):
        super().__init__(daemon=True)
        self.address = url.removeprefix("http://")
        self.number, self.seconds, self.pause, self.skip = number, seconds, 1 / per_second, skip_seconds
        self.waited, self.problem = [], None

    def run(self):
        try:
            self.work()
        except Exception as error:  # noqa: BLE001: the main thread reports it
            self.problem = repr(error)

    def work(self):
        connection = http.client.HTTPConnection(self.address, timeout=10)
        began = time.monotonic()
        n = 0
        while (due := began + self.pause * (n + self.number / 8)) < began + self.seconds:
            time.sleep(max(0, due - time.monotonic()))
            body = json.dumps({"account_id": f"probe-{self.number}", "direction": "credit", "amount": "1.00", "currency": "EUR"})
            headers = {"Content-Type": "application/json", "Idempotency-Key": f"probe-{n}"}
            connection.request("POST", "/transactions", body, headers)
            answer = connection.getresponse()
            row = json.load(answer)
            if answer.status != 201:
                raise Failed(f"{answer.status}: {row}")
            accepted = time.monotonic()
            self.wait_for_assessment(connection, row["id"], accepted)
            if accepted - began >= self.skip:
                self.waited.append((time.monotonic() - accepted) * 1000)
            n += 1

    def wait_for_assessment(self, connection, id, accepted):
        while time.monotonic() - accepted < 30:
            connection.request("GET", f"/transactions/{id}")
            if json.load(connection.getresponse())["risk"]["status"] == "assessed":
                return
            time.sleep(0.002)
        raise Failed("no assessment within 30 s")


COMMIT_TO_COMMIT = """
SELECT unnest(percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (
         ORDER BY extract(epoch FROM pg_xact_commit_timestamp(r.xmin) - pg_xact_commit_timestamp(t.xmin)) * 1000))
FROM transactions t JOIN risk_assessments r USING (account_id, account_seq)
WHERE t.created_at > '%s'
"""


def latency(ledger, kafka, sheet, given):
    """Measures P8 from outside with a few polling clients, and for all transactions by PostgreSQL's commit timestamps."""
    def simulate(seconds, seed):
        return json.loads(ledger.command("simulate", "--url", serve.url, "--rate", given.rate, "--duration", f"{seconds}s",
                                         "--connections", "64", "--seed", seed, "--output", "json"))
    with step("P8: a fresh Kafka and database", 120):
        kafka.up()
        ledger.settings.update(kafka.settings)
        ledger.create()
    with contextlib.ExitStack() as stack:
        with step("P8: starting serve, relay and consume-risk"):
            serve = stack.enter_context(ledger.serve())
            roles = {"relay": stack.enter_context(ledger.role("relay")), "consume-risk": stack.enter_context(ledger.role("consume-risk"))}
        warm = {"created": 0}
        if given.warm_up:
            with step(f"P8: {given.rate:,} transactions/s for {given.warm_up} s, not measured", 60 + 2 * given.warm_up):
                warm = simulate(given.warm_up, 6)
        sheet.add("P8 the same load before it, not measured (s)", given.warm_up)
        with step(f"P8: {given.rate:,} transactions/s for {given.seconds} s", 60 + 2 * given.seconds):
            began = ledger.sql("SELECT clock_timestamp() + interval '%d s'" % PROBE_SKIP_SECONDS)
            before = {name: role.cpu_seconds() for name, role in roles.items()}
            probes = [Probe(serve.url, n, given.seconds - 1, 4, PROBE_SKIP_SECONDS) for n in range(6)]
            for probe in probes:
                probe.start()
            out = simulate(given.seconds, 7)
            for probe in probes:
                probe.join()
                if probe.problem:
                    raise Failed(probe.problem)
            sheet.add("P8 transactions accepted (tx/s)", out["transactions_per_second"])
            sheet.add("P8 POST, p99 (ms)", out["latency_ms"]["p99"])
            for name, role in roles.items():
                sheet.add(f"P8 {name}, share of a core (%)", (role.cpu_seconds() - before[name]) / given.seconds * 100)
        waited = statistics.quantiles([ms for probe in probes for ms in probe.waited], n=100, method="inclusive")
        sheet.add(P8["p50"], waited[49])
        sheet.add(P8["p99"], waited[98])
        for name, process in {"serve": serve, **roles}.items():
            peak(sheet, process, name)
        with step("P8: ledger verify, nothing in flight", 120):
            ledger.verify("--wait", "30s")
            asked = warm["created"] + out["created"] + int(ledger.sql("SELECT count(*) FROM transactions WHERE account_id LIKE 'probe-%'"))
            rows, assessed = ledger.count("transactions"), ledger.count("risk_assessments")
            if not rows == assessed == asked:
                raise Failed(f"{asked} were acknowledged, {rows} are in the ledger, {assessed} are assessed")
    for name, ms in zip(("p50", "p99", "max"), ledger.sql(COMMIT_TO_COMMIT % began).split()):
        sheet.add(f"P8 ledger's commit → assessment's commit, all transactions, {name} (ms)", float(ms))
    with step("stopping Kafka"):
        kafka.down()


def idle(ledger, kafka, sheet, given):
    seconds = min(15, given.seconds)
    with step("IDLE: a fresh Kafka and database", 120):
        kafka.up()
        ledger.settings.update(kafka.settings)
        ledger.create()
    # PostgreSQL logs the statements that it receives.
    url = ledger.postgres.url(ledger.database) + "?options=-c%20log_statement%3Dall"
    with step(f"IDLE: a relay without work for {seconds} s", 60), ledger.role("relay", LEDGER_DATABASE__URL=url) as relay:
        def queries():
            return len(re.findall(r"\[ledger relay\] LOG:  (?:execute|statement)", ledger.postgres.log.read_text()))
        time.sleep(5)  # The relay takes its leases, and its polling slows down.
        before, cpu, began = queries(), relay.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        sheet.add(IDLE_CPU, (relay.cpu_seconds() - cpu) / passed * 100)
        sheet.add(IDLE_QUERIES, (queries() - before) / passed)
    with step("stopping Kafka"):
        kafka.down()


def measure(given):
    def measured(work, sheet, about):
        cluster = work / "cluster"
        cluster.mkdir()
        with step("starting a private PostgreSQL", 60):
            postgres = Postgres(cluster, track_commit_timestamp="on")
        kafka = Kafka(work / "kafka")
        try:
            about.update(postgresql=postgres.version(), settings=postgres.settings, kafka="4.1.0")
            if {"P6", "P7"} & set(given.wanted):
                filled(postgres, work, "filled_spread", given.events, ACCOUNTS)
            if "P7" in given.wanted:
                filled(postgres, work, "filled_hot", given.hot_events, 1)
            ledger = Ledger(postgres, work)
            for number in range(given.rounds):
                harness.progress(f"round {number + 1} of {given.rounds}")
                if {"P6", "P7"} & set(given.wanted):
                    spread(ledger, kafka, sheet, work, given)
                if "P7" in given.wanted:
                    hot(ledger, kafka, sheet, given)
                if "P8" in given.wanted:
                    latency(ledger, kafka, sheet, given)
            if "IDLE" in given.wanted:
                idle(ledger, kafka, sheet, given)
        finally:
            kafka.down()
            postgres.stop()
    return measured


PARTS = ("P6", "P7", "P8", "IDLE")
given = arguments(__doc__, PARTS, PARTS, rounds=(3, "how often everything is done"), events=(1_000_000, "events of the spread backlog"),
                  hot_events=(200_000, "events of the backlog of one account"), rate=(1000, "transactions a second of P8"),
                  seconds=(30, "how long P8 is measured"),
                  warm_up=(45, "how long the load of P8 runs before that"))
main("events", given, measure(given), GOALS)

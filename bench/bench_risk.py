#!/usr/bin/env python3
"""Measures consume-risk on accounts with few and with many transactions, on a real Kafka, and prints one table.

    make bench-risk                                          10,000 accounts with 20 and with 500 transactions
    bench/bench_risk.py --only OLD --accounts 2000           one part, smaller
    LEDGER_BENCH_BINARY=FILE bench/bench_risk.py             another binary, to compare with

YOUNG  accounts with 20 transactions
OLD    accounts with 500 transactions, as many as the shipped rules look at

The accounts are hit uniformly. The first events of an account, whose history must be read, are not measured: the rate and
the costs are those of the second half of the events.

Needs PostgreSQL's programs, Java and Maven (scripts/setup.sh bench) and target/release/ledger. Results go to
bench/results/DATE-risk.json. After every part every event must have its assessment.
"""
import csv
import datetime
import random
import time

from harness import Failed, Goal, Kafka, Ledger, Postgres, arguments, main, metric, step, wait_for
import harness

ROWS = {"YOUNG": 20, "OLD": 500}
DAYS = 5
NAMES = ["account_id", "idempotency_key", "direction", "amount", "currency", "created_at", "counterparty", "metadata.country",
         "metadata.channel"]


def figure(part, what):
    return f"{part} consume-risk, accounts with {ROWS[part]} transactions, {what}"


def rate_of(part):
    return figure(part, "steady (events/s)")


def peak_of(part):
    return figure(part, "peak memory (MiB)")


GOALS = [
    Goal("OLD", "consume-risk, 10,000 accounts × 500", lambda s: s.median(rate_of("OLD")), 20000, "/s"),
    Goal("OLD", "consume-risk, 10,000 accounts × 500, peak", lambda s: s.median(peak_of("OLD")), 256, "MiB", at_most=True),
    Goal("OLD", "old ÷ young accounts", lambda s: s.ratio(rate_of("OLD"), rate_of("YOUNG")), 0.8, "×"),
]


def write_csv(path, kind, first, rows, accounts, start, pause):
    """Writes purchases and refunds in order of time. Each account is hit once in each round, in random order."""
    choose = random.Random(first)
    order = list(range(1, accounts + 1))
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(NAMES)
        for n in range(rows):
            if n % accounts == 0:
                choose.shuffle(order)
            amount = choose.randrange(100, 300) << choose.randrange(8)
            out.writerow([f"acct-{order[n % accounts]}", f"{kind}-{n}", "credit" if n % 3 == 0 else "debit",
                          f"{amount // 100}.{amount % 100:02}", "EUR",
                          (start + (first + n) * pause).isoformat(timespec="microseconds"),
                          f"shop-{choose.randrange(300)}", "DE", "web"])


def fill(ledger, work, part, given):
    """Imports the histories, whose events are forgotten, and then the events to measure."""
    history = given.accounts * ROWS[part]
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=DAYS)
    pause = datetime.timedelta(days=DAYS) / (history + given.events)
    path = work / "rows.csv"
    ledger.create()
    for kind, first, rows in (("history", 0, history), ("event", history, given.events)):
        write_csv(path, kind, first, rows, given.accounts, start, pause)
        if kind == "event":
            ledger.sql("TRUNCATE outbox")
        ledger.command("import", path)
    path.unlink()
    ledger.sql("VACUUM (FREEZE, ANALYZE)")
    ledger.sql("CHECKPOINT")


def publish(ledger):
    with ledger.role("relay") as relay:
        wait_for(lambda: relay.alive() and ledger.sql("SELECT NOT EXISTS (SELECT FROM outbox)") == "t", "an empty outbox", 0.1)


def consume(ledger, sheet, part, given):
    def position():
        return int(ledger.sql("SELECT coalesce(sum(next_offset), 0) FROM consumer_positions"))

    def reached(events):
        return wait_for(lambda: role.alive() and (seen := position()) >= events and seen, f"{events:,} events", 0.05)

    with ledger.role("consume-risk") as role:
        def costs():
            return role.cpu_seconds(), ledger.postgres.cpu_seconds(), time.monotonic()
        first = reached(given.events // 2)
        before = costs()
        last = reached(given.events)
        ours, theirs, seconds = (after - earlier for after, earlier in zip(costs(), before))
        if last == first:
            raise Failed("there are too few events to measure a rate; raise --events")
        sheet.add(rate_of(part), (last - first) / seconds)
        sheet.add(figure(part, "processor time (µs/event)"), ours / (last - first) * 1e6)
        sheet.add(figure(part, "PostgreSQL's processor time (µs/event)"), theirs / (last - first) * 1e6)
        sheet.add(peak_of(part), role.memory_mib("VmHWM"))
        read = metric(role.metrics(), "ledger_risk_histories_total", source="ledger")
        sheet.add(figure(part, "histories read from the ledger, share of the events (%)"), read / given.events * 100)
    assessed, dead = ledger.count("risk_assessments"), ledger.count("dead_letters")
    if (assessed, dead) != (given.events, 0):
        raise Failed(f"of {given.events} events {assessed} have an assessment and {dead} are dead letters")


def measure(given):
    def measured(work, sheet, about):
        cluster = work / "cluster"
        cluster.mkdir()
        with step("starting a private PostgreSQL", 60):
            postgres = Postgres(cluster)
        kafka = Kafka(work / "kafka")
        ledger = Ledger(postgres, work)
        try:
            about.update(postgresql=postgres.version(), settings=postgres.settings, kafka="4.1.0")
            for number in range(given.rounds):
                harness.progress(f"round {number + 1} of {given.rounds}")
                for part in given.wanted:
                    rows = given.accounts * ROWS[part] + given.events
                    with step(f"{part}: a fresh Kafka", 120):
                        kafka.up()
                        ledger.settings.update(kafka.settings)
                    with step(f"{part}: importing {rows:,} transactions of {given.accounts:,} accounts", 240 + rows // 2000):
                        fill(ledger, work, part, given)
                    with step(f"{part}: publishing {given.events:,} events", 120 + given.events // 2000):
                        publish(ledger)
                    with step(f"{part}: consume-risk, {given.events:,} events", 240 + given.events // 200):
                        consume(ledger, sheet, part, given)
                    with step("stopping Kafka"):
                        kafka.down()
        finally:
            kafka.down()
            postgres.stop()
    return measured


PARTS = tuple(ROWS)
given = arguments(__doc__, PARTS, PARTS, rounds=(1, "how often everything is done"), accounts=(10_000, "accounts"),
                  events=(400_000, "events of each part"))
main("risk", given, measure(given), GOALS)

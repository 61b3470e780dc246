#!/usr/bin/env python3
"""Measures `ledger import` of the same transactions in several files, on a private PostgreSQL, and prints one table.

    bench/bench_import.py                                    300,000 rows of each file, 3 rounds
    bench/bench_import.py --only PLAIN,MAPPED --rows 50000   some files, smaller
    LEDGER_BENCH_BINARY=FILE bench/bench_import.py           another binary, to compare with

PLAIN    our own columns
MAPPED   a map with semicolons, decimal commas, German dates of Berlin and a signed amount
DERIVED  the same map with keys that are hashes of six columns, the newest row first, and expected balances

Each import goes into an empty database, in turns. Needs PostgreSQL's programs (scripts/setup.sh bench) and
target/release/ledger. Results go to bench/results/DATE-import.json. After each import the ledger must have all rows.
"""
import csv
import datetime
import os
import pathlib
import random
import re
import subprocess
import time
import zoneinfo

from harness import LEDGER, Failed, Goal, Ledger, Postgres, arguments, environment, main, step
import harness

FILES = ("PLAIN", "MAPPED", "DERIVED")
ACCOUNTS = 1_000
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
START = datetime.datetime(2025, 3, 1, tzinfo=datetime.timezone.utc)
HEADINGS = ["Konto", "Buchung", "Name", "Verwendungszweck", "Betrag", "Saldo", "Referenz"]
MAP = '''separator = ";"
decimal = ","
thousands = "."
account_id = "{Konto}"
currency = "EUR"
counterparty = "{Name}"
description = "{Verwendungszweck}"
%s
[amount]
column = "Betrag"
[created_at]
value = "{Buchung}"
formats = ["%%d.%%m.%%Y %%H:%%M:%%S"]
zone = "Europe/Berlin"
'''
KEYS = {
    "MAPPED": 'idempotency_key = "{Referenz}"',
    "DERIVED": 'idempotency_key_hash = ["Konto", "Buchung", "Name", "Verwendungszweck", "Betrag", "Saldo"]\n'
               'order = "newest-first"\nexpected_balance = "{Saldo}"',
}


def rate_of(file):
    return f"{file} import (rows/s)"


def peak_of(file):
    return f"{file} peak memory (MiB)"


GOALS = [goal for file in FILES[1:] for goal in (
    Goal(file, "rate, mapped ÷ plain", lambda s, file=file: s.ratio(rate_of(file), rate_of("PLAIN")), 0.7, "×"),
    Goal(file, "peak memory", lambda s, file=file: s.median(peak_of(file)), 150, "MiB", at_most=True),
)]


def german(cents):
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}".replace(",", ".") + f",{abs(cents) % 100:02}"


def write_files(work, rows):
    """Writes the same transactions to a plain file, a mapped one, and a mapped one with the newest row first."""
    choose, balances, mapped = random.Random(7), [0] * ACCOUNTS, []
    with open(work / "PLAIN.csv", "w", newline="") as file:
        plain = csv.writer(file)
        plain.writerow(["account_id", "idempotency_key", "direction", "amount", "currency", "created_at", "counterparty",
                        "description"])
        for n in range(rows):
            account, cents = choose.randrange(ACCOUNTS), choose.randrange(100, 300) << choose.randrange(8)
            signed = cents if n % 3 == 0 else -cents
            balances[account] += signed
            at = START + datetime.timedelta(seconds=n)
            name, text = f"Händler {choose.randrange(300)}", f"Zahlung {n}, Rechnung {choose.randrange(10**6)}"
            plain.writerow([f"acct-{account}", f"ref-{n}", "credit" if signed > 0 else "debit",
                            f"{cents // 100}.{cents % 100:02}", "EUR", at.isoformat(), name, text])
            mapped.append([f"acct-{account}", at.astimezone(BERLIN).strftime("%d.%m.%Y %H:%M:%S"), name, text,
                           german(signed), german(balances[account]), f"ref-{n}"])
    for name, ordered in (("MAPPED", mapped), ("DERIVED", reversed(mapped))):
        with open(work / f"{name}.csv", "w", newline="") as file:
            out = csv.writer(file, delimiter=";")
            out.writerow(HEADINGS)
            out.writerows(ordered)
        (work / f"{name}.toml").write_text(MAP % KEYS[name])


def peak_kib(pid):
    found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def import_file(ledger, work, sheet, name, rows):
    flags = [] if name == "PLAIN" else ["--map", work / f"{name}.toml"]
    command = [LEDGER, "import", *flags, work / f"{name}.csv"]
    began, theirs = time.monotonic(), ledger.postgres.cpu_seconds()
    with open(work / "import.log", "w") as log:
        child = subprocess.Popen(list(map(str, command)), env=environment(**ledger.settings), stdout=log, stderr=log)
        peak, ended = 0, 0
        while not ended:
            # The peak that the kernel reports at the end contains that of this script, before it became the import.
            peak = max(peak, peak_kib(child.pid))
            time.sleep(0.02)
            ended, status, used = os.wait4(child.pid, os.WNOHANG)
    seconds = time.monotonic() - began
    if status or ledger.count("transactions") != rows:
        raise Failed((work / "import.log").read_text())
    sheet.add(rate_of(name), rows / seconds)
    sheet.add(f"{name} processor time (µs/row)", (used.ru_utime + used.ru_stime) / rows * 1e6)
    sheet.add(f"{name} PostgreSQL's processor time (µs/row)", (ledger.postgres.cpu_seconds() - theirs) / rows * 1e6)
    sheet.add(peak_of(name), peak / 1024)


def measure(given):
    def measured(work, sheet, about):
        cluster = work / "cluster"
        cluster.mkdir()
        with step("starting a private PostgreSQL", 60):
            postgres = Postgres(cluster)
        ledger = Ledger(postgres, work)
        try:
            about.update(postgresql=postgres.version(), settings=postgres.settings, rows=given.rows)
            with step("writing the files", 60 + given.rows // 10_000):
                write_files(work, given.rows)
            for number in range(given.rounds):
                harness.progress(f"round {number + 1} of {given.rounds}")
                for name in given.wanted:
                    with step(f"{name}: importing {given.rows:,} rows", 120 + given.rows // 1000):
                        ledger.create()
                        import_file(ledger, work, sheet, name, given.rows)
        finally:
            postgres.stop()
    return measured


given = arguments(__doc__, FILES, FILES, rounds=(3, "how often everything is done"), rows=(300_000, "rows of each file"))
main("import", given, measure(given), GOALS)

#!/usr/bin/env python3
"""Checks that the code, docs/metrics.md, the alert rules and the dashboard name the same metrics.

Every metric of the code must be in the document, and every metric of the document in the code. Rules, their tests and
the dashboard may use documented metrics only.
"""

import pathlib
import re
import sys

DOCUMENT = pathlib.Path("docs/metrics.md")
USERS = [pathlib.Path("config/prometheus/ledger.rules.yml"), *sorted(pathlib.Path("config/grafana/dashboards").glob("*.json"))]
# A metric in the code is a whole string literal. Some groups, applications and users have similar names.
LITERAL = re.compile(r'"(ledger_[a-z_]+)"')
NAME = re.compile(r"\bledger_[a-z_]+\b")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def main() -> int:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `ledger_")]
    documented = {NAME.search(row).group() for row in rows}
    exported = set()
    for file in pathlib.Path("src").rglob("*.rs"):
        text = file.read_text(encoding="utf-8")
        # A file names a metric in the macro, or in a constant that it passes to the macro.
        if "metrics::" in text or "counter!" in text or "gauge!" in text or "histogram!" in text:
            exported.update(LITERAL.findall(text))
    problems = [f"{DOCUMENT}: {name}: not in src/" for name in sorted(documented - exported)]
    problems += [f"{DOCUMENT}: {name} is missing" for name in sorted(exported - documented)]
    for file in USERS:
        for name in sorted(set(NAME.findall(file.read_text(encoding="utf-8")))):
            if name not in documented and SUFFIX.sub("", name) not in documented:
                problems.append(f"{file}: {name}: not in {DOCUMENT}")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


sys.exit(main())

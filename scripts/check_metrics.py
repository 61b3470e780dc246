#!/usr/bin/env python3
"""Checks that the code, docs/metrics.md, the alert rules and the dashboard name the same metrics.

Every metric of the code must be in the document, and every metric of the document in the code. Each has a help text.
Rules, their tests and the dashboard may use documented metrics only. The rules must not aggregate environments together,
and the queries of the dashboard must follow its variables.
"""

import json
import pathlib
import re
import sys

DOCUMENT = pathlib.Path("docs/metrics.md")
HELP = pathlib.Path("src/runtime/metric_help.rs")
RULES = pathlib.Path("config/prometheus/ledger.rules.yml")
DASHBOARDS = sorted(pathlib.Path("config/grafana/dashboards").glob("*.json"))
USERS = [RULES, *DASHBOARDS]
# Aggregations that do not keep the labels of the environment.
MIXED = re.compile(r"\b(?:sum|max|min|avg|count|group)(?: by)? \((?!cluster, namespace\b)|\b(?:sum|max|min|avg|count|group)\(")
SELECTOR = re.compile(r"\b((?:ledger|process)_[a-z_]+)(\{[^}]*\})?")
VARIABLES = '{cluster=~"$cluster",namespace=~"$namespace",instance=~"$instance"'
# A metric in the code is a whole string literal. Some groups, applications and users have similar names.
LITERAL = re.compile(r'"(ledger_[a-z_]+)"')
NAME = re.compile(r"\bledger_[a-z_]+\b")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def main() -> int:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `ledger_")]
    documented = {NAME.search(row).group() for row in rows}
    exported = set()
    described = set(LITERAL.findall(HELP.read_text(encoding="utf-8")))
    for file in pathlib.Path("src").rglob("*.rs"):
        if file == HELP:
            continue
        text = file.read_text(encoding="utf-8")
        # A file names a metric in the macro, or in a constant that it passes to the macro.
        if "metrics::" in text or "counter!" in text or "gauge!" in text or "histogram!" in text or "start_at_zero" in text:
            exported.update(LITERAL.findall(text))
    problems = [f"{DOCUMENT}: {name}: not in src/" for name in sorted(documented - exported)]
    problems += [f"{DOCUMENT}: {name} is missing" for name in sorted(exported - documented)]
    problems += [f"{HELP}: {name} differs from {DOCUMENT}" for name in sorted(documented ^ described)]
    problems += [f"{RULES}: mixes environments: {line.strip()}" for line in RULES.read_text(encoding="utf-8").splitlines() if MIXED.search(line)]
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                for name, labels in SELECTOR.findall(target["expr"]):
                    if not labels.startswith(VARIABLES):
                        problems.append(f"{file}: {panel['title']}: {name} ignores the variables")
    for file in USERS:
        for name in sorted(set(NAME.findall(file.read_text(encoding="utf-8")))):
            if name not in documented and SUFFIX.sub("", name) not in documented:
                problems.append(f"{file}: {name}: not in {DOCUMENT}")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


sys.exit(main())

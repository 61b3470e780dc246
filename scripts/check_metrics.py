#!/usr/bin/env python3
"""Checks that the code, docs/metrics.md, the alert rules and the dashboard name the same metrics.

Every metric of the code must be in the document, and every metric of the document in the code. Each has a help text.
Rules, their tests and the dashboard may use documented metrics, labels and label values only. An integration test
compares the documented ones with the series of running roles. The rules must not aggregate environments together, and the
queries of the dashboard must follow its variables.
"""

import json
import pathlib
import re
import sys

import yaml

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
METRIC_ROW = re.compile(r"^\| `(?:ledger|process)_")
# A label in the document is a word before a colon, or any word before the first colon. The others are values.
DOCUMENTED_LABEL = re.compile(r"`([^`]+)`(:?)")
# Labels that Prometheus or its configuration adds.
TARGET_LABELS = {"cluster", "namespace", "instance", "job", "le", "alertname"}
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
CREATED_LABEL = re.compile(r"label_replace\(.*?\"(\w+)\", \"[^\"]*\", \"[^\"]*\", \"[^\"]*\"\)", re.DOTALL)
SHOWN_LABEL = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z]\w*)\s*\}\}")


class Labels:
    """The labels of each documented metric, and the values of those labels whose values are listed."""

    def __init__(self, rows: list[str]):
        self.of: dict[str, dict[str, set[str]]] = {}
        for row in rows:
            names, _, labels, *_ = (cell.strip() for cell in row.strip("|").split("|"))
            for name in re.findall(r"`([^`]+)`", names):
                self.of[name] = self.parsed(labels)

    @staticmethod
    def parsed(text: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        last, with_values = "", False
        for word, colon in DOCUMENTED_LABEL.findall(text):
            if colon or not with_values:
                last, with_values = word, bool(colon)
                found[last] = set()
            else:
                found[last].add(word)
        # A list that ends with … is not complete.
        return found if "…" not in text else {label: set() for label in found}

    def problems(self, expression: str, shown: str) -> list[str]:
        """Returns the labels that the metrics of a query do not have."""
        found = []
        allowed = TARGET_LABELS | set(CREATED_LABEL.findall(expression))
        for name, matchers in SELECTOR.findall(expression):
            labels = self.of.get(name) or self.of.get(SUFFIX.sub("", name), {})
            allowed |= labels.keys()
            for label, operator, value in MATCHER.findall(matchers):
                if label not in labels and label not in TARGET_LABELS:
                    found.append(f"{name} has no label {label}")
                elif operator == "=" and labels.get(label) and value not in labels[label]:
                    found.append(f"{label} of {name} is never {value}")
        grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")} - {""}
        found += [f"no metric of the query has the label {label}" for label in sorted(grouped - allowed)]
        return found + [f"the text shows {label}, which the query has not" for label in sorted(set(SHOWN_LABEL.findall(shown)) - allowed)]


def queries(file: pathlib.Path) -> list[tuple[str, str, str]]:
    """Returns the title, the expression and the text with labels of each query."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        panels = json.loads(text)["panels"]
        return [(panel["title"], item["expr"], item.get("legendFormat") or "") for panel in panels for item in panel.get("targets", [])]
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return [(rule["alert"], rule["expr"], " ".join(rule["annotations"].values())) for rule in rules]



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
    labels = Labels([line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if METRIC_ROW.match(line)])
    for file in USERS:
        for title, expression, shown in queries(file):
            problems += [f"{file}: {title}: {problem}" for problem in labels.problems(expression, shown)]
        for name in sorted(set(NAME.findall(file.read_text(encoding="utf-8")))):
            if name not in documented and SUFFIX.sub("", name) not in documented:
                problems.append(f"{file}: {name}: not in {DOCUMENT}")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


sys.exit(main())

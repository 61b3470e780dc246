#!/usr/bin/env python3
"""Runs the platform and a real Prometheus, and evaluates every query of the dashboard and the alerts.

A panel must have no error. It must not be empty, except for panels that only failures fill. An alert must be
evaluated and must not fire while the platform is healthy.
"""

import argparse
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

# `ledger dev` aggregates once a minute; all other metrics appear within seconds.
DEADLINE_SECONDS = 120
# Panels that stay empty without failures. Counters with known labels start at 0, so their panels are not empty.
QUIET = {"Database transactions retried"}
# What Grafana puts in place of its variables: every cluster, namespace and instance.
VARIABLES = {"$__rate_interval": "30s", "$cluster": ".*", "$namespace": ".*", "$instance": ".*"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait(what: str, condition, seconds: float):
    """Waits until the condition holds, and returns its result."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := condition():
                return result
        except OSError:
            pass
        if time.monotonic() > deadline:
            sys.exit(f"{what} was not there after {seconds} s")
        time.sleep(0.2)


def panels() -> list[tuple[str, str]]:
    found = []
    for file in sorted(pathlib.Path("config/grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    return [(title, filled_in(expression)) for title, expression in found]


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def start_ledger(ledger: str, work: pathlib.Path, running: list) -> tuple[str, str]:
    out = work / "ledger.out"
    listen = "127.0.0.1:0"
    command = [ledger, "dev", "--listen", listen, "--admin-listen", listen, "--data-dir", str(work / "data")]
    with out.open("wb") as stdout, (work / "ledger.log").open("wb") as stderr:
        running.append(subprocess.Popen(command, stdout=stdout, stderr=stderr))

    def addresses():
        if running[-1].poll() is not None:
            sys.exit("ledger dev ended: " + (work / "ledger.log").read_text())
        metrics = re.search(r"(http://[0-9.:]+)/metrics", out.read_text())
        api = re.search(r"API\s+(http://[0-9.:]+)", out.read_text())
        return (api[1], metrics[1]) if metrics and api else None

    return wait("ledger dev", addresses, 60)


def start_prometheus(prometheus: str, target: str, work: pathlib.Path, running: list) -> str:
    shutil.copy("config/prometheus/ledger.rules.yml", work)
    (work / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["ledger.rules.yml"],
                "scrape_configs": [{"job_name": "dev", "static_configs": [{"targets": [target.removeprefix("http://")]}]}],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    command = [
        prometheus,
        f"--config.file={work / 'prometheus.yml'}",
        f"--storage.tsdb.path={work / 'tsdb'}",
        f"--web.listen-address={address}",
    ]
    with (work / "prometheus.log").open("wb") as log:
        running.append(subprocess.Popen(command, stdout=log, stderr=log))
    wait("Prometheus", lambda: urllib.request.urlopen(f"http://{address}/-/ready", timeout=5), 30)
    return f"http://{address}"


def problems(url: str) -> list[str]:
    found = []
    for title, expression in panels():
        try:
            result = ask(f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["data"]["result"]
        except urllib.error.HTTPError as error:
            found.append(f"{title}: {expression}: {json.load(error)['error']}")
            continue
        if not result and title not in QUIET:
            found.append(f"{title}: {expression}: nothing")
    for group in ask(f"{url}/api/v1/rules")["data"]["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                found.append(f"{rule['name']}: {rule.get('lastError') or 'not evaluated'}")
            if rule["state"] == "firing":
                found.append(f"{rule['name']} fires: {rule['alerts']}")
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ledger", required=True)
    arguments.add_argument("--prometheus", required=True)
    options = arguments.parse_args()
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        # If this user is root, PostgreSQL runs as another user, who must reach the data.
        work.chmod(0o711)
        try:
            api, admin = start_ledger(options.ledger, work, running)
            prometheus = start_prometheus(options.prometheus, admin, work, running)
            traffic = [options.ledger, "simulate", "--url", api, "--rate", "50", "--duration", f"{DEADLINE_SECONDS}s"]
            running.append(subprocess.Popen(traffic, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            deadline = time.monotonic() + DEADLINE_SECONDS
            while (found := problems(prometheus)) and time.monotonic() < deadline:
                time.sleep(1)
            print("\n".join(found) or f"{len(panels())} queries answered")
            return 1 if found else 0
        finally:
            for process in reversed(running):
                process.terminate()
            for process in reversed(running):
                process.wait(timeout=30)


sys.exit(main())

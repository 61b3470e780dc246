"""Shared parts of the benchmarks: named steps with a time limit, a private PostgreSQL and Kafka, roles of `ledger` as
processes with their memory and processor time, and the table at the end.

A step that fails or takes too long ends the run and is named. Figures measured before it are still printed.
"""
import argparse
import contextlib
import dataclasses
import datetime
import glob
import http.client
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
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
LEDGER = pathlib.Path(os.environ.get("LEDGER_BENCH_BINARY") or ROOT / "target/release/ledger")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ledger/tools"
# The product promises durability, so fsync and synchronous_commit stay on, which is the default.
SETTINGS = {"shared_buffers": "512MB", "min_wal_size": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min",
            "max_connections": "200", "listen_addresses": "127.0.0.1", "log_line_prefix": "%m [%a] "}
STARTED = time.monotonic()


class Failed(Exception):
    """A step failed. The text is for people."""


def progress(text):
    seconds = int(time.monotonic() - STARTED)
    print(f"[{seconds // 60:02}:{seconds % 60:02}] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(name, seconds=60):
    """Prints the step's name and ends the run if the step takes longer than `seconds`. Steps do not nest."""
    def expired(*_):
        raise Failed(f"took more than {seconds} s")
    progress(name)
    signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    except Failed as error:
        raise Failed(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001: every error must name its step
        raise Failed(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)


def environment(**more):
    """Returns our environment without any setting of `ledger`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LEDGER_", "OTEL_"))}
    return {**kept, **more}


def program(name):
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if not found:
        raise Failed(f"{name} is missing; install it with: scripts/setup.sh bench")
    return found


def run(*command, **options):
    """Runs a program within the step's time limit and returns its stdout."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))[:300]} ended with {done.returncode}:\n{tail(done.stdout)}{tail(done.stderr)}")
    return done.stdout


def tail(text, lines=15):
    return "\n".join(text.strip().splitlines()[-lines:]) + "\n" if text.strip() else ""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(ready, what, pause=0.02):
    """Waits within the step's time limit."""
    while not (found := ready()):
        time.sleep(pause)
    return found


def get(url, timeout=5):
    """Returns the body of a 200, or None."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None


def answers(url):
    """Returns whether a server answers HTTP at this address."""
    try:
        urllib.request.urlopen(url, timeout=1).read()
    except urllib.error.HTTPError:
        pass
    except (OSError, http.client.HTTPException):
        return False
    return True


class Process:
    """A program in the background, stopped by SIGTERM at the end of the `with`."""

    def __init__(self, command, env, log, ready=None, cwd=None):
        self.command, self.env, self.log, self.ready, self.cwd = [str(c) for c in command], env, log, ready, cwd

    def __enter__(self):
        began = time.monotonic()
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(self.command, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=subprocess.STDOUT, start_new_session=True)
        self.pid = self.child.pid
        try:
            if self.ready:
                wait_for(lambda: self.alive() and self.ready(), self.command[0], 0.005)
        except BaseException:
            self.stop()
            raise
        self.ready_ms = (time.monotonic() - began) * 1000
        return self

    def __exit__(self, *_):
        self.stop()

    def alive(self):
        if self.child.poll() is not None:
            raise Failed(f"{' '.join(self.command)} ended with {self.child.returncode}:\n{tail(self.log.read_text())}")
        return True

    def stop(self):
        # Signal the process group, because some programs start workers.
        for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
                return

    def memory_mib(self, field="VmRSS"):
        """Returns the current (`VmRSS`) or the peak (`VmHWM`) resident memory."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024

    def cpu_seconds(self):
        return cpu_seconds(self.pid)


def cpu_seconds(pid, with_children=False):
    """Returns the user and system time of a process, optionally with its finished and running children."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    ticks = sum(int(fields[n]) for n in ((11, 12, 13, 14) if with_children else (11, 12)))
    seconds = ticks / os.sysconf("SC_CLK_TCK")
    if with_children:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        seconds += sum(cpu_seconds(child) for child in children)
    return seconds


class Postgres:
    """A private cluster, owned by an unprivileged user."""

    def __init__(self, directory, **settings):
        self.directory, self.data, self.port = directory, directory / "data", free_port()
        self.settings = {**SETTINGS, **settings}
        demote = {"user": "postgres"} if os.geteuid() == 0 else {}
        if demote:
            pwd.getpwnam("postgres")
            shutil.chown(directory, "postgres")
        run(program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions", **demote)
        options = [f"-c{k}={v}" for k, v in self.settings.items()] + [f"-cunix_socket_directories={directory}"]
        self.log = directory / "postgres.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([program("postgres"), "-D", str(self.data), f"-p{self.port}", *options],
                                            stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **demote)
        wait_for(lambda: self.answers(), "PostgreSQL")

    def answers(self):
        if self.process.poll() is not None:
            raise Failed(f"PostgreSQL ended:\n{tail(self.log.read_text())}")
        return self.sql("SELECT 1", check=False)

    def url(self, database, scheme="postgres"):
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres", check=True):
        command = [program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XqAt",
                   "-v", "ON_ERROR_STOP=1", database]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if check and done.returncode:
            raise Failed(f"{text.strip()[:200]}: {done.stderr}")
        return done.stdout.strip() if done.returncode == 0 else None

    def create(self, database, template="template0"):
        """Recreates the database and runs a checkpoint, so that no later checkpoint writes its pages."""
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.sql(f"CREATE DATABASE {database} TEMPLATE {template}")
        self.sql("CHECKPOINT")

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid, with_children=True)

    def version(self):
        return self.sql("SHOW server_version").split()[0]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)


class Kafka:
    """The broker of scripts/kafka.sh in its own directory."""

    def __init__(self, directory):
        self.directory = directory
        self.settings = {}

    def up(self):
        lines = run(ROOT / "scripts/kafka.sh", "up", "--data-dir", self.directory).splitlines()
        self.settings = dict(line.split("=", 1) for line in lines)
        self.bootstrap = self.settings["LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS"]

    def down(self):
        run(ROOT / "scripts/kafka.sh", "down", "--data-dir", self.directory)

    def tool(self, name, *arguments):
        """Runs one of Kafka's own tools with the optimising JIT compiler, as for a long run."""
        env = environment(LEDGER_KAFKA_TOOL_JVM="-Xmx512m")
        return run(ROOT / "scripts/kafka.sh", "tool", f"org.apache.kafka.tools.{name}", *arguments, env=env)


class Ledger:
    """A database with our schema, and the roles that use it."""

    def __init__(self, postgres, work, database="ledger", **settings):
        self.postgres, self.work, self.database = postgres, work, database
        self.settings = {"LEDGER_DATABASE__URL": postgres.url(database), **settings}

    def create(self, template=None):
        self.postgres.create(self.database, template or "template0")
        if not template:
            self.command("migrate")

    def sql(self, text):
        return self.postgres.sql(text, self.database)

    def count(self, table):
        return int(self.sql(f"SELECT count(*) FROM {table}"))

    def command(self, *arguments, **settings):
        return run(LEDGER, *arguments, env=environment(**self.settings, LEDGER_ADMIN__LISTEN="off", **settings))

    def role(self, name, *arguments, **settings):
        """Starts a role as a process and waits until its admin listener is ready. `metric` reads one of its counters."""
        admin = f"127.0.0.1:{free_port()}"
        env = environment(**{**self.settings, "LEDGER_ADMIN__LISTEN": admin, **settings})
        process = Process([LEDGER, name, *arguments], env, self.work / f"{name}.log", lambda: get(f"http://{admin}/readyz", 1))
        process.metrics = lambda: get(f"http://{admin}/metrics") or ""
        return process

    def serve(self):
        """Starts the API as a process with its `url` and waits until it answers."""
        address = f"127.0.0.1:{free_port()}"
        url = f"http://{address}"
        env = environment(**self.settings, LEDGER_ADMIN__LISTEN="off", LEDGER_SERVE__LISTEN=address)
        process = Process([LEDGER, "serve"], env, self.work / "serve.log", lambda: answers(url + "/accounts/x"))
        process.url = url
        return process

    def verify(self, *arguments):
        """Fails if `ledger verify` finds a difference."""
        self.sql("VACUUM ANALYZE")
        self.command("verify", *arguments)


def metric(text, name, **labels):
    """Returns the sum of a metric's series with these labels, from Prometheus' text format."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            if line[len(name):len(name) + 1] in ("{", " "):
                total += float(line.rsplit(" ", 1)[1])
    return total


@dataclasses.dataclass
class Goal:
    """The goal for a figure or for a ratio of two figures. `at_most` reverses the comparison."""
    id: str
    what: str
    value: object  # computed from the sheet; None if it was not measured
    goal: float
    unit: str = ""
    at_most: bool = False

    def row(self, sheet):
        value = self.value(sheet)
        if value is None:
            return None
        reached = value <= self.goal if self.at_most else value >= self.goal
        return {"id": self.id, "what": self.what, "value": value, "goal": self.goal, "unit": self.unit,
                "at_most": self.at_most, "reached": reached}


class Sheet:
    """All values of all rounds by name. A name begins with the id of its part and ends with its unit."""

    def __init__(self):
        self.values = {}

    def add(self, name, value):
        self.values.setdefault(name, []).append(value)
        progress(f"    {name}: {number(value)}")

    def median(self, name):
        return statistics.median(self.values[name]) if name in self.values else None

    def best(self, *names):
        """Returns the largest median of the measured figures."""
        return max((m for m in map(self.median, names) if m is not None), default=None)

    def ratio(self, ours, theirs):
        ours, theirs = (self.best(*([n] if isinstance(n, str) else n)) for n in (ours, theirs))
        return ours / theirs if ours is not None and theirs else None


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(head, rows):
    """Returns a Markdown table that is readable as plain text: text on the left, numbers right-aligned."""
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    line = lambda cells: "| " + " | ".join(c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths))) + " |"
    rule = "| " + " | ".join("-" * w if n < 2 else "-" * (w - 1) + ":" for n, w in enumerate(widths)) + " |"
    return "\n".join([line(head), rule, *map(line, rows)])


def report(sheet, goals):
    reached = [row for row in (goal.row(sheet) for goal in goals) if row]
    lines = []
    if reached:
        lines += [table(["id", "goal", "measured", "wanted", "reached"],
                        [[r["id"], r["what"], f"{number(r['value'])} {r['unit']}".strip(),
                          f"{'≤' if r['at_most'] else '≥'} {number(r['goal'])} {r['unit']}".strip(),
                          "yes" if r["reached"] else "**no**"] for r in reached]), ""]
    figures = [[*name.split(" ", 1), number(statistics.median(v)), f"{number(min(v))} … {number(max(v))}" if len(v) > 1 else ""]
               for name, v in sheet.values.items()]
    lines.append(table(["id", "figure", "median", "spread"], figures))
    return reached, "\n".join(lines)


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    return {"cpu": cpu[1].strip() if cpu else "unknown", "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def arguments(description, parts, default, **numbers):
    """Parses the command line of a benchmark: its parts and sizes."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default=",".join(default), metavar="PARTS", help=f"of {', '.join(parts)} (default: %(default)s)")
    for name, (value, text) in numbers.items():
        options.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, metavar="N", help=f"{text} (default: %(default)s)")
    options.add_argument("--keep", action="store_true", help="keep the logs, and say where they are")
    given = options.parse_args()
    given.wanted = [part.strip().upper() for part in given.only.split(",") if part.strip()]
    for part in given.wanted:
        if part not in parts:
            options.error(f"--only {part}: there is only {', '.join(parts)}")
    given.whole = set(given.wanted) >= set(default)
    return given


def main(name, given, measure, goals):
    """Runs `measure(work, sheet)`, prints the tables and stores them in bench/results."""
    def stopped(*_):
        raise Failed("stopped by a signal")
    signal.signal(signal.SIGTERM, stopped)
    work = pathlib.Path(tempfile.mkdtemp(prefix="ledger-bench-"))
    work.chmod(0o755)
    sheet, failure, about = Sheet(), None, {}
    try:
        if not LEDGER.exists():
            raise Failed(f"{LEDGER} is missing; build it with: make release")
        measure(work, sheet, about)
    except Failed as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "stopped"
    finally:
        if given.keep:
            progress(f"logs are in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    rows, text = report(sheet, goals)
    print(text)
    record = {"date": datetime.date.today().isoformat(), "seconds": round(time.monotonic() - STARTED), "machine": machine(), **about,
              "options": {k: v for k, v in vars(given).items() if k not in ("keep", "whole", "only")},
              "goals": rows, "figures": sheet.values, "failure": failure}
    kept = "-".join([record["date"], *([name] if name else []), *([] if given.whole else ["only", *given.wanted])])
    path = BENCH / "results" / f"{kept}.json"
    if sheet.values and not failure:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        print(f"\nwritten to {path.relative_to(ROOT)}")
    if failure:
        print(f"bench: FAILED: {failure}", file=sys.stderr)
    sys.exit(1 if failure else 0)

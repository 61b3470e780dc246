#!/usr/bin/env python3
"""Checks that the deployment files and the documents fit the binary and the tree.

- Renders chart, compose file and Ansible role, and runs `ledger config check` with the environment of each process.
- Compares each command, also in documents and messages, with the binary's own `--help`.
- Compares the make targets, parameters, chart values and build arguments of the pipeline with the files they belong to.
- Looks for each path that a script, the pipeline or a deployment file names.

Image tags, addresses and secrets are not checked: only an installation shows whether they are right.
"""

import argparse
import functools
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

import jinja2
import yaml

CHART = "k8s/ledger"
ROLE = pathlib.Path("ansible/roles/ledger")
PIPELINE = pathlib.Path("teamcity/settings.kts")
# Options of the chart that no values file uses, so that their environment is checked too.
CHART_OPTIONS = ["--set", "broker.kafka.tls=true,broker.kafka.caConfigMap=ca,database.caConfigMap=ca"]
# Each set of variables renders other lines of the role.
ROLE_OPTIONS = [
    {},
    {"ledger_broker_kind": "postgres", "ledger_rules_file": "config/rules.toml"},
    {"ledger_migrate_database_url": "postgres://owner@db/ledger", "ledger_migrate_grants": "ledger"},
]
SAMPLE_URL = "postgres://ledger:secret@db:5432/ledger?sslmode=verify-full"
PROBES = {"/livez", "/readyz", "/metrics"}
FOLDERS = "scripts|config|k8s|ansible|teamcity|bench|docs|tests|src|migrations|\\.ci"
PATH = re.compile(rf"(?<![\w/.$}}%-])(?:\./)?((?:{FOLDERS})/[\w./-]*\w)(?![\w*{{$(<%])")
# Files that a command creates.
CREATED = re.compile(r"^bench/results/")
CODE = re.compile(r"`(ledger [a-z][^`\n]*)`")
# The name of a session, not a command.
NAMES = {"ledger pooler check"}


@dataclass
class Process:
    """A process as a deployment file starts it."""

    origin: str
    arguments: list[str]
    environment: dict[str, str]
    ports: set[str] = field(default_factory=set)
    probes: set[str] = field(default_factory=set)


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)


def lines_of(result: subprocess.CompletedProcess) -> str:
    return " ".join((result.stderr or result.stdout).split())


def read(path) -> str:
    return pathlib.Path(path).read_text(encoding="utf-8")


def tree(*patterns: str) -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns).stdout
    return [file for file in listed.splitlines() if pathlib.Path(file).is_file()]


def continued(text: str) -> str:
    """Joins lines that end with a backslash."""
    return re.sub(r"\\\n\s*", " ", text)


class Binary:
    """The binary, asked for its commands and flags."""

    def __init__(self, path: str):
        self.path = str(pathlib.Path(path).resolve())

    @functools.cache
    def help(self, *commands: str) -> tuple[set[str], set[str]]:
        """Returns the subcommands and the flags of a command."""
        shown = run(self.path, *commands, "--help")
        if shown.returncode:
            raise ValueError(lines_of(shown))
        # The overview of all commands has groups in place of one list.
        groups = re.split(r"^(\w+):\n", shown.stdout, flags=re.MULTILINE)
        titled = dict(zip(groups[1::2], groups[2::2], strict=True))
        listed = titled.values() if not commands else [titled.get("Commands", "")]
        subcommands = {name for text in listed for name in re.findall(r"^  ([a-z][a-z-]*)(?:\s|$)", text, re.MULTILINE)}
        return subcommands - {"help", "ledger"}, set(re.findall(r"(?<!\w)--?[a-zA-Z][a-z-]*", shown.stdout))

    def problem_of_words(self, words: list[str]) -> str | None:
        """Compares words after `ledger` with the help: the subcommands and flags, not the values."""
        commands: list[str] = []
        for word in words:
            subcommands, _ = self.help(*commands)
            if word in subcommands:
                commands.append(word)
            elif subcommands and not word.startswith("-"):
                return f"there is no command {' '.join(['ledger', *commands, word])}"
            else:
                break
        _, flags = self.help(*commands)
        for word in words[len(commands) :]:
            flag = word.split("=")[0]
            if re.fullmatch(r"--?[a-zA-Z][a-z-]*", flag) and flag not in flags:
                return f"{' '.join(['ledger', *commands])} has no flag {flag}"
        return None

    def problems(self, process: Process) -> list[str]:
        environment = {"PATH": "/usr/bin:/bin", **process.environment}
        checked = run(self.path, "config", "check", env=environment)
        helped = run(self.path, *process.arguments, "--help", env=environment)
        found = [lines_of(result) for result in (checked, helped) if result.returncode]
        if not found and (problem := self.problem_of_words(process.arguments)):
            found.append(problem)
        if rules := environment.get("LEDGER_RISK__RULES"):
            checked = run(self.path, "risk", "check", rules)
            found += [lines_of(checked)] if checked.returncode else []
        listens = {value.rsplit(":", 1)[-1] for name, value in environment.items() if name.endswith("__LISTEN")}
        found += [f"nothing listens on port {port}" for port in sorted(process.ports - listens)]
        found += [f"no listener answers {path}" for path in sorted(process.probes - PROBES)]
        return [f"{process.origin}: {problem}" for problem in found]


def image_environment() -> dict[str, str]:
    instructions = re.findall(r"^ENV (.*)$", continued(read("Containerfile")), re.MULTILINE)
    return dict(pair.split("=", 1) for line in instructions for pair in shlex.split(line))


def here(environment: dict[str, str]) -> dict[str, str]:
    """Puts the rule file of the tree in place of the one in the image."""
    return {name: value.replace("/etc/ledger/rules.toml", "config/rules.toml") for name, value in environment.items()}


def interpolated(text: str) -> str:
    return re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", text)


def compose() -> list[Process]:
    services = yaml.safe_load(interpolated(read("compose.yaml")))["services"]
    found = []
    for name, service in services.items():
        if not service["image"].startswith("ledger:"):
            continue
        environment = here({**image_environment(), **{key: str(value) for key, value in service["environment"].items()}})
        ports = {port.rsplit(":", 1)[-1] for port in service.get("ports", [])}
        probe = [word for word in service.get("healthcheck", {}).get("test", [])[1:] if word != "/usr/local/bin/ledger"]
        origin = f"compose.yaml: {name}"
        found.append(Process(origin, service["command"], environment, ports))
        if probe:
            found.append(Process(f"{origin}: health check", probe, environment))
    return found


def scraped_services() -> list[str]:
    """Compares the targets of Prometheus with the services of the compose file."""
    services = yaml.safe_load(interpolated(read("compose.yaml")))["services"]
    admin = image_environment()["LEDGER_ADMIN__LISTEN"].rsplit(":", 1)[-1]
    found = []
    for job in yaml.safe_load(read("config/prometheus/prometheus.yml"))["scrape_configs"]:
        for lookup in job.get("dns_sd_configs", []):
            found += [f"compose.yaml has no service {name}" for name in lookup["names"] if name not in services]
            if str(lookup["port"]) != admin:
                found.append(f"{job['job_name']}: the admin listener of the image has port {admin}, not {lookup['port']}")
    return [f"config/prometheus/prometheus.yml: {problem}" for problem in found]


class Chart:
    """The manifests of the chart with some values."""

    def __init__(self, helm: str, origin: str, options: list[str], work: pathlib.Path):
        self.origin = origin
        self.work = pathlib.Path(tempfile.mkdtemp(dir=work))
        rendered = run(helm, "template", "ledger", CHART, "--kube-version", "1.32.0", *options)
        if rendered.returncode:
            raise ValueError(f"{origin}: {lines_of(rendered)}")
        self.objects = [item for item in yaml.safe_load_all(rendered.stdout) if item]

    def file_of(self, kind: str, name: str, key: str) -> pathlib.Path:
        """Writes a mounted file. Secrets and certificates are not part of the chart, so they get a sample."""
        stored = [item for item in self.objects if item["kind"] == kind and item["metadata"]["name"] == name]
        text = stored[0]["data"].get(key) if stored else self.secret(key)
        path = self.work / f"{name}-{key}"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        return path

    @staticmethod
    def secret(key: str) -> str:
        return SAMPLE_URL if "url" in key else "secret"

    def localised(self, value: str, pod: dict, container: dict) -> str:
        """Replaces the path of a mounted file by that of its copy."""
        for mount in container.get("volumeMounts", []):
            if value.startswith(mount["mountPath"] + "/"):
                volume = next((item for item in pod["volumes"] if item["name"] == mount["name"]), {})
                for kind, source in (("ConfigMap", volume.get("configMap")), ("Secret", volume.get("secret"))):
                    if source:
                        name = source.get("name") or source.get("secretName")
                        return str(self.file_of(kind, name, value.removeprefix(mount["mountPath"] + "/")))
        return value

    def processes(self) -> list[Process]:
        found = []
        for item in self.objects:
            for pod in pods(item):
                for container in pod.get("initContainers", []) + pod["containers"]:
                    if "ledger" in container["image"]:
                        found.append(self.process(item, pod, container))
        return found

    def process(self, item: dict, pod: dict, container: dict) -> Process:
        environment = image_environment()
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            value = self.secret(reference["key"]) if reference else variable.get("value", "")
            environment[variable["name"]] = self.localised(value, pod, container)
        ports = {str(port["containerPort"]) for port in container.get("ports", [])}
        probes = {
            container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe in container
        }
        origin = f"{self.origin}: {item['kind']} {item['metadata']['name']}: {container['name']}"
        return Process(origin, container["args"], here(environment), ports, probes)


def pods(item: dict) -> list[dict]:
    spec = item.get("spec", {})
    template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
    return [template["spec"]] if template and "containers" in template.get("spec", {}) else []


def chart(helm: str, work: pathlib.Path) -> list[Process]:
    files = sorted(pathlib.Path(CHART).glob("values*.yaml"))
    variants = [(str(file), ["--values", str(file)]) for file in files]
    variants.append((f"{CHART} {CHART_OPTIONS[1]}", [*CHART_OPTIONS, "--set-file", "rules=config/rules.toml"]))
    return [process for origin, options in variants for process in Chart(helm, origin, options, work).processes()]


class Role:
    """The files of the Ansible role as it renders them, with some variables."""

    def __init__(self, options: dict, work: pathlib.Path):
        self.work = pathlib.Path(tempfile.mkdtemp(dir=work))
        defaults = yaml.safe_load(read(ROLE / "defaults/main.yml"))
        installed_as = {service: "0" for service in defaults["ledger_services"]}
        self.variables = {"ledger_database_url": SAMPLE_URL, "ledger_installed_as": installed_as, **defaults, **options}
        loader = jinja2.FileSystemLoader(ROLE / "templates")
        self.templates = jinja2.Environment(
            loader=loader, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False
        )
        self.write("ledger.toml", self.variables["ledger_config"])
        self.write("database-url", SAMPLE_URL)
        self.write("rules.toml", read("config/rules.toml"))
        for name in ("ledger.env", "migrate.env"):
            self.write(name, self.rendered(f"{name}.j2"))

    def write(self, name: str, text: str):
        (self.work / name).write_text(text, encoding="utf-8")

    def rendered(self, template: str, **variables) -> str:
        text = self.templates.get_template(template).render(ansible_managed="", **self.variables, **variables)
        return text.replace("/etc/ledger", str(self.work))

    def processes(self) -> list[Process]:
        units = {f"ledger-{service}": ("ledger-role.service.j2", service) for service in self.variables["ledger_services"]}
        units |= {name: (f"{name}.service.j2", "") for name in ("ledger-migrate", "ledger-aggregate")}
        return [self.process(name, self.rendered(template, item=service)) for name, (template, service) in units.items()]

    def process(self, name: str, unit: str) -> Process:
        environment: dict[str, str] = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
        for file in re.findall(r"^EnvironmentFile=(\S+)$", unit, re.MULTILINE):
            environment |= dict(re.findall(r"^(\w+)=(.*)$", read(file), re.MULTILINE))
        command = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1])
        return Process(f"{ROLE}: {name}", command[1:], environment)


def role_variables() -> list[str]:
    """Compares the variables that the role and the inventory use with the ones that the role declares."""
    declared = set(yaml.safe_load(read(ROLE / "meta/argument_specs.yml"))["argument_specs"]["main"]["options"])
    found = []
    set_inside = r"(?:register: (ledger_\w+))|^ *(ledger_\w+):"
    inside = [read(file) for file in tree(f"{ROLE}/tasks/*.yml", f"{ROLE}/vars/*.yml")]
    known = {name for text in inside for pair in re.findall(set_inside, text, re.MULTILINE) for name in pair if name}
    for file in tree("ansible/*.yml", "ansible/**/*.yml", "ansible/**/*.j2"):
        text = read(file)
        local = set() if file.endswith("inventory.example.yml") else known
        used = set(re.findall(r"\bledger_[a-z_]+\b", re.sub(r"#.*|\{#.*?#\}", "", text)))
        found += [f"{file}: {name}: {ROLE}/meta/argument_specs.yml does not have it" for name in sorted(used - declared - local)]
    defaults = set(yaml.safe_load(read(ROLE / "defaults/main.yml")))
    return found + [f"{ROLE}/defaults/main.yml: {name} is not declared" for name in sorted(defaults - declared)]


class Pipeline:
    """The commands of the pipeline and of the CI."""

    def __init__(self, helm: str | None):
        self.helm = helm
        self.makefile = read("Makefile")
        self.targets = set(re.findall(r"^([a-z-]+):", self.makefile, re.MULTILINE))
        self.settings = read(PIPELINE).replace("${'$'}", "$")

    def problems(self) -> list[str]:
        stages = re.findall(r'commands\s*=\s*(?:"""(.*?)"""|"([^"]*)")', self.settings, re.DOTALL)
        scripts = [(str(PIPELINE), first or second) for first, second in stages]
        scripts.append((".ci/run", read(".ci/run")))
        found = [f"{PIPELINE}: there are no commands"] if not stages else []
        for origin, script in scripts:
            for line in continued(script).splitlines():
                found += [f"{origin}: {problem}" for problem in self.line(line)]
        return found + self.parameters() + self.artifacts()

    def line(self, line: str) -> list[str]:
        words = shlex.split(line, comments=True)
        check = {"make": self.make, "helm": self.helm_command, "docker": self.docker, "cargo": self.cargo}
        return check[words[0]](words[1:]) if words and words[0] in check else []

    def make(self, words: list[str]) -> list[str]:
        settings = [word.split("=")[0] for word in words if "=" in word]
        targets = [word for word in words if "=" not in word]
        found = [f"there is no target {target}" for target in targets if target not in self.targets]
        return found + [f"no target reads {name}" for name in settings if f"$({name})" not in self.makefile]

    def cargo(self, words: list[str]) -> list[str]:
        shown = run("cargo", *words, "-h")
        return [lines_of(shown)] if shown.returncode else []

    def docker(self, words: list[str]) -> list[str]:
        known = set(re.findall(r"^ARG (\w+)", read("Containerfile"), re.MULTILINE))
        passed = [value.split("=")[0] for flag, value in zip(words, words[1:], strict=False) if flag == "--build-arg"]
        files = [value for flag, value in zip(words, words[1:], strict=False) if flag == "--file"]
        found = [f"Containerfile has no argument {name}" for name in passed if name not in known]
        return found + [f"there is no {file}" for file in files if not pathlib.Path(file).is_file()]

    def helm_command(self, words: list[str]) -> list[str]:
        """Asks helm whether it knows the flags, then renders the chart with the values that the command sets."""
        if not self.helm:
            return []
        shown = run(self.helm, *words, "--help")
        if shown.returncode:
            return [lines_of(shown)]
        if words[0] not in ("upgrade", "install"):
            return []
        kept = [words[1], words[2], "--kube-version", "1.32.0"]
        for flag, value in zip(words, words[1:], strict=False):
            if flag in ("--values", "--set", "--set-file"):
                value = re.sub(r"%[\w.]+%", "sample", value)
                kept += [flag, re.sub(r"(image\.digest)=.*", r"\1=sha256:" + "0" * 64, value)]
        rendered = run(self.helm, "template", *kept)
        return [lines_of(rendered)] if rendered.returncode else []

    def parameters(self) -> list[str]:
        declared = set(re.findall(r'(?:text|param)\("([\w.]+)"', self.settings))
        used = set(re.findall(r"%([\w.]+)%", self.settings))
        known = ("build.", "teamcity.", "system.")
        return [f"{PIPELINE}: no parameter is named {name}" for name in sorted(used - declared) if not name.startswith(known)]

    def artifacts(self) -> list[str]:
        named = set(re.findall(r'artifactRules = "([^"]+)"', self.settings))
        return [f"{PIPELINE}: no command writes {name}" for name in sorted(named) if f"> {name}" not in self.settings]


def paths() -> list[str]:
    files = tree(
        "Makefile", ".ci/run", "Containerfile", "compose.yaml", "scripts/*.sh", "scripts/*.py", str(PIPELINE), "ansible/**.yml", "k8s/**.yaml"
    )
    found = []
    for file in files:
        folder = pathlib.Path(file).parent
        for name in sorted(set(PATH.findall(read(file)))):
            if not CREATED.match(name) and not any((start / name).exists() for start in (pathlib.Path(), folder)):
                found.append(f"{file}: there is no {name}")
    copied = [line.split()[1:-1] for line in re.findall(r"^COPY .*", read("Containerfile"), re.MULTILINE) if "--from" not in line]
    found += [f"Containerfile: there is no {name}" for names in copied for name in names if not pathlib.Path(name).exists()]
    return found


def documented_commands(binary: Binary) -> list[str]:
    """Compares the commands in documents, messages and alerts with the help."""
    found = []
    for file in tree("*.md", "*.yml", "*.yaml", "*.toml", "*.tpl", "src/*.rs", "src/**/*.rs"):
        for command in sorted(set(CODE.findall(read(file))) - NAMES):
            words = re.split(r"\s+[|>#]\s*|\s*…|;", command)[0].replace("\\", "").split()[1:]
            if problem := binary.problem_of_words([word.strip("[]{}\"'") for word in words]):
                found.append(f"{file}: `{command}`: {problem}")
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--ledger", required=True, help="the binary")
    arguments.add_argument("--helm", help="Helm's binary; without it the chart is not rendered")
    options = arguments.parse_args()
    binary = Binary(options.ledger)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        try:
            processes = [Process("Containerfile", ["serve"], here(image_environment()))]
            processes += compose() + (chart(options.helm, work) if options.helm else [])
            processes += [process for variables in ROLE_OPTIONS for process in Role(variables, work).processes()]
            found = [problem for process in processes for problem in binary.problems(process)]
        except (ValueError, jinja2.UndefinedError) as error:
            processes, found = [], [str(error)]
    found += scraped_services() + role_variables() + Pipeline(options.helm).problems() + paths() + documented_commands(binary)
    print("\n".join(found) or f"{len(processes)} processes fit the binary", file=sys.stderr)
    return 1 if found else 0


sys.exit(main())

#!/usr/bin/env python3
"""Checks the links between the given files: the target file must exist, and its heading too.

In Markdown it checks every link. In YAML it checks the runbooks of alerts, which are paths from the top of the
repository. It does not follow links to other sites, because their outages must not fail the build.
"""

import pathlib
import re
import sys

FENCE = re.compile(r"^( {0,3})(```|~~~).*?^\1\2`*~*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
RUNBOOK = re.compile(r"^\s*runbook_url:\s*(\S+)", re.MULTILINE)
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub makes from the headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        name, number = anchor, 0
        while name in found:
            number += 1
            name = f"{anchor}-{number}"
        found.add(name)
    return found


def links(file: pathlib.Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":
        return [str(pathlib.Path(*[".."] * (len(file.parts) - 1), link)) for link in RUNBOOK.findall(text)]
    text = CODE.sub("", FENCE.sub("", text))
    return LINK.findall(text) + REFERENCE.findall(text)


def broken(file: pathlib.Path) -> list[str]:
    problems = []
    for link in links(file):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if not target.exists():
            problems.append(f"{file}: {link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            problems.append(f"{file}: {link}: no such heading")
    return problems


def main() -> int:
    problems = [problem for name in sys.argv[1:] for problem in broken(pathlib.Path(name))]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


sys.exit(main())

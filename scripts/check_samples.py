#!/usr/bin/env python3
"""Runs the code samples of docs/api.md against a running API: scripts/check_samples.py URL

Each sample must do what the page says. The shell lines end with the balance that their comment names, the retries in
both languages post once and return the same answer twice, and the paging samples return every row once.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import uuid

URL = sys.argv[1].rstrip("/")
PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "api.md").read_text()
WRITTEN = "http://127.0.0.1:8080"


def samples(language):
    """Returns the code blocks of one language, with the URL of the running API."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [text.replace(WRITTEN, URL) for text in found]


def transaction(account):
    return {"account_id": account, "direction": "credit", "amount": "1.00", "currency": "EUR"}


def python():
    scope = {}
    for text in samples("python"):
        exec(text, scope)  # this check executes the code of the page
    account, key = f"py-{uuid.uuid4()}", str(uuid.uuid4())
    first = scope["post"](transaction(account), key)
    assert scope["post"](transaction(account), key) == first, "the same answer twice"
    try:
        scope["post"]({**transaction(account), "amount": "2.00"}, key)
        raise SystemExit("another request under the same key must be an error")
    except ValueError as problem:
        assert "idempotency-key-reused" in str(problem), problem
    for number in range(250):
        scope["post"](transaction(account), f"{key}-{number}")
    rows = [row["account_seq"] for row in scope["history"](account)]
    assert rows == list(range(251, 0, -1)), rows
    assert len(list(scope["history"](account, direction="debit"))) == 0


def javascript():
    node = shutil.which("node")
    if node is None:
        print("check_samples: SKIPPED the JavaScript sample: no node here", file=sys.stderr)
        return
    (sample,) = samples("js")
    account, key = f"js-{uuid.uuid4()}", str(uuid.uuid4())
    body = f'{{account_id: "{account}", direction: "credit", amount: "1.00", currency: "EUR"}}'
    script = f"""{sample}
(async () => {{
  const first = await post({body}, "{key}");
  const second = await post({body}, "{key}");
  if (JSON.stringify(first) !== JSON.stringify(second)) throw new Error("two answers");
  await post({{...{body}, amount: "2.00"}}, "{key}").then(
    () => {{ throw new Error("taken"); }},
    (problem) => {{ if (!String(problem).includes("idempotency-key-reused")) throw problem; }});
}})().catch((error) => {{ console.error(error); process.exit(1); }});
"""
    subprocess.run([node, "-e", script], check=True, timeout=60)


def shell():
    start = next(text for text in samples("sh") if "api=" in text)
    account = f"sh-{uuid.uuid4()}"
    start = start.replace("acct-1", account).replace("curl ", "curl --silent --show-error --fail ")
    done = subprocess.run(["sh", "-ec", start], check=True, timeout=60, capture_output=True, text=True)
    assert '"balance":"70.00"' in done.stdout, done.stdout
    assert done.stdout.count('"reverses"') == 0 and done.stdout.count('"account_seq":2') >= 2, done.stdout


for check in (shell, python, javascript):
    check()
    print(f"check_samples: the {check.__name__} of docs/api.md does what it says")

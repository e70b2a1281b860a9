"""The shell examples of docs/http-api.md, run as they stand against a real server."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.calling import PATIENCE, ROOT, server_process

PAGE: Final = ROOT / "docs" / "http-api.md"
_EXAMPLE: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_work(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """From the first to the last, in one shell that stops at the first refusal."""
    first, *examples = _EXAMPLE.findall(PAGE.read_text())
    assert "lifecycle serve" in first  # how to start it: here it is started already
    assert len(examples) >= 5
    with server_process(migrated_sqlite_url, tmp_path) as server:
        script = "\n".join(["set -euo pipefail", *examples]).replace("http://127.0.0.1:8470", server.url)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    for said in ('"version":3', '"state":"ended"', '"epoch":1', "event: transition", "only one of these", '"total":1'):
        assert said in done.stdout

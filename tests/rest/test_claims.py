"""One-time keys claimed from two real processes at once: the benchmark at a small size.

Its full size, 100,000 keys, is in docs/performance.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import claims
from synapse.storage.pool import PoolSettings

ROOT = Path(__file__).parents[2]


def test_each_key_goes_out_once_whichever_process_is_asked(database_settings: PoolSettings) -> None:
    database = {"name": "psycopg2", "args": {**database_settings.connection, "cp_min": 1, "cp_max": 5}}
    size = ["--devices", "5", "--keys", "60", "--claimers", "12", "--database", json.dumps(database)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.claims", *size], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == 300


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda given: given.pop(), "1 keys were lost"),
        (lambda given: given.append(given[0]), "1 keys were given out more than once"),
        (lambda given: given.append(("0", *claims.key_of(0, 7))), "1 keys were never uploaded"),
        (lambda given: given.insert(0, (*given.pop(0)[:2], {"key": "x"})), "1 keys are not as they were"),
    ],
)
def test_what_the_benchmark_finds(change: object, problem: str) -> None:
    given = [(str(device), *claims.key_of(device, number)) for device in range(2) for number in range(3)]
    claims.check(given, 2, 3)
    change(given)  # type: ignore[operator]
    with pytest.raises(SystemExit, match=problem):
        claims.check(given, 2, 3)

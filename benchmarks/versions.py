"""Which versions of Ray and torch raylr works with: an environment for each, real runs and tests there, equal bits.

    python -m benchmarks.versions --environments DIR --write

Makes environments under DIR with uv, which links files from its cache, and runs there: a run of two workers, the same with a
worker killed and as a submitted job, a population of two trials, and a set of tests. Under one torch every Ray must give the
same weights: the command ends with exit code 1 where they differ, or where a test fails. By hand, half an hour on two cores.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Row, Store, parser, report, table

TESTS = (
    "tests/running/test_features.py",
    "tests/running/test_population.py",
    "tests/cluster/test_run.py::test_in_restart_mode_all_start_again_from_the_checkpoint",
    "tests/cluster/test_run.py::test_a_request_for_what_this_ray_lacks_is_refused_before_anything_starts",
)
TEST_PACKAGES = ("pytest>=8", "pytest-timeout", "hypothesis", "moto[server]")
RUN = (
    "--data.source=synthetic", "--data.train-examples=1000", "--data.test-examples=200", "--epochs=6", "--precision=fp32",
    "--batch.global-size=64", "--batch.micro-size=16", "--eval.micro-size=50", "--checkpoint.every=1ep", "--fresh",
)  # fmt: skip
POPULATION = ("--trials=2", "--workers=1", "--interval=2ep")
TIMEOUT_S = 300.0
HASHES = ("train", "killed", "submitted", "explore")


def main() -> int:
    arguments = _arguments()
    kept, newest = Store(arguments.out, "versions"), arguments.ray[-1]
    pairs = [(ray, arguments.newest_torch) for ray in arguments.ray] + [(newest, torch) for torch in arguments.torch]
    rows = [
        kept.measured({"ray": ray, "torch": torch, "python": arguments.python}, _measured, ray, torch, arguments)
        for ray, torch in pairs
    ]
    report("versions", _text(rows), arguments.write)
    return 0 if all(row["tests_passed"] for row in rows) and not _different(rows) else 1


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument(
        "--environments", type=Path, required=True, help="a folder for the environments, which stay there"
    )
    made.add_argument("--ray", nargs="+", default=["2.53", "2.56", version("ray")], help="under this torch")
    made.add_argument("--torch", nargs="*", default=["2.9"], help="under the last Ray")
    made.add_argument("--newest-torch", default=version("torch").partition("+")[0], help="for the Rays")
    made.add_argument("--python", default=sys.executable, help="interpreter or version")
    made.add_argument("--uv", default=shutil.which("uv") or "uv", help="the program uv")
    return made.parse_args()


def _measured(ray: str, torch: str, arguments: argparse.Namespace) -> Row:
    """What an environment of these versions can do."""
    start = time.monotonic()
    home = (arguments.environments / f"ray{ray}-torch{torch}").absolute()
    python = _environment(home, ray, torch, arguments)
    place = home / "runs"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    trained = _run(python, place, "train", "train")
    killed = _killed(python, place)
    return {
        **{f"{name}_version": trained["versions"][name] for name in ("ray", "torch")},
        "python_version": _said(python, "import platform; print(platform.python_version())"),
        "lacks": _said(python, "from raylr.running.ray_internals.features import features as f; print(f().summary())"),
        "train": trained["weights_sha256"],
        "killed": killed["weights_sha256"],
        "restarts": killed["restarts"],
        "submitted": _submitted(python, place),
        "explore": _run(python, place, "explore", "explore", *POPULATION)["weights_sha256"],
        **_tests(python),
        "minutes": (time.monotonic() - start) / 60,
    }


def _environment(home: Path, ray: str, torch: str, arguments: argparse.Namespace) -> Path:
    """The interpreter of an environment with these versions; made now where it is not there."""
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([arguments.uv, "venv", "-q", "--python", arguments.python, home], check=True)
    wanted = [f"ray[default,train,tune]=={_any_patch(ray)}", f"torch=={_any_patch(torch)}"]
    install = [
        arguments.uv,
        "pip",
        "install",
        "-q",
        "--python",
        python,
        "--compile-bytecode",
        "-e",
        f"{ROOT}[lars,optuna,pb2]",
    ]
    subprocess.run([*install, *wanted, *TEST_PACKAGES], check=True)
    return python


def _any_patch(number: str) -> str:
    """`2.53.*` of 2.53; a whole version is that one."""
    return number if number.count(".") > 1 else f"{number}.*"


def _start(python: Path, place: Path, verb: str, name: str, *flags: str) -> subprocess.Popen[str]:
    given = [
        *RUN,
        f"--data.cache-dir={place / 'cache'}",
        f"--storage={place}",
        f"--name={name}",
        *(flags or ("--workers=2",)),
    ]
    return subprocess.Popen(
        [python, "-m", "raylr", verb, *given], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=_variables(python),
    )  # fmt: skip


def _run(python: Path, place: Path, verb: str, name: str, *flags: str) -> Row:
    return _ended(_start(python, place, verb, name, *flags))


def _ended(process: subprocess.Popen[str]) -> Row:
    """The JSON object that the command prints last. The benchmark ends where it fails."""
    try:
        told, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    if process.returncode:
        sys.exit(f"{process.args}\nended with {process.returncode}:\n{told[-3000:]}")
    row: Row = json.loads(told.splitlines()[-1])
    return row


def _killed(python: Path, place: Path) -> Row:
    """The result of the run with a worker killed once there is a checkpoint."""
    process, folder = _start(python, place, "train", "killed"), place / "killed"
    deadline = time.monotonic() + TIMEOUT_S
    while not list((folder / "checkpoints").glob("*.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            break  # what it said tells why
        time.sleep(0.05)
    else:
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        os.kill(next(row["members"] for row in events if "members" in row)[1]["pid"], signal.SIGKILL)
    return _ended(process)


def _submitted(python: Path, place: Path) -> str:
    """The weights' hash of the run as a job on a local cluster of one node."""
    name = f"versions-{os.getpid()}"
    cluster = [python, "-m", "raylr", "cluster"]
    up = _output([*cluster, "up", f"--name={name}", "--nodes=1"], python)
    try:
        line = next(line.partition("submit:")[2] for line in up.splitlines() if line.startswith("submit:"))
        variables = dict(word.split("=", 1) for word in shlex.split(line) if re.match(r"RAY_\w+=", word))
        address = next(line.split()[1] for line in up.splitlines() if line.startswith("dashboard:"))
        run = [*RUN, f"--data.cache-dir={place / 'cache'}", f"--storage={place}", "--name=submitted", "--workers=2"]
        _output([python, "-m", "raylr", "submit", f"--address={address}", "--", *run], python, variables)
    finally:
        _output([*cluster, "down", f"--name={name}"], python)
    found: str = json.loads((place / "submitted" / "result.json").read_text())["weights_sha256"]
    return found


def _tests(python: Path) -> Row:
    """Whether the chosen tests pass, and how many did."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=_variables(python), text=True, capture_output=True)
    if done.returncode:
        print(done.stdout[-5000:], file=sys.stderr)
    count = re.search(r"(\d+ failed, )?(\d+ passed)(, \d+ skipped)?", done.stdout)
    return {"tests_passed": done.returncode == 0, "tests": count[0] if count else "none ran"}


def _said(python: Path, program: str) -> str:
    return _output([python, "-c", program], python).strip()


def _output(command: Sequence[str | Path], python: Path, more: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**_variables(python), **(more or {})}, text=True, capture_output=True, timeout=TIMEOUT_S
    )
    if done.returncode:
        sys.exit(f"{command}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


def _variables(python: Path) -> dict[str, str]:
    kept: dict[str, Any] = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "PATH": f"{python.parent}:{os.environ['PATH']}"}


def _different(rows: Sequence[Row]) -> list[str]:
    """The runs whose weights are not the same on every Ray under one torch, or not those of the undisturbed run."""
    found = []
    for torch in dict.fromkeys(row["torch_version"] for row in rows):
        same = [row for row in rows if row["torch_version"] == torch]
        hashes = {name: {row[name] for row in same} for name in HASHES}
        hashes["train"] |= hashes["killed"] | hashes["submitted"]
        found += [f"{name} under torch {torch}" for name, values in hashes.items() if len(values) > 1]
    return found


def _text(rows: Sequence[Row]) -> str:
    headings = ("Ray", "torch", "weights of a run", "of a population", "a killed worker", "tests")
    cells = [
        (
            row["ray_version"],
            row["torch_version"].partition("+")[0],
            row["train"][:12],
            row["explore"][:12],
            "restarts all" if row["restarts"] else "is replaced",
            row["tests"],
        )
        for row in rows
    ]
    lacks = "\n".join(
        f"- Ray {ray}: {text}." for ray, text in {row["ray_version"]: row["lacks"] for row in rows}.items()
    )
    different = _different(rows)
    equal = "A run ends with its weights undisturbed, with a worker killed, and as a submitted job."
    verdict = f"Not equal: {', '.join(different)}." if different else equal
    minutes = sum(row["minutes"] for row in rows)
    pythons = ", ".join(dict.fromkeys(row["python_version"] for row in rows))
    where = f"Python {pythons}; {os.cpu_count()} cores; {minutes:.0f} minutes with the environments."
    return f"{table(headings, cells)}\n\n{verdict} What is done without (and the version that has it):\n\n{lacks}\n\n{where}"


if __name__ == "__main__":
    sys.exit(main())

"""Which processes a cluster ends: those that it knows by mark, by ancestor, or by Ray's title and an open file."""

import subprocess
from pathlib import Path

import pytest

from raylr.running.local_cluster.processes import MARK, end

LINE = 'exec -a "$0" sleep 300 {file}< "$1"'


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name / "agent.log" for name in ("cluster", "cluster-2")]
    for path in found:
        path.parent.mkdir()
        path.touch()
    return found


def test_an_agent_whose_title_has_overwritten_the_mark_is_ended_and_nobody_else(files: list[Path]) -> None:
    ours, others = files
    marks = {"marked": f"{ours.parent.name}/0", "of another": f"{others.parent.name}/0"}
    named = [
        ("ray::DashboardAgent", ours, ""),
        ("ray::DashboardAgent", others, ""),
        ("tail", ours, ""),
        ("marked", others, marks["marked"]),
        ("other", others, marks["of another"]),
    ]
    processes = [
        subprocess.Popen(["bash", "-c", LINE, title, str(file)], env={"PATH": "/usr/bin:/bin", MARK: mark})
        for title, file, mark in named
    ]
    try:
        for process, (title, _, _) in zip(processes, named, strict=True):
            line = Path(f"/proc/{process.pid}/cmdline")
            while not line.read_bytes().startswith(title.encode()):
                assert process.poll() is None
        end(ours.parent.name, ours.parent)
        assert [process.poll() is not None for process in processes] == [True, False, False, True, False]
    finally:
        for process in processes:
            process.kill()
            process.wait()

"""SLURM's commands on one machine, for tests: each fake host is a node of Ray on loopback.

`srun` starts its command once for each host, with the variables that SLURM documents for a step, and passes SIGTERM on;
`scontrol show hostnames` lists the hosts, `scontrol requeue` notes its job.
"""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

SRUN = """#!{python}
import os, signal, subprocess, sys
options, command = dict(), []
for number, word in enumerate(sys.argv[1:], start=1):
    if not word.startswith("--"):
        command = sys.argv[number:]
        break
    name, _, value = word.partition("=")
    options[name] = value
hosts = os.environ["FAKE_HOSTS"].split()
chosen = options["--nodelist"].split(",") if "--nodelist" in options else hosts
chosen = [host for host in chosen if host not in options.get("--exclude", "").split(",")]
assert len(chosen) == int(options["--nodes"]) == int(options["--ntasks"]), (chosen, options)
assert options["--ntasks-per-node"] == "1", options
started, over = [], []
signal.signal(signal.SIGTERM, lambda *_: [over.append(1), *[one.terminate() for one in started]])
for node, host in enumerate(chosen):
    step = {{"SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "SLURM_CPUS_PER_TASK": options["--cpus-per-task"]}}
    started.append(subprocess.Popen(command, env=os.environ | step))
for one in started if over else []:
    one.terminate()
sys.exit(max(one.wait() for one in started))
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") [[ $3 == "$SLURM_JOB_NODELIST" ]] && printf '%s\\n' $FAKE_HOSTS ;;
    requeue*) echo "$2" >> "$FAKE_SLURM/requeued"; exit "${FAKE_REQUEUE:-0}" ;;
    *) exit 1 ;;
esac
"""


class Allocation:
    """A job of SLURM with so many nodes, each start of which is one call of `start`."""

    def __init__(self, folder: Path, hosts: list[str], job: int) -> None:
        self.folder, self.hosts, self.job = folder, hosts, job
        for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def start(self, script: Path, *arguments: str, restarts: int = 0, **more: str) -> subprocess.Popen[str]:
        """Run the batch script as slurmd does on the first node, in a session of its own."""
        foreign = ("RAY_", "SLURM_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{env['PATH']}",
            "SLURM_JOB_ID": str(self.job),
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_NUM_NODES": str(len(self.hosts)),
            "SLURM_CPUS_PER_TASK": "1",
            "FAKE_HOSTS": " ".join(self.hosts),
            "FAKE_SLURM": str(self.folder),
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }
        return subprocess.Popen(
            ["bash", str(script), *arguments], cwd=self.folder, env=env | more, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def requeued(self) -> list[str]:
        """The jobs that were put back into the queue, in their order."""
        path = self.folder / "requeued"
        return path.read_text().split() if path.exists() else []

    @staticmethod
    def end(process: subprocess.Popen[str]) -> None:
        """Kill what is left of a start."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.wait()

"""Jobs on a cluster of three nodes by the commands that a user types. Two run at once; one loses a node, one is stopped."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raylr.training.loop import PROGRESS_INTERVAL_S
from tests.cluster.commands import LONG, SMALL, assert_same, kinds, members, node_of, rows, wait_until
from tests.reporting.webhooks import SECRET, Webhook, webhook

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLUSTERS = ".cache/raylr/clusters"  # under HOME
ONE_PER_NODE = ["--nodes", "3", "--cpus", "1"]
TIMEOUT_S = 480  # a bound for a loaded machine

pytestmark = pytest.mark.timeout(900)


@dataclass
class Cluster:
    """What `raylr cluster up` has printed, and the environment in which its user types."""

    env: dict[str, str]
    printed: dict[str, str]

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.env | more, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str, **more: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*command, **more)
        out, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out

    @property
    def state(self) -> dict[str, Any]:
        """What is recorded of it."""
        recorded: dict[str, Any] = json.loads(Path(self.env["HOME"], CLUSTERS, "local/state.json").read_text())
        return recorded

    @property
    def temp_dir(self) -> Path:
        """Ray's folders of its nodes, each named by its number."""
        return Path(self.state["temp_dir"])

    @property
    def token(self) -> dict[str, str]:
        """The variables that the printed line sets."""
        return dict(word.split("=", 1) for word in shlex.split(self.printed["submit"])[:2])

    def raylr_submit(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start("raylr", "submit", *arguments, RAY_API_SERVER_ADDRESS=self.printed["dashboard"], **self.token)


def flags(where: Path, name: str, workers: int) -> list[str]:
    fixed = ["--storage", str(where), "--precision", "fp32", "--workers", str(workers), "--name", name]
    return [*SMALL, str(where / "cache"), *LONG, *fixed]


def marked(mark: str) -> set[int]:
    """Running processes with the mark of a cluster (of its node) in their environment."""

    def says(pid: int) -> bytes:
        try:
            return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""

    return {
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and f"\0RAYLR_NODE={mark}".encode() in says(int(pid))
    }


def updates(run_dir: Path) -> int:
    return len(rows(run_dir, "ledger.jsonl"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Up by the command, down by the command; nothing of it may be left."""
    home = tmp_path_factory.mktemp("home")
    strange = ("RAY_", "FORCE_COLOR")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"HOME": str(home), "PATH": f"{BIN}:{env['PATH']}", "RAY_metrics_report_interval_ms": "1000"}
    one = Cluster(env, {})
    code, out = one.run("raylr", "cluster", "up", *ONE_PER_NODE)
    assert code == 0, out
    assert out.startswith("try:       raylr submit --cluster local -- --workers 2\n")
    one.printed = {name: value.strip() for name, value in re.findall(r"^(\w+): +(.*)$", out, re.MULTILINE)}
    state = one.state
    assert len(marked(state["id"])) > 10
    yield one
    code, out = one.run("raylr", "cluster", "down")
    assert (code, out) == (0, "cluster local is down\n")
    assert marked(state["id"]) == set()
    assert not Path(state["temp_dir"]).exists()
    assert not (home / ".ray").exists()
    assert list((home / CLUSTERS).iterdir()) == []


@dataclass
class Story:
    """What came of the two jobs."""

    killed: tuple[int, str]
    stopped: tuple[int, str]
    continued: tuple[int, str]
    metrics: str
    steps_when_stopped: int
    status_when_stopped: str
    told: list[dict[str, Any]]  # to the webhook of the second job


@pytest.fixture(scope="module")
def story(cluster: Cluster, where: Path, expected_long: Any) -> Iterator[Story]:
    """Two jobs fill the three nodes. A node of the second is lost and no other can take its place; the first, which waits
    for that so long, is stopped and submitted again. The second has a webhook, the first one that never answers."""
    with webhook() as hook, webhook((None,)) as silent:
        yield told_story(cluster, where, hook, silent)


def told_story(cluster: Cluster, where: Path, hook: Webhook, silent: Webhook) -> Story:
    stopped = cluster.raylr_submit("--submission-id", "stopped", "--", *flags(where, "stopped", 1))
    hold(where, "stopped")
    metrics = gauges(cluster, "stopped")
    line = cluster.printed["submit"].partition(" -- ")[0]
    job = shlex.join(["python", "jobs/train_cifar10.py", *flags(where, "killed", 2), "--alerts.url", hook.url])
    killed = cluster.start("sh", "-c", f"{line} -- {job}")
    hold(where, "killed")
    metrics += gauges(cluster, "killed")
    nodes = {node_of(member["pid"], cluster.temp_dir): member["pid"] for member in members(where / "killed")}
    lost = max(nodes)
    assert cluster.run("raylr", "cluster", "kill-node", str(lost))[0] == 0
    os.kill(nodes[min(nodes)], signal.SIGCONT)
    wait_until(lambda: "continue" in kinds(where / "killed"), "the second job without its node", TIMEOUT_S)
    address = ["--address", cluster.printed["dashboard"]]
    assert cluster.run("ray", "job", "stop", "--no-wait", *address, "stopped", **cluster.token)[0] == 0
    send(signal.SIGCONT, where, "stopped")
    stopped_out = stopped.communicate(timeout=TIMEOUT_S)[0]
    steps = updates(where / "stopped")
    status = json.loads((where / "stopped/result.json").read_text())["status"]
    killed_out = killed.communicate(timeout=TIMEOUT_S)[0]
    again = cluster.raylr_submit("--", *flags(where, "stopped", 2), "--alerts.url", silent.url)
    again_out = again.communicate(timeout=TIMEOUT_S)[0]
    return Story(
        (killed.returncode, killed_out),
        (stopped.returncode, stopped_out),
        (again.returncode, again_out),
        metrics,
        steps,
        status,
        hook.bodies,
    )


def send(number: signal.Signals, where: Path, run: str) -> None:
    """A signal to all workers of a run."""
    for member in members(where / run):
        os.kill(member["pid"], number)


def hold(where: Path, run: str) -> None:
    """Freeze the workers of a run in its middle, once it has told of its progress."""
    wait_until(lambda: updates(where / run) > 5, f"updates of {run}", TIMEOUT_S)
    send(signal.SIGSTOP, where, run)
    time.sleep(PROGRESS_INTERVAL_S)  # so that the next update is told of, however fast they are
    before = updates(where / run)
    send(signal.SIGCONT, where, run)
    wait_until(lambda: updates(where / run) > before + 1, f"more updates of {run}", TIMEOUT_S)
    send(signal.SIGSTOP, where, run)


def gauges(cluster: Cluster, run: str) -> str:
    """The lines on a run."""
    found = wait_until(
        lambda: [one for one in scraped(cluster) if f'run="{run}"' in one], f"gauges of {run}", TIMEOUT_S
    )
    return "\n".join(found) + "\n"


def scraped(cluster: Cluster) -> list[str]:
    """All lines that the nodes' Prometheus endpoints say."""
    targets = {
        target
        for path in cluster.temp_dir.glob("*/prom_metrics_service_discovery.json")
        for entry in json.loads(path.read_text())
        for target in entry["targets"]
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return [
        line
        for target in targets
        for line in opener.open(f"http://{target}/metrics", timeout=10).read().decode().splitlines()
    ]


def test_a_job_that_loses_a_node_ends_well_with_the_hash_of_an_undisturbed_run(
    story: Story, where: Path, expected_long: Any
) -> None:
    code, out = story.killed
    assert code == 0, out
    assert_same(where, "killed", json.loads((where / "killed/result.json").read_text()), expected_long)
    assert "continue" in kinds(where / "killed")


def test_the_log_comes_in_plain_lines(story: Story) -> None:
    for code, out in (story.killed, story.stopped, story.continued):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", out), code
        assert "lr.scaling" in out, out
    for _, out in (story.killed, story.continued):
        assert re.search(r"^epoch +\d+\.\d\d  lr 0\.\d+  train loss", out, re.MULTILINE), out


def test_a_stopped_job_leaves_a_checkpoint_and_goes_on_to_the_same_hash(
    story: Story, where: Path, expected_long: Any
) -> None:
    code, out = story.stopped
    assert code == 143, out
    assert story.status_when_stopped == "stopped"
    assert 5 < story.steps_when_stopped < expected_long[0]["steps"]
    code, out = story.continued
    assert code == 0, out
    assert_same(where, "stopped", json.loads((where / "stopped/result.json").read_text()), expected_long)


def test_the_gauges_say_what_the_ledger_says(story: Story, where: Path) -> None:
    def values(name: str, run: str) -> set[float]:
        found = re.findall(rf'^ray_{name}{{(.*run="{run}".*)}} (\S+)$', story.metrics, re.MULTILINE)
        return {float(value) for _, value in found}

    for run, workers in (("killed", 2), ("stopped", 1)):
        assert values("raylr_world_size", run) == {workers}
        assert values("raylr_global_batch", run) == {64}
        ledger = rows(where / run, "ledger.jsonl")
        assert values("raylr_lr", run) <= {row["lr"]["sgd"] for row in ledger}
        assert len(values("raylr_lr", run)) == 1
        assert all(0 < value < 10 for value in values("raylr_train_loss", run))
        assert values("raylr_images_per_s", run)


def test_a_job_for_more_workers_than_there_are_is_refused_with_the_numbers(
    story: Story, cluster: Cluster, where: Path
) -> None:
    refused = cluster.raylr_submit("--", *flags(where, "large", 4))
    out = refused.communicate(timeout=120)[0]
    assert refused.returncode == 2, out
    assert "workers=4 need 4 CPUs, but the cluster has 2; lower --workers or add a node" in out
    assert not (where / "large").exists()


def test_an_id_that_was_used_before_is_refused_in_one_line(story: Story, cluster: Cluster, where: Path) -> None:
    again = cluster.raylr_submit("--submission-id", "stopped", "--", *flags(where, "stopped", 1))
    out = again.communicate(timeout=120)[0]
    assert (again.returncode, out) == (
        2,
        "error: submission-id=stopped was used before on this cluster; give another, or leave it out\n",
    )


def test_a_missing_and_a_wrong_token_are_refused(cluster: Cluster) -> None:
    address = ["--address", cluster.printed["dashboard"]]
    code, out = cluster.run("ray", "job", "submit", *address, "--", "true")
    assert code != 0
    assert "Missing authentication token" in out
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    for more, reason in (({}, "Missing authentication token"), (wrong, "Invalid authentication token")):
        code, out = cluster.run("raylr", "submit", *address, "--", "--workers", "1", **more)
        assert (code, len(out.splitlines())) == (2, 1), out
        assert f"address={address[1]}: no job was submitted" in out
        assert reason in out


def test_what_travels_is_small(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("raylr", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in (".gitignore", ".rayignore", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    left_at_home = [
        "runs/one/ledger.jsonl", "data/cifar/images.npy", "dist/raylr.whl", "raylr.egg-info/x",
        ".venv/lib/torch.so", ".uv/bin/uv", ".git/objects/ab", ".mypy_cache/x", ".pytest_cache/x",
        "tests/test_x.py", "benchmarks/x.py", "docs/x.md", "raylr/lr/__pycache__/x.pyc",
    ]  # fmt: skip
    for name in left_at_home:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("big")
    line = cluster.printed["submit"].partition(" -- ")[0].replace("--working-dir .", f"--working-dir {tmp_path}")
    code, out = cluster.run("sh", "-c", f"{line} -- find . -type f -printf '%s\\t%P\\n'")
    assert code == 0, out
    sizes = {name: int(size) for size, name in re.findall(r"^(\d+)\t(.+)$", out, re.MULTILINE)}
    assert {name.partition("/")[0] for name in sizes} == {
        "raylr",
        "jobs",
        ".gitignore",
        ".rayignore",
        "README.md",
        "pyproject.toml",
    }
    assert not any("__pycache__" in name for name in sizes)
    assert 200_000 < sum(sizes.values()) < 2_000_000


def test_a_webhook_is_told_of_the_lost_worker_with_position_lr_and_cause_and_then_of_the_end(
    story: Story, where: Path
) -> None:
    lost, done = story.told
    assert [(body["event"], body["run"]) for body in story.told] == [("worker lost", "killed"), ("done", "killed")]
    joined = next(row for row in rows(where / "killed", "events.jsonl") if row.get("lost"))
    assert lost["position"] == joined["position"]
    ledger = rows(where / "killed", "ledger.jsonl")
    assert lost["lr"]["sgd"] in {row["lr"]["sgd"] for row in ledger if row["position"] <= joined["position"]}
    assert re.fullmatch(r"rank [01] was lost; the others go on, 1 workers now train", lost["cause"])
    assert done["position"] == ledger[-1]["position"] + ledger[-1]["global_batch"]
    code = (where / "killed/code.json").read_text() + (where / "killed/config.json").read_text()
    assert (SECRET in code, code.count("/***")) == (False, 2)
    own = [line for line in story.killed[1].splitlines() if "Running entrypoint" not in line]  # which is Ray's line
    assert SECRET not in "\n".join(own)


def test_a_webhook_that_never_answers_is_one_line_and_changes_no_bit(story: Story) -> None:
    code, out = story.continued  # whose hash is compared above
    assert code == 0
    assert (
        len(re.findall(r"^warning: alerts: http://127.0.0.1:\d+/\*\*\* has not answered within 3 s", out, re.MULTILINE))
        == 1
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is no checkout, with a network of one's own and a config that names it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "mine").mkdir()
    (folder / "mine/net.py").write_text(
        "import torch\nfrom mine.parts import WIDTH\n\n\ndef make(num_classes):\n    layers = torch.nn\n"
        "    return layers.Sequential(layers.Flatten(), layers.Linear(3072, WIDTH), layers.Linear(WIDTH, num_classes))\n"
    )
    (folder / "mine/parts.py").write_text("WIDTH = 8\n")
    (folder / "own.yaml").write_text(
        "name: own\nepochs: 2\nlr: {base: 0.001}\nmodel: {name: 'mine.net:make'}\nbatch: {global_size: 64, micro_size: 32}\n"
        "data: {source: synthetic, train_examples: 256, test_examples: 100, cache_dir: cache}\n"
    )
    return folder


@dataclass
class Short:
    """What came of the short line in that folder."""

    folder: Path
    code: int
    out: str
    bodies: list[dict[str, Any]]


@pytest.fixture(scope="module")
def short(cluster: Cluster, elsewhere: Path) -> Short:
    with webhook() as hook:
        command = ["raylr", "submit", "--cluster", "local", "--submission-id", "own", "--", "own.yaml"]
        process = subprocess.run(
            [*command, "--workers", "2", "--alerts.url", hook.url], cwd=elsewhere, env=cluster.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S,
        )  # fmt: skip
        return Short(elsewhere, process.returncode, process.stdout, hook.bodies)


def test_a_name_is_enough_to_submit_own_code_from_any_folder(short: Short) -> None:
    assert short.code == 0, short.out
    assert "python -m raylr train own.yaml" in short.out
    result = json.loads((short.folder / "runs/own/result.json").read_text())
    assert (result["status"], result["steps"]) == ("complete", 8)
    assert [row["model"] for row in [json.loads((short.folder / "runs/own/plan.json").read_text())]] == [
        "mine.net:make"
    ]


def test_the_log_has_no_word_of_the_connection_and_each_line_once(short: Short) -> None:
    assert "WebSocket" not in short.out
    assert "sdk.py" not in short.out
    assert short.out.count("run folder:") == 2  # at the start and at the end
    lines = short.out.splitlines()
    assert lines[0] == "job own is submitted; `raylr jobs --cluster local --stop own` stops it with a checkpoint"


def test_the_webhook_is_told_once_and_its_url_is_nowhere(short: Short, cluster: Cluster) -> None:
    (body,) = short.bodies
    assert (body["event"], body["run"], body["position"]) == ("done", "own", 512)
    assert SECRET not in short.out
    stored = [path for path in (short.folder / "runs/own").rglob("*") if path.is_file()]
    assert [path for path in stored if SECRET.encode() in path.read_bytes()] == []
    assert json.loads((short.folder / "runs/own/config.json").read_text())["alerts"]["url_file"] == "alerts-url.txt"


def test_jobs_that_ray_submitted_are_listed_with_their_runs_too(story: Story, cluster: Cluster, where: Path) -> None:
    rows_ = listed(cluster)
    by_ray = [row for row in rows_ if row["run"] == str(where / "killed")]
    assert [row["status"] for row in by_ray] == ["SUCCEEDED"]  # found by its command
    stopped = next(row for row in rows_ if row["job"] == "stopped")
    assert (stopped["status"], stopped["run"]) == ("STOPPED", str(where / "stopped"))


def listed(cluster: Cluster) -> list[dict[str, Any]]:
    code, out = cluster.run("raylr", "jobs", "--cluster", "local", "--json")
    assert code == 0, out
    found: list[dict[str, Any]] = json.loads(out)["jobs"]
    return found


def test_the_jobs_are_listed_with_their_runs(short: Short, cluster: Cluster) -> None:
    rows_ = {row["job"]: row for row in listed(cluster)}
    assert (rows_["own"]["status"], rows_["own"]["run"]) == ("SUCCEEDED", str(short.folder / "runs/own"))
    assert re.fullmatch(r"complete, test accuracy \d+\.\d\d%", rows_["own"]["told"])
    code, log = cluster.run("raylr", "jobs", "--cluster", "local", "--logs", "own")
    assert (code, log in short.out) == (0, True)
    code, out = cluster.run("raylr", "jobs", "--cluster", "local", "--logs", "none")
    assert code == 2
    assert out.startswith("error: job=none is not on this cluster; it has ")


def test_without_waiting_the_job_goes_on_and_is_stopped_by_its_id(
    short: Short, cluster: Cluster, elsewhere: Path
) -> None:
    line = ["raylr", "submit", "--cluster", "local", "--no-wait", "--json", "--submission-id", "long", "--"]
    flags_ = ["own.yaml", "--name", "long", "--epochs", "5000", "--workers", "1"]
    process = subprocess.run(
        [*line, *flags_], cwd=elsewhere, env=cluster.env, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert "`raylr jobs --cluster local` lists the jobs" in process.stderr
    assert json.loads(process.stdout) == {"job": "long", "run": str(elsewhere / "runs/long"), "exit_code": None}
    wait_until(lambda: updates(elsewhere / "runs/long") > 3, "updates of a job that nobody follows", TIMEOUT_S)
    code, out = cluster.run("raylr", "jobs", "--cluster", "local", "--stop", "long")
    assert (code, out.startswith("job long is asked to stop")) == (0, True)
    wait_until(lambda: (elsewhere / "runs/long/result.json").exists(), "the end of a stopped job", TIMEOUT_S)
    result = json.loads((elsewhere / "runs/long/result.json").read_text())
    assert result["status"] == "stopped", result


def test_a_relative_storage_is_refused_before_anything_is_sent(cluster: Cluster) -> None:
    job = cluster.raylr_submit("--submission-id", "relative", "--", "--data.source", "synthetic", "--storage", "here")
    out = job.communicate(timeout=120)[0]
    assert (job.returncode, out) == (
        2,
        "error: storage=here is relative, and Ray throws a job's folder away; use an absolute path\n",
    )

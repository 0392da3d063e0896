"""What a config is resolved to: numbers worked out by hand, and every refusal."""

import doctest
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raylr.config import Config
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning import defaults
from raylr.planning import lr as choose_lr
from raylr.planning.defaults import TUNED
from raylr.planning.facts import DatasetInfo, Hardware, local_hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve

CIFAR = DatasetInfo("cifar10", 50_000, 10_000, tuple("abcdefghij"), (32, 32, 3), "", "")
TINY = replace(CIFAR, num_train=100)
CPU = Hardware(bf16=True, num_gpus=0)


def resolved(data: DatasetInfo = CIFAR, hardware: Hardware = CPU, **values: str) -> tuple[Plan, Policy]:
    """The plan of these fields, `__` for the dot."""
    return resolve(config(**values), data, hardware)


def config(**values: str) -> Config:
    return load_config(None, {key.replace("__", "."): value for key, value in values.items()})


def test_the_examples_in_the_docstrings_hold() -> None:
    assert [doctest.testmod(module) for module in (choose_lr, defaults)] == [(0, 1), (0, 1)]


def test_the_default_run_is_eight_epochs_of_512() -> None:
    plan, policy = resolved()
    assert (plan.total_examples, plan.global_batch, plan.micro_size, plan.workers) == (400_000, 512, 128, (2, 2))
    assert (plan.eval_every, plan.checkpoint_every, plan.rewarm) == (50_000, 50_000, 50_000)
    assert (plan.precision, plan.device, plan.failure_mode, plan.warnings) == ("bf16", "cpu", "continue", ())
    assert policy.optimizers == tuple(plan.optimizers) == ("sgd",)


def test_the_default_lr_rises_over_one_epoch_and_falls_in_a_line_to_zero() -> None:
    _, policy = resolved()
    peak = TUNED["sgd"].base_lr
    assert policy.lr(0, 512) == pytest.approx(peak * 512 / 50_000)
    assert policy.lr(50_000, 512) == pytest.approx(peak)
    assert policy.lr(225_000, 512) == pytest.approx(peak / 2)  # half-way between 1 and 8 epochs
    assert policy.lr(400_000, 512) == 0


@pytest.mark.parametrize(
    ("name", "batch", "factor"), [("sgd", "2048", 4), ("sgd", "256", 0.5), ("adam", "2048", 2), ("rmsprop", "8192", 4)]
)
def test_the_peak_follows_the_batch_linearly_for_sgd_and_by_its_root_for_others(
    name: str, batch: str, factor: float
) -> None:
    _, policy = resolved(optimizer__name=name, batch__global_size=batch)
    assert policy.schedule().peak(int(batch)) == pytest.approx(TUNED[name].base_lr * factor)


@pytest.mark.parametrize(
    ("epochs", "batch", "warmup"),
    [
        ("90", "512", 50_000),
        ("90", "256", 50_000),
        ("90", "2048", 150_000),  # two doublings: 1 + 2 epochs
        ("10", "2048", 100_000),  # a fifth of the run
        ("1", "512", 10_000),
    ],
)
def test_the_warmup_grows_with_the_doublings_of_the_batch_up_to_a_fifth_of_the_run(
    epochs: str, batch: str, warmup: int
) -> None:
    _, policy = resolved(epochs=epochs, batch__global_size=batch)
    assert policy.schedule().warmup.examples == warmup


def test_legw_has_the_warmup_at_the_reference_batch_and_stays_within_a_fifth_of_the_run() -> None:
    _, policy = resolved(epochs="90", batch__global_size="2048", lr__scaling="legw")
    schedule = policy.schedule()
    assert (schedule.warmup.examples, schedule.effective_warmup(2048)) == (50_000, 200_000)
    _, short = resolved(epochs="10", batch__global_size="2048", lr__scaling="legw")
    assert short.schedule().effective_warmup(2048) == 100_000


def test_a_shape_with_a_rise_of_its_own_gets_no_warmup() -> None:
    _, policy = resolved(lr__shape="one_cycle", lr__momentum_low="0.85", lr__momentum_high="0.95")
    assert policy.schedule().warmup.examples == 0
    assert policy.momentum(0, 512) == pytest.approx(0.95)


def test_durations_are_counted_in_examples_at_the_planned_batch() -> None:
    plan, policy = resolved(lr__warmup="10st", eval__every="0.5ep", checkpoint__every="0.25dur", lr__rewarm="7ex")
    assert policy.schedule().warmup.examples == 5_120
    assert (plan.eval_every, plan.checkpoint_every, plan.rewarm) == (25_000, 100_000, 7)


def test_a_fraction_of_an_epoch_is_rounded_half_up_to_whole_examples() -> None:
    plan, _ = resolved(replace(CIFAR, num_train=1_001), epochs="1.5", lr__warmup="0ep")
    assert plan.total_examples == 1_502  # 1501.5


def test_the_plan_and_policy_of_a_fixed_batch_say_nothing_of_the_workers_but_their_number() -> None:
    plan, policy = resolved(workers="1")
    other, other_policy = resolved(workers="4")
    assert policy.to_json() == other_policy.to_json()
    differing = {name for name in type(plan).model_fields if getattr(plan, name) != getattr(other, name)}
    assert differing == {"workers", "story"}


def test_with_per_worker_size_the_lr_follows_the_workers() -> None:
    plan, policy = resolved(batch__per_worker_size="256", workers="1:4")
    assert (plan.global_batch, plan.batch_at(1), plan.batch_at(4)) == (None, 256, 1024)
    assert policy.lr(200_000, 1024) == pytest.approx(4 * policy.lr(200_000, 256))
    assert policy.schedule().warmup.examples == 80_000  # k = 2 at most: 2 epochs, but a fifth of 8


def test_sde_tells_the_changed_betas() -> None:
    plan, _ = resolved(optimizer__name="adam", lr__scaling="sde", batch__global_size="2048")
    assert plan.optimizers["adam"].beta1 == 0.9  # the rule is applied by the loop, at the batch of each update
    (line,) = [reason for reason in plan.story if reason.what == "betas, eps"]
    assert line.value == "0.6, 0.996, 5e-09"  # 1 - 4 (1 - beta), eps / 2


def test_several_optimizers_have_schedules_of_their_own_on_one_clock() -> None:
    plan, policy = resolved(
        optimizers__head__match="head.*",
        optimizers__head__optimizer__name="adamw",
        optimizers__rest__match="conv*",
        optimizers__rest__lr__shape="multistep(at=4ep, gamma=0.1)",
    )
    assert {name: one.kind for name, one in plan.optimizers.items()} == {"head": "adamw", "rest": "sgd"}
    assert policy.schedule("head").match == plan.optimizers["head"].match == "head.*"
    peak = policy.schedule("rest").peak(512)
    assert policy.lr(200_000, 512, "rest") == pytest.approx(peak * 0.1)
    assert policy.lr(199_999, 512, "rest") == pytest.approx(peak)


@pytest.mark.parametrize(
    ("workers", "given", "mode"),
    [("2", None, "continue"), ("1:4", None, "continue"), ("1:4", "restart", "restart"), ("2", "restart", "restart")],
)
def test_the_others_go_on_unless_a_restart_is_asked_for(workers: str, given: str | None, mode: str) -> None:
    plan, _ = resolved(workers=workers, **({"failure__mode": given} if given else {}))
    assert plan.failure_mode == mode


@pytest.mark.parametrize(
    ("hardware", "gpu", "precision", "expected"),
    [
        (Hardware(True, 0), "auto", "auto", ("cpu", "bf16")),
        (Hardware(False, 0), "auto", "auto", ("cpu", "fp32")),
        (Hardware(False, 2), "auto", "auto", ("cuda", "bf16")),
        (Hardware(False, 1), "auto", "auto", ("cuda", "bf16")),  # one worker by default
        (Hardware(True, 2), "no", "fp32", ("cpu", "fp32")),
        (Hardware(False, 4), "yes", "fp32", ("cuda", "fp32")),
    ],
)
def test_device_and_precision_come_from_the_hardware(
    hardware: Hardware, gpu: str, precision: str, expected: tuple[str, str]
) -> None:
    plan, _ = resolved(hardware=hardware, gpu=gpu, precision=precision)
    assert (plan.device, plan.precision) == expected


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_hardware().num_gpus == 0


def test_what_may_surprise_is_a_warning() -> None:
    plan, _ = resolved(
        replace(CIFAR, note="synthetic images, as CIFAR-10 cannot be had"),
        Hardware(bf16=False, num_gpus=0),
        precision="bf16",
        batch__global_size="32768",
    )
    note, emulated, k = plan.warnings
    assert note == "synthetic images, as CIFAR-10 cannot be had"
    assert emulated.startswith("precision=bf16 is slow on this processor")
    assert k.startswith("k-beyond-range: k = 64: linear scaling is known up to k = 32")


def test_the_story_gives_every_number_its_reason() -> None:
    plan, _ = resolved(batch__global_size="1024", lr__base="0.2", lr__reference_batch="256")
    story = {reason.what: (reason.value, reason.why) for reason in plan.story}
    assert story["global batch"] == ("1024 = 8 micro-batches of 128", "given")
    assert story["lr peak"] == ("0.8", "0.2 x linear(k) at k = 1024 / 256 = 4")
    assert story["length"][0] == "8ep = 400,000 examples = 390 updates"
    assert all(value and why for value, why in story.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batch__global_size": "1000"},
            r"batch\.global_size=1000 is not a multiple of batch\.micro_size=128; use 896 or 1024",
        ),
        ({"batch__global_size": "300"}, r"batch\.global_size=300 is not a multiple of .*=128; use 256 or 384$"),
        ({"batch__per_worker_size": "300"}, r"batch\.per_worker_size=300 is not a multiple .* use 256 or 384"),
        (
            {"batch__global_size": "512", "batch__per_worker_size": "256"},
            r"batch\.global_size=512 beside batch\.per_worker_size=256; give only one",
        ),
        (
            {"workers": "9", "batch__global_size": "1024"},
            r"workers=9 is more than there are micro-batches in an update, 8 \(batch\.global_size=1024 / "
            r"batch\.micro_size=128\); use workers=8 or batch\.micro_size=64",
        ),
        ({"workers": "2:5"}, r"workers=2:5 is more than there are micro-batches in an update, 4 "),
        ({"workers": "3", "batch__reduce": "ddp"}, r"batch\.reduce=ddp .* and 4 do not divide by workers=3; use"),
        (
            {"epochs": "0.001"},
            r"epochs=0\.001 is 50 examples, shorter than one update of 512; use at least 0\.01024 ep",
        ),
        ({"lr__warmup": "9ep"}, r"lr\.warmup=9ep is longer than the run of 8ep; use at most 8ep"),
        (
            {"lr__warmup": "3ep", "lr__scaling": "legw", "batch__global_size": "2048"},
            r"lr\.warmup=3ep x 4 \(LEGW\) is longer than the run of 8ep; use at most 2ep",
        ),
        ({"lr__warmup": "5"}, r"lr\.warmup=5, a duration carries its unit; use 5ep"),
        ({"eval__every": "0ep"}, r"eval\.every=0ep is no interval; use 1st"),
        ({"checkpoint__every": "0.000001ep"}, r"checkpoint\.every=0\.000001ep is no interval"),
        ({"checkpoint__every": "5"}, r"checkpoint\.every=5, a duration carries its unit"),
        ({"lr__rewarm": "soon"}, r"lr\.rewarm=soon, not a duration"),
        ({"lr__shape": "cosin"}, r"lr\.shape=cosin.*cosine"),
        ({"lr__shape": "multistep(at=9ep, gamma=0.1)"}, r"lr\.shape=multistep.*end"),
        ({"lr__shape": "one_cycle", "lr__warmup": "1ep"}, r"lr\.shape=one_cycle.*warmup"),
        ({"lr__scaling": "sde"}, r"lr\.scaling=sde is the rule of adam, adamw and rmsprop; use linear with sgd"),
        (
            {"lr__scaling": "sde", "optimizer__name": "adam", "batch__global_size": "5120"},
            r"lr\.scaling=sde: beta1=0\.9 under the sde rule at k = 10",
        ),
        ({"lr__warmup_rise": "constant"}, r"lr\.warmup_rise=constant cannot start at zero; use lr\.warmup_from=base"),
        ({"lr__warmup_from": "base"}, r"lr\.warmup_from=base .* use lr\.warmup_from=zero"),
        ({"lr__momentum_low": "0.9"}, r"lr\.momentum_low=0\.9 and lr\.momentum_high=None go together"),
        (
            {"lr__momentum_low": "0.9", "lr__momentum_high": "0.8"},
            r"lr\.momentum_low=0\.9 and lr\.momentum_high=0\.8 go",
        ),
        ({"lr__momentum_low": "0.8", "lr__momentum_high": "0.9"}, r"lr\.momentum needs a shape with legs"),
        (
            {"optimizers__all__match": "*", "optimizer__name": "adam"},
            r"optimizer\.name beside optimizers\.all; set it for each, as optimizers\.all\.optimizer\.name",
        ),
        (
            {"optimizers__all__match": "*", "lr__base": "1"},
            r"lr\.base beside optimizers\.all; set it .* as optimizers\.all",
        ),
        (
            {"optimizers__all__match": "*", "optimizers__all__lr__rewarm": "2ep"},
            r"optimizers\.all\.lr\.rewarm=2ep is one",
        ),
        ({"gpu": "yes"}, r"gpu=yes needs a GPU, but there are 0; use gpu=no"),
        ({"stretch": "yes"}, r"stretch=yes scales a policy file; give one with --policy, or drop --stretch"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(**values)
    assert "\n" not in str(caught.value)


def test_more_than_the_data_or_the_images_hold_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"batch\.micro_size=128 is more than the 100 training examples; use at most 100"
    ):
        resolved(TINY)
    with pytest.raises(ConfigError, match=r"data\.crop_padding=8 must be less than the images' 8 pixels; use 7"):
        resolved(replace(CIFAR, image_shape=(8, 12, 1)), data__crop_padding="8")


@pytest.fixture
def policy_path(tmp_path: Path) -> Path:
    """The policy of a run of ten epochs with a warmup of one."""
    _, policy = resolved(epochs="10", lr__base="0.3", lr__shape="multistep(at=5ep, gamma=0.1)")
    path = tmp_path / "policy.json"
    path.write_text(policy.to_json())
    return path


def test_a_policy_file_sets_the_lr_and_the_length(policy_path: Path) -> None:
    plan, policy = resolved(policy=str(policy_path))
    assert policy.to_json() == policy_path.read_text()
    assert plan.total_examples == 500_000
    assert resolved(policy=str(policy_path), epochs="10")[0] == plan


def test_stretch_scales_the_whole_policy(policy_path: Path) -> None:
    plan, policy = resolved(policy=str(policy_path), epochs="5", stretch="yes")
    assert (plan.total_examples, policy.schedule().warmup.examples) == (250_000, 25_000)
    assert policy.lr(124_999, 512) == pytest.approx(0.3)
    assert policy.lr(125_000, 512) == pytest.approx(0.03)


def test_stretch_takes_a_policy_to_data_of_another_size(policy_path: Path) -> None:
    half = replace(CIFAR, num_train=25_000)
    with pytest.raises(ConfigError, match="was made for 50000 training examples and the data has 25000"):
        resolved(half, policy=str(policy_path))
    plan, policy = resolved(half, policy=str(policy_path), stretch="yes")
    assert (plan.total_examples, policy.examples_per_epoch) == (250_000, 25_000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"epochs": "4"},
            r"epochs=4 beside policy=.*policy\.json, which lasts 10 epochs; drop --epochs, or .* --stretch",
        ),
        ({"lr__base": "1"}, r"^lr\.base beside policy=.*, which sets the LR; drop one of the two"),
        ({"lr__shape": "rex", "stretch": "yes"}, r"^lr\.shape beside policy="),
        (
            {"optimizer__name": "adam"},
            r"sets the LR of sgd but the run has adam; give the optimizers that it was made for",
        ),
        ({"optimizers__sgd__match": "conv*"}, r"optimizers\.sgd\.match=conv\* but policy=.* has \*; use the same"),
        ({"batch__global_size": "512000"}, r"policy=.* is 500000 examples, shorter than one update of 512000"),
    ],
)
def test_what_contradicts_a_policy_file_is_refused(policy_path: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(policy=str(policy_path), **values)


def test_a_policy_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy=.*none\.json cannot be read \(No such file"):
        resolved(policy=str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"policy=.*bad\.json: "):
        resolved(policy=str(tmp_path / "bad.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"policy=.*bytes\.json cannot be read \(not text\)"):
        resolved(policy=str(tmp_path / "bytes.json"))


def test_an_optimizer_of_an_extra_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r'optimizer.name=lars needs a package .*; pip install "raylr\[lars\]", or use'
    ):
        resolved(optimizer__name="lars")


@pytest.mark.parametrize(
    ("fields", "mode", "why"),
    [
        ({}, "continue", "the number of workers is fixed"),
        ({"workers": "1:4"}, "continue", "workers come and go between two updates"),
        ({"workers": "1:2", "batch__reduce": "ddp"}, "restart", "batch.reduce=ddp forms no group again"),
        ({"batch__reduce": "ddp"}, "restart", "batch.reduce=ddp forms no group again"),
        ({"failure__mode": "restart"}, "restart", "given"),
    ],
)
def test_the_story_gives_the_reason_of_the_decision_itself(fields: dict[str, str], mode: str, why: str) -> None:
    plan, _ = resolved(**fields)
    told = next(line for line in plan.story if line.what == "lost worker")
    assert (plan.failure_mode, told.value.partition(":")[0], told.why) == (mode, mode, why)


def test_a_share_of_updates_that_are_computed_twice_is_told_and_refused_where_bits_depend_on_the_worker() -> None:
    plan, _ = resolved(guard__recheck=0.01, workers="3")
    told = next(line for line in plan.story if line.what == "recheck")
    assert told.value == "another worker computes a micro-batch too in 1 % of the updates, and they compare"
    assert (plan.recheck, plan.max_corruptions, told.why) == (0.01, 3, "guard.recheck=0.01")
    assert "recheck" not in [line.what for line in resolved()[0].story]
    with pytest.raises(
        ConfigError, match=r"^guard\.recheck=0\.01 compares bits, .* batch\.reduce=ddp; use batch\.reduce=tree$"
    ):
        resolved(guard__recheck=0.01, batch__reduce="ddp")

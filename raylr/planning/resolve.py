"""From a config to a plan of plain numbers and a policy: all choices of a run, and all refusals, on the driver.

The only place that decides; workers only carry out. Knows neither torch nor ray.
"""

import importlib.util

from raylr.config import Config
from raylr.config.transforms import transform_names
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, Ramp, examples, lint
from raylr.lr.durations import interval
from raylr.planning import averaging, initial, instruments, measured, own_task, watching, width
from raylr.planning.batch import check_length, fixed_global_batch, possible_batches
from raylr.planning.defaults import EPOCHS, tuned_for
from raylr.planning.device import backend, device, gpus_per_worker
from raylr.planning.facts import ALL_FEATURES, DatasetInfo, Features, Hardware
from raylr.planning.lr import (
    GivenPolicy,
    Part,
    parts_of,
    policy_as_given,
    policy_of_config,
    policy_of_file,
    read_by_position,
    run_length,
)
from raylr.planning.micro import micro_size
from raylr.planning.own_optimizer import check_library, check_momentum, check_own, library_options
from raylr.planning.plan import Chosen, GuardPlan, OptimizerPlan, Plan
from raylr.planning.ramp import batches_of, check_policy, doubts, given_ramp, ramp_story, traded_ramp
from raylr.planning.story import Choices, story
from raylr.planning.traps import traps
from raylr.planning.workers import workers

EXTRAS = {"lars": "timm", "prodigy": "prodigyopt", "schedule-free": "schedulefree"}  # packages that have optimizers


def resolve(
    config: Config,
    dataset: DatasetInfo,
    hardware: Hardware,
    imported: GivenPolicy | None = None,
    features: Features = ALL_FEATURES,
    final_test: bool = True,
) -> tuple[Plan, Policy]:
    """The plan and the LR policy of a run. They differ between numbers of workers only where that must show.

    `imported` is a policy that takes the place of the config's own; `features` are those of the Ray that carries the plan
    out. Without `final_test` a run with a validation split never reads the test images. Raises ConfigError, one
    line that names the field, for everything that could not be carried out.
    """
    if dataset.task is not None:
        own_task.refuse_beside(config, dataset.task)
    width.check(config)
    num_workers = workers(config, hardware.num_gpus)
    config = config.model_copy(update={"workers": num_workers.value})
    parts = parts_of(config)
    batches = possible_batches(config, dataset)
    given = imported or (policy_of_file(config.policy) if config.policy is not None else None)
    one_batch = batches[0] if len(set(batches)) == 1 and config.batch.ramp is None else None
    check_own(parts, one_batch, given is not None)
    if given is not None:
        policy, lr_story = policy_as_given(config, parts, given, dataset.num_train)
        length = Chosen(policy.total_examples, "the policy's")
        ramp = given_ramp(config, dataset.num_train, length.value)
        check_length(given.origin, policy.total_examples, ramp.sizes[0] if ramp else batches[-1], dataset.num_train)
    else:
        if config.stretch:
            raise ConfigError("stretch=yes scales a policy file; give one with --policy, or drop --stretch")
        why_length = "given" if config.epochs else "enough for a first good result"
        length = Chosen(run_length(config.epochs or EPOCHS, dataset.num_train), why_length)
        ramp = given_ramp(config, dataset.num_train, length.value)
        first = ramp.sizes[0] if ramp else batches[-1]
        check_length(f"epochs={config.epochs or EPOCHS:g}", length.value, first, dataset.num_train)
        policy, lr_story = policy_of_config(parts, Clock(dataset.num_train, length.value, batches[-1]), first)
    ramp = traded_ramp(config, policy, batches[-1], ramp)
    check_policy(policy, parts, batches_of(ramp, batches))
    check_momentum(parts, policy)
    check_library(config, parts)
    where = device(config, hardware)
    share = gpus_per_worker(config, hardware, where.value)
    choices = Choices(
        length,
        fixed_global_batch(config),
        micro_size(config),
        num_workers,
        where,
        backend(config, where.value, share),
        _precision(config, hardware, where.value),
        _failure_mode(config, features),
        Chosen(f"{features.ray}: {features.summary()}", "its installed files") if features.ray else None,
    )
    clock = Clock(dataset.num_train, length.value, batches[-1])
    plan = _plan(config, dataset, choices, share, parts, clock)
    gain = measured.adascale(config, policy, clock, dataset.task is not None)
    plan = plan.model_copy(update={"final_test": final_test, "adascale": gain})
    if ramp is not None:
        plan = plan.model_copy(update={"ramp": ramp.phases, "global_batch": max(ramp.sizes)})
    instruments.refuse_one_micro_batch(config, plan)
    by_position = read_by_position(parts, given, policy, ramp.sizes[0] if ramp else batches[-1]) if given else ()
    lr_story = [*lr_story, *by_position, *ramp_story(plan, policy, parts)]
    told = {
        "story": (
            *own_task.attributed(config, dataset.task, story(config, dataset, parts, plan, choices, lr_story)),
            *watching.lines(config, plan),
            *measured.lines(plan),
            *instruments.lines(config, plan),
            *averaging.lines(plan),
            *initial.lines(plan),
        ),
        "warnings": (
            *_warnings(plan, dataset, hardware, policy, batches, features),
            *(traps(config, parts, policy, batches[-1]) if given is None else ()),
            *watching.doubts(config, plan),
            *initial.doubts(plan),
            *(own_task.doubts(dataset.task, parts) if dataset.task is not None and given is None else ()),
        ),
    }
    return plan.model_copy(update=told), policy


def _plan(
    config: Config, dataset: DatasetInfo, choices: Choices, share: float, parts: list[Part], clock: Clock
) -> Plan:
    low, high = config.num_workers
    split = "validation" if dataset.num_validation else "test"
    return Plan(
        seed=config.seed,
        device=choices.device.value,
        precision=choices.precision.value,
        num_threads=config.num_threads,
        workers=(low, high),
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=share,
        task=dataset.task,
        model=config.model.name if dataset.task is None else "",
        dropout=config.model.dropout,
        width=config.model.width,
        compile=config.model.compile,
        freeze=config.model.frozen,
        num_classes=len(dataset.class_names),
        image_shape=dataset.image_shape,
        data_source=dataset.source,
        data_sha256=dataset.data_sha256,
        pixel_mean=dataset.mean,
        pixel_std=dataset.std,
        class_names=dataset.class_names,
        num_train=dataset.num_train,
        num_test=dataset.num_test,
        num_validation=dataset.num_validation,
        total_examples=clock.total_examples,
        global_batch=choices.global_batch.value,
        per_worker_size=config.batch.per_worker_size,
        micro_size=choices.micro.value,
        reduce=config.batch.reduce,
        backend=choices.backend.value,
        eval_every=interval(config.eval.every, clock, "eval.every"),
        eval_micro_size=config.eval.micro_size,
        eval_views=config.eval.views,
        average=averaging.averaging(config, clock),
        log_every=interval(config.log_every, clock, "log_every") if config.log_every is not None else None,
        headroom_every=instruments.headroom(config, clock),
        sharpness_every=instruments.sharpness(config, clock),
        sharpness_products=config.instruments.sharpness_products,
        noise_every=instruments.noise(config, clock),
        checkpoint_every=interval(config.checkpoint.every, clock, "checkpoint.every"),
        checkpoint_keep=config.checkpoint.keep,
        rewarm=examples(config.lr.rewarm, clock, "lr.rewarm"),
        loss=config.loss.name,
        label_smoothing=config.loss.label_smoothing,
        clip_norm=config.loss.clip_norm,
        flip=config.data.flip,
        crop_padding=0 if dataset.task is not None else _crop_padding(config, min(dataset.image_shape[:2])),
        cutout=config.data.cutout,
        transform=transform_names(config.data.transform),
        optimizers=_optimizer_plans(parts, clock, width.transfer(config, parts)),
        guard=_guard(config, clock),
        metrics=watching.metrics(config, len(dataset.class_names)),
        stop=watching.stop(config, clock, split, dataset.task),
        plateau=watching.plateau(config, clock, split, dataset.task),
        grad_norm=measured.grad_norm(config, clock),
        hypergradient=measured.hypergradient(config, clock, dataset.task is not None),
        hooks=watching.hooks(config.hooks),
        max_failures=config.failure.max_failures,
        failure_mode=choices.failure_mode.value,
        stall_s=config.failure.stall_s,
        recheck=_recheck(config),
        init=dataset.initial,
        max_corruptions=config.guard.max_corruptions,
    )


def _guard(config: Config, clock: Clock) -> GuardPlan:
    guard = config.guard
    return GuardPlan(
        enabled=guard.enabled,
        factor=guard.factor,
        patience=guard.patience,
        cut=guard.cut,
        hold=examples(guard.hold, clock, "guard.hold"),
        ramp=examples(guard.ramp, clock, "guard.ramp"),
        snapshot_every=interval(guard.snapshot_every, clock, "guard.snapshot_every"),
        max_rollbacks=guard.max_rollbacks,
    )


def _recheck(config: Config) -> float:
    """The share of updates that are checked, where the bits do not depend on the worker."""
    share = config.guard.recheck
    if share and config.batch.reduce == "ddp":
        raise ConfigError(
            f"guard.recheck={share:g} compares bits, which depend on the worker with batch.reduce=ddp; use batch.reduce=tree"
        )
    return share


def _failure_mode(config: Config, features: Features) -> Chosen[str]:
    """Continue without the lost workers where the reduction can form groups again, and Ray lets workers come and go."""
    low, high = config.num_workers
    if (resizes := low < high) and not features.elastic:
        raise features.refusal(f"workers={config.workers}", "elastic", f"use a fixed number, such as {high}")
    needed = "drains" if resizes else "replace_one_worker"
    why = None
    if config.batch.reduce == "ddp":
        if config.failure.mode == "continue":
            raise ConfigError("failure.mode=continue does not go with batch.reduce=ddp; use failure.mode=restart")
        why = "batch.reduce=ddp forms no group again"
    elif needed in features.missing:
        if config.failure.mode == "continue":
            raise features.refusal("failure.mode=continue", needed, "use failure.mode=restart")
        lacks = "tells of no node that is about to go" if resizes else "replaces no single worker"
        why = f"Ray {features.ray} {lacks}"
    if config.failure.mode is not None:
        return Chosen(config.failure.mode, "given")
    if why:
        return Chosen("restart", why)
    return Chosen(
        "continue", "workers come and go between two updates" if resizes else "the number of workers is fixed"
    )


def _precision(config: Config, hardware: Hardware, device: str) -> Chosen[str]:
    if config.precision != "auto":
        return Chosen(config.precision, "given")
    where = "GPU" if device == "cuda" else "processor"
    if hardware.bf16 or device == "cuda":
        return Chosen("bf16", f"the {where} has bf16")
    return Chosen("fp32", f"the {where} lacks bf16")


def _optimizer_plans(parts: list[Part], clock: Clock, transfer: float) -> dict[str, OptimizerPlan]:
    plans = {part.name: _optimizer_plan(part, clock, transfer) for part in parts}
    ends = [plan.until for plan in plans.values() if plan.until is not None and plan.until < clock.total_examples]
    if len(ends) == len(parts):
        raise ConfigError(
            f"{parts[0].prefix}until={parts[0].until}: all optimizers are done before the run ends; leave one's out"
        )
    return plans


def _optimizer_plan(part: Part, clock: Clock, transfer: float) -> OptimizerPlan:
    chosen = part.optimizer
    if (package := EXTRAS.get(chosen.name)) and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{part.prefix}optimizer.name={chosen.name} needs a package that is not installed; pip install "
            f'"raylr[{chosen.name}]", or use sgd'
        )
    decay = chosen.weight_decay
    if decay is None:
        decay = tuned_for(chosen.name, part.lr, clock.global_batch).weight_decay
    others = chosen.model_dump(exclude={"name", "weight_decay", "options"})
    until = interval(part.until, clock, f"{part.prefix}until") if part.until is not None else None
    return OptimizerPlan(
        kind=chosen.name,
        match=part.match,
        weight_decay=decay,
        until=until,
        layer_decay=part.lr.layer_decay or 1.0,
        transfer=transfer,
        options=library_options(part),
        **others,
    )


def _crop_padding(config: Config, side: int) -> int:
    padding = config.data.crop_padding
    if padding >= side:
        raise ConfigError(f"data.crop_padding={padding} must be less than the images' {side} pixels; use {side - 1}")
    return padding


def _warnings(
    plan: Plan, dataset: DatasetInfo, hardware: Hardware, policy: Policy, batches: list[int], features: Features
) -> list[str]:
    found = [dataset.note] if dataset.note else []
    if newer := features.newer():
        found.append(newer)
    if plan.precision == "bf16" and plan.device == "cpu" and not hardware.bf16:
        found.append("precision=bf16 is slow on this processor, which has no instructions for it; use fp32 for speed")
    for one in batches_of(Ramp(plan.ramp) if plan.ramp else None, batches):
        found += [f"{finding.name}: {finding.message}" for finding in lint(policy, one)]
    found += doubts(plan, policy)
    return list(dict.fromkeys(found))

"""Plans and results as tables: the numbers that stand in them."""

import io

from rich.console import Console
from rich.table import Table

from raylr.config import Config
from raylr.config.fields import settings
from raylr.config.load import load_config
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting import tables
from raylr.reporting.prose import Prose, Story
from raylr.reporting.sizes import at_sizes, idle

DATA = DatasetInfo("cifar10", 50_000, 10_000, tuple("abcdefghij"), (32, 32, 3), "", "")


def lines(table: Table) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=300).print(table)
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def text_at(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, markup=False).print(table)
    return file.getvalue()


def numbers(world_sizes: list[int], **values: str) -> list[str]:
    config = load_config(None, {key.replace("__", "."): value for key, value in values.items()})
    plan, policy = resolve(config, DATA, Hardware(False, 0))
    return lines(tables.numbers(at_sizes(plan, policy, world_sizes), policy.optimizers))


def test_a_fixed_batch_gives_the_same_lr_at_every_world_size() -> None:
    found = numbers([1, 2, 3], lr__base="0.2", lr__reference_batch="256", batch__global_size="1024")
    assert found[0] == "workers micro-batches each global batch updates k peak LR first LR warmup updates"
    # k = 4: warmup min(3, 8 / 5) epochs = 80,000 examples = 79 updates; the first is 1024 / 80,000 of the peak 0.8
    assert found[2:] == [
        "1 8 1024 390 4 0.8 0.01024 79",
        "2 4 1024 390 4 0.8 0.01024 79",
        "3 2 to 3 1024 390 4 0.8 0.01024 79",
    ]


def test_a_batch_per_worker_gives_the_lr_of_the_batch() -> None:
    found = numbers(
        [1, 2, 4],
        lr__base="0.1",
        lr__reference_batch="256",
        lr__warmup="1ep",
        batch__per_worker_size="256",
        workers="1:4",
    )
    assert found[2:] == [
        "1 2 256 1,562 1 0.1 0.000512 196",
        "2 2 512 781 2 0.2 0.002048 98",
        "4 2 1024 390 4 0.4 0.008192 49",
    ]


def test_more_workers_than_micro_batches_are_told_and_have_no_row() -> None:
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    rows = at_sizes(plan, policy, [4, 8])
    assert [line.split()[0] for line in lines(tables.numbers(rows, policy.optimizers))[2:]] == ["4"]
    assert idle(rows) == ["8 workers are more than the 4 micro-batches of an update"]


def test_a_narrow_table_drops_columns_in_their_order_and_splits_no_word() -> None:
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    table = tables.numbers(at_sizes(plan, policy, [1, 2]), policy.optimizers)
    words = {"workers", "micro-batches", "each", "global", "batch", "updates", "k", "peak", "LR", "first", "warmup"}
    for width in range(26, 130):
        text = text_at(table, width).partition("no room for")[0]
        assert max(map(len, text.splitlines())) <= width
        assert set(text.partition("─")[0].split()) <= words
        assert "512" in text
        assert "0.4" in text
    # 7 + 6 + 4 letters and three columns of 3
    assert "no room for first LR, micro-batches each, warmup updates, k, updates" in " ".join(
        text_at(table, 26).split()
    )
    assert "no room" not in text_at(table, 128)


def test_each_optimizer_has_columns_of_its_own() -> None:
    found = numbers([1], optimizers__a__match="a*", optimizers__b__match="b*", workers="1")
    assert found[0].endswith("a k a peak LR a first LR a warmup updates b k b peak LR b first LR b warmup updates")


def test_the_story_is_numbered_from_one() -> None:
    plan, _ = resolve(Config(), DATA, Hardware(False, 0))
    story = list(Story(plan.story).lines())
    assert [line[:3] for line in story[:2]] == [" 1.", " 2."]
    assert story[1] == " 2. model         cnn-small  (model.name=cnn-small)"
    assert len(story) == len(plan.story)


def test_the_fields_are_told_in_a_terminal_of_any_width_without_a_split_word() -> None:
    found = list(settings(Config))
    words = {word for one in found for text in vars(one).values() for word in str(text).split()}
    words |= {"field", "type", "default", "unit", "description", "type:", "default:", "unit:", "description:"}
    for width in (48, 60, 80, 120, 200):
        text = text_at(tables.setting_table(found), width).partition("no room for")[0]
        told = {word for line in text.splitlines() if "─" not in line for word in line.split()}
        assert told - words - {"(must", "be", "given)"} == set()
        assert all(one.key in told for one in found)


def test_in_a_terminal_the_story_keeps_its_words_whole() -> None:
    plan, _ = resolve(Config(), DATA, Hardware(False, 0))
    whole = " ".join(" ".join(Story(plan.story).lines()).split())
    for width in (40, 80, 120):
        told = list(Story(plan.story).lines(width))
        assert max(map(len, told)) <= width
        assert " ".join(" ".join(told).split()) == whole
    assert list(Prose("one two three").lines(8)) == ["one two", "three"]


def test_every_field_stands_in_the_table_of_fields() -> None:
    found = lines(tables.setting_table(settings(Config)))
    assert (
        "batch.micro_size integer 128, less for a batch below 256 examples through the model at once; BatchNorm sees these "
        "together" in found
    )
    match = (
        "optimizers.NAME.match text (must be given) names of its parameters: patterns with * and ?, separated by commas"
    )
    assert match in found
    assert len(found) == 2 + len(list(settings(Config)))


def test_a_data_set_is_told_in_lines() -> None:
    assert tables.dataset(DATA).splitlines() == [
        "source:      cifar10",
        "training:    50,000 images of 32 x 32 x 3",
        "test:        10,000 images",
        "classes:     10: a, b, c, d, e, f, g, h, i, j",
        "data_sha256: known once it is prepared",
    ]


def test_several_lrs_carry_their_optimizers_names() -> None:
    assert tables.rates({"sgd": 0.123456}) == "0.1235"
    assert tables.rates({"a": 0.5, "b": 1e-5}) == "a=0.5 b=1e-05"


def test_nodes_are_listed_with_their_state() -> None:
    assert lines(tables.node_table([(0, 2, "alive"), (1, 4, "dead")]))[2:] == ["0 (head) 2 alive", "1 4 dead"]

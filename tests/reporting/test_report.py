"""The report: read back as HTML, and opened in a real browser at the width of a desktop and of a phone."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylr.errors import ConfigError
from raylr.reporting import compare
from raylr.reporting.charts import thin
from raylr.reporting.recorded import read_run
from raylr.reporting.report import folders_named, label, read_all, report_on, write_report
from raylr.reporting.sections import sections
from tests.reporting.run_folders import event, lines, make_run, report, result, update
from tests.reporting.test_listing import make_population

EVIL = """<script>document.title='gone'</script>"'><img src=x onerror=alert(1)>"""
LEDGER = [update(step) for step in range(40)]
METRICS = [report(step) for step in (10, 20, 30, 40)]
REJOIN = [event("start", 0), event("rejoin", 2000, 107.5, world_size=4)]


class Reader(HTMLParser):
    """Counts tags, and keeps attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data if self.tags and self.tags[-1] != "style" else ""


def read(*run_dirs: Path) -> Reader:
    out = write_report(list(run_dirs), run_dirs[0].parent / "report.html")
    return Reader(out.read_text())


def table(rows: list[compare.Row]) -> dict[str, tuple[str, ...]]:
    return {row.name: row.cells for row in rows}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of a run with a rejoin."""
    return read(make_run(tmp_path_factory.mktemp("runs") / "one", LEDGER, METRICS, REJOIN, result=result()))


def test_a_page_needs_nothing_from_elsewhere(page: Reader) -> None:
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data, and the one script that may run
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[^']+';", policy)
    assert "connect-src" not in policy
    targets = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert targets
    assert all(target.startswith("#p") for target in targets)
    assert not [value for _, value in page.attributes if re.search(r"url\((?!#)", value)]


def test_ids_are_unique_over_all_pictures_of_a_page(page: Reader) -> None:
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 10


def test_whatever_stands_in_files_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    rows = [update(0, (EVIL, "b"))]
    events = [event(EVIL, 100, note=EVIL), {**event("rejoin", 200), EVIL: EVIL}]
    plan = {"story": [{"what": EVIL, "value": EVIL, "why": EVIL}]}
    failed = result(status=EVIL, data_source=EVIL, weights_sha256=EVIL, hardware=EVIL, versions={EVIL: EVIL})
    one = make_run(tmp_path / EVIL.replace("/", "!"), rows, METRICS, events, plan=plan, result=failed)
    (one / "failure.txt").write_text(EVIL)
    two = make_run(tmp_path / "two", rows, config={EVIL: EVIL}, result=failed)
    (two / "ledger.jsonl").write_text(f'"{EVIL}"\n')
    page = read(one, two)
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(EVIL) >= 12


def test_each_picture_has_a_wide_and_a_narrow_form_in_the_colours_of_the_page(page: Reader) -> None:
    assert page.tags.count("svg") == 2 * 5  # LR, loss, accuracy, throughput, world size; no factor moves
    styles = [value for name, value in page.attributes if name == "style"]
    assert any("stroke: var(--run0)" in style for style in styles)
    assert not [style for style in styles if "#2f6fb7" in style]


def test_factors_that_move_are_drawn_and_the_others_are_named(tmp_path: Path) -> None:
    factors = {"peak": 0.4, "warmup": 1.0, "shape": 0.5, "override": 0.5}
    halved = update(1, lr=0.1, factors={"sgd": factors}, causes=["user"])
    (learning_rate, *_) = sections([read_run(make_run(tmp_path / "one", [update(0), halved]))])
    assert [panel.title for panel in learning_rate.panels] == ["LR", "override"]
    assert learning_rate.panels[1].lines[0].values.tolist() == [1.0, 0.5]
    assert learning_rate.remarks == (
        "LR = peak x warmup x shape x override; throughout: peak 0.4, warmup 1, shape 0.5.",
    )


def test_each_optimizer_has_pictures_of_its_own(tmp_path: Path) -> None:
    (learning_rate, *_) = sections([read_run(make_run(tmp_path / "one", [update(0, ("body", "head"))]))])
    assert [panel.title for panel in learning_rate.panels] == ["LR of body", "LR of head"]


def test_all_pictures_share_one_axis_of_epochs_and_the_marks(tmp_path: Path) -> None:
    one = read_run(make_run(tmp_path / "one", LEDGER, METRICS, REJOIN))
    two = read_run(make_run(tmp_path / "two", LEDGER[:5]))
    panels = [panel for section in sections([one, two]) for panel in section.panels]
    assert {panel.length for panel in panels} == {4.0}
    assert {(mark.run, mark.kind, mark.epochs) for panel in panels for mark in panel.marks} == {(0, "rejoin", (2.0,))}


def test_a_global_batch_that_moves_has_a_picture(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", [update(0), update(1, global_batch=200)]))
    assert [section.title for section in sections([run])] == ["Learning rate", "World size", "Global batch"]


def test_metrics_of_ones_own_have_pictures(tmp_path: Path) -> None:
    tests = [report(10, test_top5=0.75, test_f1=0.5), report(20, test_top5=0.875, test_f1=0.625)]
    one = read_run(make_run(tmp_path / "one", LEDGER, tests))
    two = read_run(make_run(tmp_path / "two", LEDGER, METRICS))
    (found,) = [section for section in sections([one, two]) if section.title == "Metrics"]
    assert [panel.title for panel in found.panels] == ["top5", "f1"]
    assert [list(line.values) for line in found.panels[0].lines] == [[0.75, 0.875]]
    assert not [section for section in sections([two]) if section.title == "Metrics"]


def test_events_are_listed_with_their_epoch_their_time_and_what_they_say(page: Reader) -> None:
    assert re.search(r"rejoin\s*2\s*7.5 s\s*world_size 4", page.text)


def test_many_events_are_listed_in_part(tmp_path: Path) -> None:
    events = [event("override", step, cause="pbt") for step in range(120)]
    assert "and 70 more" in read(make_run(tmp_path / "one", events=events)).text


def test_runs_with_the_same_bits_are_told(tmp_path: Path) -> None:
    page = read(*[make_run(tmp_path / name, LEDGER, result=result()) for name in ("one", "two")])
    assert "one, two: the same weights, to the last bit." in page.text
    assert "two: the LR of one to the last bit, at all 40 updates that both made." in page.text
    assert "The configs are the same but for the name." in page.text


def test_the_first_update_with_another_lr_is_told(tmp_path: Path) -> None:
    one = read_run(make_run(tmp_path / "one", LEDGER))
    two = read_run(make_run(tmp_path / "two", [*LEDGER[:30], update(30, lr=math.nextafter(0.2, 1))]))
    found = compare.lr_agreement(one, two, "sgd")
    assert found == "two: not the LR of one from epoch 3 on (0.20000000000000004 against 0.2)"
    other = read_run(make_run(tmp_path / "three", [{**update(0), "position": 50}]))
    assert compare.lr_agreement(one, other, "sgd") == ""


def test_only_settings_that_differ_are_listed(tmp_path: Path) -> None:
    shape = {"name": "s", "shape": {"floor": 0.0}}
    policy = {"examples_per_epoch": 1000, "total_examples": 4000, "schedules": [shape]}
    other = {**policy, "schedules": [{**shape, "shape": {"floor": 0.5}}]}
    config = {"seed": 0, "lr": {"base": None}}
    runs = [
        read_run(
            make_run(tmp_path / "a", config={"name": "a", **config, "workers": "2"}, policy=policy, plan={"x": 1})
        ),
        read_run(make_run(tmp_path / "b", config={"name": "b", **config}, policy=other, plan={"x": 2})),
    ]
    assert table(compare.differences(runs)) == {
        "workers": ('"2"', "-"),
        "plan: x": ("1", "2"),
        "policy: schedules.s.shape.floor": ("0.0", "0.5"),
    }


def test_results_are_told_in_units(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", result=result(wall_s=185.0, images_per_s=12345.6, rejoins=1)))
    found = table(compare.results([run]))
    assert found["test_accuracy"] == ("62.50%",)
    assert (found["wall_s"], found["images_per_s"], found["rejoins"]) == (("3 min 5 s",), ("12,346",), ("1",))
    assert "weights_sha256" in table(compare.identity([run]))


def test_a_run_that_goes_on_shows_how_far_it_is(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", LEDGER[:15], METRICS[:1])
    with (run_dir / "ledger.jsonl").open("a") as file:
        file.write('{"step": 15, "posi')  # the row that is being written
    text = read(run_dir).text
    assert "unfinished, at epoch 1.4 of 4" in text
    assert "62.50%" in text
    assert "cannot be read" not in text


def test_a_run_without_rows_has_a_page(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", result=result(status="failed", test_accuracy=None))
    (run_dir / "failure.txt").write_text("no node had 4 CPUs\nTraceback ...\n")
    text = read(run_dir).text
    assert "No updates yet: the ledger is empty." in text
    assert "no node had 4 CPUs" in text
    assert "Traceback" not in text


def test_damaged_rows_are_left_out_and_named_in_one_line(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", LEDGER)
    bad = ['{"step": 1', "[]", "null", lines([{**update(9), "epoch": "x"}]).strip(), "\xff"]
    text = lines(LEDGER[:2]) + "".join(line + "\n" for line in bad) + lines(LEDGER[2:])
    (run_dir / "ledger.jsonl").write_text(text, encoding="latin-1")
    run = read_run(run_dir)
    assert len(run.curve("lr", "sgd").values) == 40
    (note,) = run.notes
    assert note.startswith("ledger.jsonl: line 3, 4, 5 and 2 more cannot be read and is left out (JSONDecodeError: ")


def test_a_damaged_result_is_left_out_and_named(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", LEDGER)
    (run_dir / "result.json").write_text('{"status": ')
    run = read_run(run_dir)
    assert run.result == {}
    assert run.notes[0].startswith("result.json is damaged and left out: Expecting value")


def test_a_long_curve_keeps_its_ends_and_its_spikes() -> None:
    values = np.zeros(100_000)
    values[[51_234, 77_777]] = 5.0, -5.0
    epochs, thinned = thin(range(100_000), values)
    assert len(thinned) <= 2000
    assert (epochs[0], epochs[-1]) == (0, 99_999)
    assert {51_234, 77_777} <= set(epochs.tolist())


def test_a_diverged_curve_has_a_gap_and_a_page(tmp_path: Path) -> None:
    metrics = [report(10), report(20, train_loss=math.inf, test_loss=math.nan), report(30, test_loss=1e30)]
    assert "Loss" in read(make_run(tmp_path / "one", metrics=metrics)).text
    assert np.isnan(thin([0.0], [math.inf])[1][0])


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / path)) for path in ("a/x/run", "b/x/run", "other")]
    label(runs)
    assert [run.label for run in runs] == ["a/x/run", "b/x/run", "other"]


def test_a_run_given_twice_is_shown_once(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", LEDGER)
    assert "Differences" not in read(one, one).text


def test_pngs_are_written_for_each_section(tmp_path: Path) -> None:
    one = make_run(tmp_path / "$one$", LEDGER, METRICS, REJOIN)
    write_report([one], tmp_path / "new" / "report.html", tmp_path / "png")
    names = ["accuracy.png", "learning-rate.png", "loss.png", "throughput.png", "world-size.png"]
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == names
    assert all((tmp_path / "png" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run=.*none is no run folder, nor the name of one in runs"):
        write_report([tmp_path / "none"], tmp_path / "r.html")
    with pytest.raises(ConfigError, match=r"run= names no run; give the folder of at least one"):
        write_report([], tmp_path / "r.html")
    damaged = make_run(tmp_path / "damaged", policy={"examples_per_epoch": "many"})
    with pytest.raises(ConfigError, match=r"run=.*damaged is no run folder: its policy\.json is damaged \('"):
        write_report([damaged], tmp_path / "r.html")


def test_a_page_or_a_png_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", LEDGER)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"out=.*one cannot be written \(.*\); give another file"):
        write_report([one], one)
    with pytest.raises(ConfigError, match=r"png=.*learning-rate\.png cannot be written \(.*\); give another folder"):
        write_report([one], tmp_path / "r.html", tmp_path / "file" / "png")


def test_a_run_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    (one / "ledger.jsonl").unlink()
    (one / "ledger.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"run=.*one cannot be read \(Is a directory\); make it readable"):
        write_report([one], tmp_path / "r.html")


def test_the_loss_and_the_gradient_norm_of_each_update_are_drawn(tmp_path: Path) -> None:
    rows = [update(step, loss=2.0 - step / 100, grad_norm=step + 1.0) for step in range(40)]
    rows[7] |= {"loss": None, "grad_norm": None}  # not finite
    run = read_run(make_run(tmp_path / "one", rows, METRICS, plan={"clip_norm": 5.0}))
    found = {section.title: section for section in sections([run])}
    (norm,) = found["Gradient norm"].panels[0].lines
    assert norm.values.tolist() == [step + 1.0 for step in range(40) if step != 7]
    assert found["Gradient norm"].remarks == ("Of each update, before clipping (clip_norm 5.0).",)
    assert found["Loss"].panels[1].lines[0].values.tolist()[:2] == [2.0, 1.99]


def test_the_headroom_is_drawn_where_it_was_read(tmp_path: Path) -> None:
    rows = [
        update(step) | ({"headroom": 0.25, "critical_lr": {"sgd": 1.0}} if step % 5 == 0 else {}) for step in range(10)
    ]
    found = {section.title: section for section in sections([read_run(make_run(tmp_path / "one", rows))])}
    assert found["Headroom"].panels[0].lines[0].values.tolist() == [0.25, 0.25]
    plain = sections([read_run(make_run(tmp_path / "two", [update(0)]))])
    assert "Headroom" not in {section.title for section in plain}


def test_a_long_run_is_thinned_and_says_so(tmp_path: Path) -> None:
    rows = [update(step, grad_norm=1.0 + step % 7) for step in range(3000)]
    sections_ = {one.title: one for one in sections([read_run(make_run(tmp_path / "one", rows))])}
    assert len(sections_["Gradient norm"].panels[0].lines[0].values) <= 1200
    assert "lowest and the highest" in sections_["Gradient norm"].remarks[-1]


def test_points_between_the_tests_are_no_tests(tmp_path: Path) -> None:
    point = {"step": 5, "position": 500, "epoch": 0.5, "lr": {"sgd": 0.2}, "train_loss": 9.0, "grad_norm": 1.0}
    run = read_run(make_run(tmp_path / "one", metrics=[point, report(10), {**point, "epoch": 1.5}]))
    assert run.curve("train_loss").values.tolist() == [2.0]
    assert run.last_metrics["test_accuracy"] == 0.625


def test_the_best_accuracy_is_told_with_its_epoch(tmp_path: Path) -> None:
    metrics = [report(10, test_accuracy=0.5), report(20, test_accuracy=0.75), report(40)]
    text = read(make_run(tmp_path / "one", LEDGER, metrics, result=result())).text
    assert "best 75.00% at epoch 2" in text


def test_a_population_is_shown_by_its_trials_the_best_first_with_their_scores(tmp_path: Path) -> None:
    make_population(tmp_path / "search")
    folders = folders_named(["search", "search/t0"], str(tmp_path))
    assert [folder.name for folder in folders] == ["t1", "t0"]  # each once
    text = Reader(report_on(["search"], str(tmp_path), tmp_path / "page.html").read_text()).text
    assert "search, 2 trials" in text
    assert "best trial of search · score 0.5000" in text
    assert "trial of search · score 0.2500" in text
    assert text.index("t1") < text.index("t0")
    make_run(tmp_path / "one", LEDGER)
    runs = read_all(folders_named(["one", "search"], str(tmp_path)))
    assert [run.label for run in runs] == ["one", "search/t1", "search/t0"]
    alone = Reader(report_on(["search/t0"], str(tmp_path), tmp_path / "page.html").read_text()).text
    assert "trial of search · score 0.2500" in alone


def test_a_population_without_a_trial_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "space.json").write_text("{}")
    with pytest.raises(ConfigError, match="run=search is a population of which no trial has begun; wait for the first"):
        folders_named(["search"], str(tmp_path))


def test_a_fork_names_its_parent_and_what_it_changed(tmp_path: Path) -> None:
    plan = {"parent": {"run": "one", "position": 1500, "step": 15, "changes": ["epochs was 4 and is 8"]}}
    text = read(make_run(tmp_path / "fork", LEDGER, plan=plan)).text
    assert "fork of one at epoch 1.5, step 15: epochs was 4 and is 8" in text
    damaged = read_run(make_run(tmp_path / "damaged", plan={"parent": {"run": "one"}}))
    assert damaged.notes == ["plan.json does not tell the parent of this fork (KeyError: 'position')"]


def test_forks_are_a_tree_below_their_parents(tmp_path: Path) -> None:
    def fork(name: str, of: str, position: int) -> Path:
        parent = {"run": of, "position": position, "step": position // 100, "changes": ["seed was 0 and is 1"]}
        return make_run(tmp_path / name, LEDGER, METRICS, plan={"parent": parent})

    one = make_run(tmp_path / "one", LEDGER, METRICS)
    late, early, deep = fork("late", "one", 3000), fork("early", "one", 1000), fork("deep", "late", 3500)
    orphan = fork("orphan", "elsewhere", 2000)
    runs = [read_run(path) for path in (one, late, early, deep, orphan)]
    found = compare.forks(runs)
    assert [(branch.depth, branch.label, branch.index) for branch in found] == [
        (0, "one", 0), (1, "early", 2), (1, "late", 1), (2, "deep", 3), (0, "elsewhere", None), (1, "orphan", 4)
    ]  # fmt: skip
    assert found[1].text == "from epoch 1, step 10 · seed was 0 and is 1 · best 62.50%"
    assert compare.forks(runs[:1]) == []
    assert re.search(r"Forks\s*one best 62.50%\s*└ early from epoch 1, step 10", read(one, early).text)


def test_runs_that_name_each_other_as_parents_end_no_page(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        parent = {"run": other, "position": 100, "step": 1, "changes": []}
        make_run(tmp_path / name, LEDGER, plan={"parent": parent})
    assert compare.forks([read_run(tmp_path / name) for name in ("a", "b")]) == []


def test_a_page_of_eight_long_runs_stays_below_a_megabyte_and_a_half(tmp_path: Path) -> None:
    rows = [update(step, lr=1 / (step + 1), loss=1.0 + step % 17, grad_norm=0.1 * (step % 13)) for step in range(2500)]
    metrics = [report(step) for step in range(10, 2500, 10)]
    runs = [make_run(tmp_path / f"{number}", rows, metrics) for number in range(8)]
    assert write_report(runs, tmp_path / "report.html").stat().st_size < 1.5e6


MEASURE = """<body><script>
function point(page, picture, share) {
  const drawing = [...picture.querySelectorAll("svg")].find(one => one.getBoundingClientRect().width > 0);
  const box = drawing.getBoundingClientRect();
  const where = {clientX: box.left + share * box.width, clientY: box.top + 10, bubbles: true, pointerType: "mouse"};
  picture.dispatchEvent(new page.defaultView.PointerEvent("pointermove", where));
  const tip = picture.querySelector(".tip"), size = tip.getBoundingClientRect();
  return {text: tip.textContent, left: size.left, right: size.right, bottom: size.bottom,
    dots: picture.querySelectorAll(".dot").length};
}
function lines(page, run) {
  const found = [...page.querySelectorAll(`.picture [id*="-r${run}-l"]`)];
  return found.filter(one => one.getBoundingClientRect().width > 0).length;
}
function use(page) {
  const pictures = [...page.querySelectorAll(".picture")], key = page.querySelector(".key");
  const tips = pictures.map(one => point(page, one, 0.99)), before = [lines(page, 0), lines(page, 1)];
  const button = page.querySelector("button[data-run='0']");
  const reached = [...key.querySelectorAll("button")].filter(one => {
    one.scrollIntoView({block: "nearest"});
    const box = one.getBoundingClientRect(), around = key.getBoundingClientRect();
    return box.width > 20 && box.left >= 0 && box.right <= page.documentElement.clientWidth + 1
      && box.top >= around.top - 1 && box.bottom <= around.bottom + 1;
  }).length;
  button.click();
  const without = [lines(page, 0), lines(page, 1)], tip = point(page, pictures[0], 0.99);
  button.click();
  return {tips, before, without, tip, again: [lines(page, 0), lines(page, 1)], reached};
}
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement, shown = name => {
    const found = [...page.querySelectorAll("." + name + " svg")];
    return found.filter(one => one.getBoundingClientRect().width > 200).length;
  };
  const used = use(page);
  return {used, title: page.title, width: root.scrollWidth, wide: shown("wide"), narrow: shown("narrow"),
    text: Math.min(...[...page.querySelectorAll("svg text")].map(one => one.getBoundingClientRect().height).filter(h => h)),
    stroke: getComputedStyle(page.querySelector("[style*='stroke: var(--run0)']")).stroke,
    back: getComputedStyle(page.body).backgroundColor};
}
window.onload = () => {
  const frames = [...document.querySelectorAll("iframe")];
  document.body.textContent = "MEASURED" + JSON.stringify(frames.map(measure)) + "END";
};
</script>%s</body>"""


def measured(page: Path, scratch: Path, *flags: str) -> list[dict[str, Any]]:
    """What Chromium makes of a page at a width of 1280 and of 390 pixels."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH")
    frames = "".join(f'<iframe src="{page.as_uri()}" width="{width}" height="900"></iframe>' for width in (1280, 390))
    (scratch / "frames.html").write_text(MEASURE % frames)
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --hide-scrollbars --allow-file-access-from-files --window-size=1400,1000"
    command = [chromium, *quiet.split(), *more.split(), f"--user-data-dir={scratch / 'profile'}", *flags, "--dump-dom"]
    done = subprocess.run([*command, (scratch / "frames.html").as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search("MEASURED(.*?)END", done.stdout)
    assert found is not None, done.stderr
    return list(json.loads(found[1]))


def test_a_browser_shows_the_page_on_a_desktop_and_on_a_phone_in_light_and_in_dark(tmp_path: Path) -> None:
    one = make_run(tmp_path / EVIL.replace("/", "!"), LEDGER, METRICS, REJOIN, result=result())
    two = make_run(tmp_path / ("long" * 40), LEDGER, METRICS, config={"x": EVIL, "long": "long" * 200})
    page = write_report([one, two], tmp_path / "report.html")
    desktop, phone = measured(page, tmp_path, "--blink-settings=preferredColorScheme=1")
    assert "gone" not in (desktop["title"], phone["title"])
    assert (desktop["width"], phone["width"]) == (1280, 390)  # nothing sticks out
    assert (desktop["wide"], desktop["narrow"], phone["wide"], phone["narrow"]) == (5, 0, 0, 5)
    assert all(float(str(one["text"])) > 10 for one in (desktop, phone))  # pixels: to be read
    assert (desktop["back"], desktop["stroke"]) == ("rgb(247, 246, 243)", "rgb(47, 111, 183)")
    dark, _ = measured(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (dark["back"], dark["stroke"]) == ("rgb(20, 23, 27)", "rgb(121, 176, 238)")


def test_a_browser_shows_values_below_the_pointer_and_hides_a_run(tmp_path: Path) -> None:
    rows = [update(step, lr=0.4 - step / 100, loss=2.5, grad_norm=3.25) for step in range(40)]
    one = make_run(tmp_path / "one", rows, METRICS, REJOIN, result=result())
    others = [make_run(tmp_path / f"run-{number}-of-a-long-name", LEDGER, METRICS[:2]) for number in range(11)]
    for wide, page in zip(
        (True, False), measured(write_report([one, *others], tmp_path / "r.html"), tmp_path), strict=True
    ):
        used = page["used"]
        assert used["tips"][0]["text"].startswith("epoch 4")
        assert "one0.01" in used["tips"][0]["text"]  # 0.4 - 39 / 100, the last LR of the first run
        assert "run-3-of-a-long-name0.2" in used["tips"][0]["text"]
        assert used["tips"][0]["dots"] == 12
        texts = [tip["text"] for tip in used["tips"]]
        assert any("one test1.5" in text and "one train2" in text for text in texts)
        assert any("one3.25" in text for text in texts)
        assert any("one test62.50%" in text for text in texts)
        width = 1280 if wide else 390
        assert all(tip["left"] >= 0 and tip["right"] <= width for tip in used["tips"])
        assert used["reached"] == 12  # all runs, in the legend
        assert used["before"] == used["again"]
        assert used["without"] == [0, used["before"][1]]
        assert "one0.01" not in used["tip"]["text"]
        assert "run-3-of-a-long-name0.2" in used["tip"]["text"]

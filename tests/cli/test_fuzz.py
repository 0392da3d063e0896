"""Flags, files and policies that nobody wrote on purpose: each is answered by an exit code and at most one line."""

import json
import random
import warnings
from pathlib import Path

import pytest

from raylr.cli import main
from raylr.config import Config
from raylr.config.fields import Setting, settings
from raylr.config.population import PopulationConfig

CASES, BLOCKS = 500, 10
FIELDS = [one for one in settings(Config, names=()) if one.key not in ("data.source", "address")]
HEAD = [one for one in settings(Config, names=("head",)) if one.key.startswith("optimizers.")]
POPULATION = [one for one in settings(PopulationConfig, names=()) if one.key not in {f.key for f in FIELDS}]
VALUES = [
    *("", " ", "0", "1", "-1", "2", "7", "512", "0.5", "1e-3", "1e308", "1e400", "-0", "nan", "inf", "1_000", "0x10"),
    *("\u0661", "\u00b2", "yes", "no", "null", "~", "none", "auto", "a", "é", "🚀", "caf\udce9", "a\nb", "\x1b[1m", "%s"),
    *("'", '"', "{", "[", "*", "5ep", "400st", "20000ex", "0.3dur", "0ep", "-1ep", "1e9ep", "1.5.5ep", "ep", "5 ep"),
    *("2ep:3ep", "1:4", "4:1", "0:0", "0.25:4", ":", "9" * 30, "9" * 5000, "9" * 5000 + "ep", "x" * 3000),
    *("linear", "sqrt", "sde", "legw", "cosine", "cosine(floor=0.01)", "cosine(floor=2)", "step(every=2ep, gamma=0.5)"),
    *("sequence(constant for 1ep, cosine)", "knots(0ep:0.1, 2ep:1)", "knots(0ep:1)", "step(", "step()", "step(every=0ep)"),
    *("product(" * 200, "paced(cosine, every=0st)", "a:b", "os:nothing", "optimizer.momentum=0:1", "mlflow,wandb"),
    *("$NONE_SUCH/a", "$", "~no-such-one/x", "/dev/null", "/proc/self/mem", ".", "..", "none.json", "policy.json"),
    *("sgd", "adam", "lars", "muon", "cnn-large", "vit-small"),
]  # fmt: skip
VERBS = (
    *["plan"] * 12, *["train", "explore", "data"] * 2,
    *("explain", "fields", "runs", "report", "distill", "ctl", "export"),
)  # fmt: skip
FITTING = {
    "integer": ("1", "2", "64"), "number": ("0.1", "0.5", "2"), "yes|no": ("yes", "no"), "duration": ("1ep", "9st"),
    "lr.shape": ("cosine", "step(every=1ep, gamma=0.5)", "sequence(constant for 1ep, cosine)"), "workers": ("1", "1:2"),
    "model.name": ("cnn-medium", "resnet18"), "loss.name": ("cross-entropy",), "trackers": ("none", "mlflow,wandb"),
    "optimizers.head.match": ("*", "head.*"), "name": ("one", "two"), "storage": ("runs", "s3://a/b"),
    "data.root": ("data",), "data.cache_dir": ("c",), "policy": ("policy.json",),
}  # fmt: skip


def a_value(dice: random.Random, setting: Setting) -> str:
    """A value that fits the field, or seldom any other."""
    fitting = FITTING.get(setting.key) or setting.choices or FITTING.get(setting.kind)
    return dice.choice(fitting if fitting and dice.random() < 0.9 else VALUES)


def mangled(dice: random.Random, text: str) -> str:
    """The text, or seldom one with a few characters removed, doubled or replaced."""
    for _ in range(dice.choice((1, 2, 5)) if dice.random() < 0.1 else 0):
        at = dice.randrange(len(text) + 1)
        other = dice.choice(("", text[at : at + 9], dice.choice("{}[]():,=.-*&!|>'\"\0\n\t 0ep")))
        text = text[:at] + other + text[at + 1 :]
    return text


def chosen(dice: random.Random, fields: list[Setting]) -> list[Setting]:
    """A few fields, and seldom those of a named optimizer."""
    return dice.sample(fields + HEAD if dice.random() < 0.1 else fields, dice.choice((0, 1, 1, 2, 3)))


def flags(dice: random.Random, fields: list[Setting]) -> list[str]:
    found = []
    for setting in chosen(dice, fields):
        flag = "--" + mangled(dice, setting.key.replace("_", "-")).replace("\0", "0")
        value = a_value(dice, setting).replace("\0", "0")  # no command line has a null byte
        found += [flag] if setting.kind == "yes|no" else dice.choice(([flag, value], [f"{flag}={value}"]))
    return found


def yaml(dice: random.Random, fields: list[Setting]) -> str:
    """A config file of some fields, nested, dotted or in braces, with anchors and merges now and then."""
    lines = ["x-a: &a {base: 0.1}"] if dice.random() < 0.6 else []
    for setting in chosen(dice, fields):
        value = a_value(dice, setting)
        if dice.random() < 0.15:
            value = dice.choice((json.dumps(value), f"[{value}]", "null", "*a", "{<<: *a}", ""))
        section, _, leaf = setting.key.rpartition(".")
        nested = f"{section.replace('.', ': {')}: {{{leaf}: {value}{'}' * (section.count('.') + 1)}" if section else ""
        lines.append(dice.choice((f"{setting.key}: {value}", nested or f"{leaf}: {value}")))
    return mangled(dice, "\n".join(lines) + "\n")


def policy(dice: random.Random, whole: str) -> str:
    """A policy's file, mangled, or one in which a value is another kind of value."""
    if dice.random() < 0.5:
        return mangled(dice, whole)
    tree = json.loads(whole)
    node, key = tree, dice.choice(list(tree))
    while isinstance(node[key], (dict, list)) and node[key] and dice.random() < 0.8:
        node = node[key]
        key = dice.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
    node[key] = dice.choice((None, -1, 0, 1.5, 10**400, "", "x", [], {}, True, [node[key]], float("nan"), float("inf")))
    return json.dumps(tree)


def a_command(dice: random.Random, folder: Path, whole: str) -> list[str]:
    """Arguments of `raylr` that start nothing: a run or a population is refused before it starts."""
    verb = dice.choice(VERBS)
    source = ["--data.source", "synthetic" if dice.random() < 0.8 else dice.choice(VALUES), "--data.cache-dir", "c"]
    (folder / "config.yaml").write_text(yaml(dice, FIELDS), encoding="utf-8", errors="surrogateescape")
    config = ["config.yaml"] if dice.random() < 0.5 else []
    (folder / "policy.json").write_text(policy(dice, whole), encoding="utf-8", errors="surrogateescape")
    text = dice.choice(("one", "one/policy.json", *VALUES))
    if verb == "plan":
        extra = dice.choice(
            (
                [],
                ["--policy", "policy.json"],
                ["--world-sizes", dice.choice(("1", "2,4", *VALUES))],
                ["--save", dice.choice(VALUES)],
            )
        )
        return ["plan", *config, *source, *flags(dice, FIELDS), *extra]
    if verb == "train":
        return ["train", *config, *source, *flags(dice, FIELDS), "--workers", "9999"]
    if verb == "explore":
        return ["explore", *config, *source, *flags(dice, FIELDS + POPULATION), "--workers", "9999"]
    if verb == "data":
        return ["data", dice.choice(("describe", "verify", "x")), *config, *source]
    if verb == "explain":
        return ["explain", text, "--step", dice.choice(VALUES)]
    if verb == "distill":
        return ["distill", dice.choice(("policy.json", text)), "--knots", "2"]
    if verb == "ctl":
        return [
            "ctl",
            text,
            dice.choice(("status", "lr", "stop", "x")),
            *dice.choice(([], ["--factor", dice.choice(VALUES)])),
        ]
    return [
        verb,
        *dice.choice(([], [text], ["--storage", dice.choice(VALUES)], [text, "--storage", dice.choice(VALUES)])),
    ]


@pytest.fixture(scope="module")
def whole() -> str:
    from raylr.api.plan import plan

    config = Config(data={"source": "synthetic"}, epochs=3, lr={"shape": "sequence(constant for 1ep, step(every=1ep))"})
    return plan(config)[1].to_json()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_any_input_ends_with_an_exit_code_and_no_traceback(
    block: int, tmp_path: Path, whole: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/policy.json").write_text(whole)
    codes = set()
    for number in range(block * CASES // BLOCKS, (block + 1) * CASES // BLOCKS):
        arguments = a_command(random.Random(number), tmp_path, whole)
        told = f"case {number}: {arguments!r} with {(tmp_path / 'config.yaml').read_bytes()!r}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                code = main(arguments)
            except BaseException as error:
                raise AssertionError(told) from error
        codes.add(code)
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), told
        assert "Traceback" not in out + err, told
        if code == 2:
            assert err.startswith("error: "), told
            assert len(err.splitlines()) == 1, f"{told}: {err}"
    assert {0, 2} <= codes, "some are taken and some are refused"

"""The LR curves of the configs in jobs/recipes/, each from the config itself by `raylr.plan`, in one picture.

python -m benchmarks.gallery
"""

from pathlib import Path

from matplotlib.figure import Figure

import raylr
from benchmarks.common import ROOT
from raylr.reporting.plots import curves

RECIPES = ("multistep", "step", "exponential", "polynomial", "triangular", "warmup-triangular")
PICTURE = ROOT / "benchmarks" / "gallery" / "recipes.png"


def draw(names: tuple[str, ...], path: Path) -> None:
    """A panel for each recipe, under its name, with the shape as the config has it."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, names, strict=True):
        config = raylr.load_config(ROOT / "jobs" / "recipes" / f"{name}.yaml")
        plan, policy = raylr.plan(config)
        (curve,) = curves(plan, policy, [2])
        axes.plot(curve.epochs, curve.lr, linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set(ylim=(0, 0.105), xlim=(0, None))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    draw(RECIPES, PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

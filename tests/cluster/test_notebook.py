"""The notebook of the first hour, run as a reader runs it: each cell in a kernel, on a Ray of its own."""

from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
PATH = Path(__file__).parents[2] / "docs" / "first-hour.ipynb"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The notebook's cells of code with what they gave. A cell that raises fails the tests."""
    book = nbformat.read(PATH, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PATH.parents[1]))
        where = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
        nbclient.NotebookClient(book, timeout=240, kernel_name="python3", resources=where).execute()
    return [cell for cell in book.cells if cell.cell_type == "code"]


def output(cells: list[Any], source: str) -> str:
    """All that the cell gave that ends with this line."""
    (cell,) = [cell for cell in cells if cell.source.splitlines()[-1] == source]
    parts = [one.get("text") or one.data.get("text/html") or one.data["text/plain"] for one in cell.outputs]
    return "\n".join(parts)


def test_it_is_kept_without_outputs() -> None:
    kept = [cell for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in kept)


def test_the_plan_tells_its_reasons_and_the_policy_draws_itself(cells: list[Any]) -> None:
    assert "64 = 2 micro-batches of 32" in output(cells, "plan")
    assert "<polyline" in output(cells, "policy")


def test_training_draws_one_output_up_to_its_end_and_nobody_asks_for_widgets(cells: list[Any]) -> None:
    (cell,) = [cell for cell in cells if "raylr.train(config" in cell.source]
    assert [one.output_type for one in cell.outputs] == ["display_data"], cell.outputs
    drawn = cell.outputs[0].data["text/html"]
    assert 'value="1.0000"' in drawn
    assert "complete, test accuracy" in drawn
    assert drawn.count("<tr>") == 5  # a head, and a row for each epoch
    assert "<polyline" in drawn


def test_the_result_the_events_and_the_loaded_weights_agree(cells: list[Any]) -> None:
    assert "<b>status</b>" in output(cells, "result")
    assert output(cells, 'raylr.evaluate("first").test_accuracy == result.test_accuracy') == "True"


def test_an_update_is_explained_and_the_page_written(cells: list[Any]) -> None:
    assert "LR 0.0" in output(cells, 'print(raylr.explain("first", step=5))')
    assert "report.html" in output(cells, 'raylr.report("first", "report.html")')

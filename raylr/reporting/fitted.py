"""A plain table that fits the width: its columns go in a stated order, and no word is split."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 3  # between columns: a space on either side, and the border of the box, which is a space


class FittedTable(Table):
    """The first column is text, the others numbers if `numeric`.

    `drops` are headings, the first to go first; one ends a heading, so that it stands for those of all optimizers. Columns in
    `wraps` may break between words. The names of dropped columns stand below.
    """

    def __init__(
        self, *headings: str, numeric: bool = True, drops: Sequence[str] = (), wraps: Sequence[str] = ()
    ) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        self.drops, self.wraps = tuple(drops), frozenset(wraps)
        for index, heading in enumerate(headings):
            self.add_column(heading, justify="right" if numeric and index else "left", overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table without the columns for which there is no room."""
        limits = {index: self._limits(index) for index in range(len(self.columns))}
        kept, gone = list(limits), list[str]()
        for heading in self.drops:
            if _total(limits[index][0] for index in kept) <= options.max_width:
                break
            gone += [self._heading(index) for index in kept if self._heading(index).endswith(heading)]
            kept = [index for index in kept if not self._heading(index).endswith(heading)]
        shown = Table(box=self.box, pad_edge=False, show_edge=False, title=self.title, caption=self.caption)
        room = options.max_width - _total(limits[index][0] for index in kept)
        for index in kept:
            (least, most), own = limits[index], self.columns[index]
            width = least + max(0, min(room, most - least))
            room -= width - least
            shown.add_column(
                own.header,
                justify=own.justify,
                overflow=own.overflow,
                no_wrap=own.no_wrap,
                width=width,
                style=own.style,
            )
        for cells in zip(*(self.columns[index].cells for index in kept), strict=True):
            shown.add_row(*cells)
        yield shown
        if gone:
            yield Text(f"no room for {', '.join(gone)}", style="dim")

    def _heading(self, index: int) -> str:
        return str(self.columns[index].header)

    def _limits(self, index: int) -> tuple[int, int]:
        """The width that a column needs, and the one at which nothing breaks."""
        cells, heading = [str(cell) for cell in self.columns[index].cells], self._heading(index)
        lines = [line for cell in cells for line in cell.splitlines()]
        parts = [word for line in lines for word in line.split()] if heading in self.wraps else lines
        least = max(map(len, [*heading.split(), *parts]), default=0)
        return least, max(map(len, [heading, *lines]))


def _total(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * len(found)  # rich counts the padding of both edges, and leaves it out

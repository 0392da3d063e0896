"""A plain table that fits the width: its columns go in a stated order, and no word is split."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
        """The table without the columns for which there is no room; where even the others have none, a line for each cell."""
        limits = {index: self._limits(index) for index in range(len(self.columns))}
        kept, gone = list(limits), list[str]()
        for heading in self.drops:
            if _total(limits[index][0] for index in kept) <= options.max_width:
                break
            gone += [self._heading(index) for index in kept if self._heading(index).endswith(heading)]
            kept = [index for index in kept if not self._heading(index).endswith(heading)]
        if _total(limits[index][0] for index in kept) > options.max_width:
            yield from self._stacked(kept, options.max_width)
        else:
            yield self._laid_out(kept, limits, options.max_width)
        if gone:
            yield Text(f"no room for {', '.join(gone)}", style="dim")

    def _laid_out(self, kept: Sequence[int], limits: Mapping[int, tuple[int, int]], width: int) -> Table:
        """The columns, each with what it needs; what is left goes to whole cells first, then to those that wrap."""
        room = width - _total(limits[index][0] for index in kept)
        widths = {index: limits[index][0] for index in kept}
        wrapping = [index for index in kept if self._heading(index) in self.wraps]
        for index in (index for index in kept if index not in wrapping):
            more = min(room, limits[index][1] - widths[index])
            widths[index], room = widths[index] + more, room - more
        wanted = {index: limits[index][1] - widths[index] for index in wrapping}
        share = min(1.0, room / max(1, sum(wanted.values())))
        shown = Table(box=self.box, pad_edge=False, show_edge=False, title=self.title, caption=self.caption)
        for index in kept:
            own = self.columns[index]
            shown.add_column(
                own.header, justify=own.justify, overflow=own.overflow, no_wrap=own.no_wrap, style=own.style,
                width=widths[index] + int(share * wanted.get(index, 0)),
            )  # fmt: skip
        for cells in zip(*(self.columns[index].cells for index in kept), strict=True):
            shown.add_row(*cells)
        return shown

    def _stacked(self, kept: Sequence[int], width: int) -> Iterator[Text]:
        """Each row as lines: its first cell, and below it the others with their headings."""
        for cells in zip(*(self.columns[index].cells for index in kept), strict=True):
            yield Text(str(cells[0]), overflow="fold")
            for index, cell in zip(kept[1:], cells[1:], strict=True):
                if str(cell):
                    wrapper = textwrap.TextWrapper(width, "  ", "    ", break_on_hyphens=False)
                    yield from map(Text, wrapper.wrap(f"{self._heading(index)}: {cell}"))

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

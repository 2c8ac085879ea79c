"""Files of values between separators as rows of text, as spreadsheets of any country write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

#: What may stand between columns, by what it is called.
SEPARATORS = {",": ",", ";": ";", "tab": "\t"}
#: The first line that some spreadsheets write: it says what stands between columns.
_SAID = re.compile(r'"?sep=(.)"?\s*?[\r\n]', re.IGNORECASE)


def read_table(file: Path, separator: str) -> tuple[str, list[str], Iterator[list[str]]]:
    """Return what stands between columns, their names, and the cells of each further line.

    Lines that begin with ``#`` are comments; cells are without the blanks around them. Empty
    cells behind the last name are none, and a line that ends early has empty ones. Further lines
    are read as they are asked for, so that names can be judged before.
    """
    text = _text(file)
    said = _SAID.match(text)
    mark = SEPARATORS[separator] if separator != "auto" else _found(file, text, said)
    rows = _rows(file, text, mark)
    if said:
        next(rows)
    names = _ended(next(rows, (0, []))[1])
    if not names:
        raise ValueError(f"path: {file} is empty")
    return mark, names, (_filled(file, number, row, len(names)) for number, row in rows)


def _text(file: Path) -> str:
    """Return what is written in a file: UTF-8, or UTF-16 that says so."""
    content = file.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # of another encoding, or no text at all
        raise ValueError(
            f"path: {file} is no text in UTF-8; save it as UTF-8 (spreadsheets call that "
            "'CSV UTF-8', editors 'encoding')"
        )
    return text


def _found(file: Path, text: str, said: re.Match[str] | None) -> str:
    """Return what the file says that its separator is, or what makes most names of its first line.

    Names that begin as they have to count most, but one without a prefix is no reason to take
    another separator: the message is to be about that name.
    """
    if said:
        if said[1] not in SEPARATORS.values():
            raise ValueError(f"path: {file} says {said[0].strip()!r}, but needs ',', ';' or a tab")
        return said[1]

    def names_made(mark: str) -> tuple[bool, int, int]:
        names = _ended(next(_rows(file, text, mark), (0, []))[1])
        known = sum(name == "sample" or name.startswith(("x:", "y:")) for name in names)
        return 1 < known == len(names), known, len(names)

    return max("\t;,", key=names_made)


def _rows(file: Path, text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is neither empty nor a comment, with its number.

    Each row has a reader of its own, which takes further lines only while a quote is open: in
    quotes a line that begins with ``#`` is text.
    """
    lines = enumerate(io.StringIO(text, newline=""), 1)
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        whole = chain([line], (further for _, further in lines), _unclosed(number))
        try:
            cells = next(csv.reader(whole, delimiter=mark, skipinitialspace=True))
        except (csv.Error, EOFError) as error:
            raise ValueError(f"path: {file} cannot be read as CSV: {error}") from error
        yield number, [cell.strip() for cell in cells]


def _unclosed(number: int) -> Iterator[str]:
    """Raise when a reader wants more than there is."""
    raise EOFError(f"a quote that opens in line {number} is never closed")
    yield ""


def _ended(cells: list[str]) -> list[str]:
    """Return cells up to the last that is not empty."""
    return cells[: max((i + 1 for i, cell in enumerate(cells) if cell), default=0)]


def _filled(file: Path, number: int, cells: list[str], count: int) -> list[str]:
    """Return as many cells as there are names."""
    got = len(_ended(cells))
    if got > count:
        raise ValueError(
            f"path: line {number} of {file} has {got} values, those before have {count}"
        )
    return [*cells, *[""] * count][:count]

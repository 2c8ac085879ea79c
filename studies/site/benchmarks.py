"""Put what ``nox -s bench`` printed into ``benchmarks.json``, from which the page is made.

``nox -s bench > bench.txt; python studies/site/benchmarks.py bench.txt``
"""

import argparse
import datetime
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("benchmarks.json")
HEADING = re.compile(r"^== (.+)$", re.MULTILINE)
LINE = re.compile(r"^(ok  |MISS) (.+): (\S+) +(.*?) ?\(goal: (at \w+ [^,)]+)", re.MULTILINE)


def rows(text: str) -> list[list[str | bool]]:
    """Return what was measured, the figure, its goal, and whether it was missed."""
    found = LINE.findall(text)
    return [
        [what, f"{value} {unit}".strip(), goal, mark == "MISS"]
        for mark, what, value, unit, goal in found
    ]


def parts(text: str) -> list[dict[str, Any]]:
    """Return the headings that figures stand under, with these."""
    _, *found = HEADING.split(text)
    titled = zip(found[::2], map(rows, found[1::2]), strict=True)
    return [
        {"title": title[:1].upper() + title[1:], "rows": these} for title, these in titled if these
    ]


def main() -> None:
    """Put the parts of a run in the place of those with their titles, and the others behind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("printed", type=Path, help="what the bench printed")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    parser.add_argument("--machine", default=machine)
    options = parser.parse_args()
    when = datetime.date.fromtimestamp(options.printed.stat().st_mtime).isoformat()
    made = parts(options.printed.read_text(encoding="utf-8"))
    new = {part["title"]: part | {"when": when, "machine": options.machine} for part in made}
    old = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else []
    kept = {part["title"]: part for part in old}
    text = json.dumps([*(kept | new).values()], indent=1, ensure_ascii=False)
    TABLE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Put what ``nox -s bench`` printed into ``benchmarks.json``, from which the page is made.

``nox -s bench > bench.txt; python studies/site/benchmarks.py bench.txt --title Continuation``
"""

import argparse
import datetime
import json
import platform
import re
from pathlib import Path

TABLE = Path(__file__).with_name("benchmarks.json")
LINE = re.compile(r"^(ok  |MISS) (.+): (\S+) +(.*?) ?\(goal: (at \w+ [^,)]+)", re.MULTILINE)


def rows(text: str) -> list[list[str | bool]]:
    """Return what was measured, the figure, its goal, and whether it was missed."""
    found = LINE.findall(text)
    return [
        [what, f"{value} {unit}".strip(), goal, mark == "MISS"]
        for mark, what, value, unit, goal in found
    ]


def main() -> None:
    """Replace the part of that title, or add it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("printed", type=Path, help="what the bench printed")
    parser.add_argument("--title", required=True, help="title of the part of the page")
    parser.add_argument("--machine", default=f"{platform.machine()}, {platform.system()}")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    when = datetime.date.fromtimestamp(options.printed.stat().st_mtime).isoformat()
    part = {"title": options.title, "when": when, "machine": options.machine, "note": options.note}
    part["rows"] = rows(options.printed.read_text(encoding="utf-8"))
    parts = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else []
    others = [other for other in parts if other["title"] != options.title]
    text = json.dumps([*others, part], indent=1, ensure_ascii=False)
    TABLE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

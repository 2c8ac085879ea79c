"""Draw the folders of dlnds and who imports whom: ``python studies/site/house.py``.

The arrows are those of the sources of today. One that others imply is left out: where saddles
import landscape, and landscape imports systems, saddles may import systems.
"""

import ast
import itertools
from pathlib import Path

ROOT = Path(__file__).parents[2] / "dlnds"
#: Folders, and the files at the root by what they are: column, row, and what is in them.
ROOMS = {
    "entrance": (2, 0, "cli, accessor, dl.*"),
    "plot": (0, 1, "pictures of Datasets"),
    "saddles": (2.5, 1, "between critical points"),
    "sweeps": (4, 1, "many runs over a grid"),
    "continuation": (1, 2, "as a parameter varies"),
    "landscape": (2, 2, "critical points"),
    "runs": (3, 2, "flow, exponents"),
    "systems": (2, 3, "one protocol"),
    "theory": (2, 4, "formulas of arrays"),
    "_kernels": (3.4, 4, "compiled"),
    "ground": (2, 5, "schema, store, errors, arrays"),
}
ENTRANCE = {"__init__", "__main__", "accessor", "cli"}
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 150, 44, 172, 84, 90


def room(part: str) -> str:
    """Return the room of a file or folder at the root of the package."""
    stem = part.partition(".")[0]
    if stem in ROOMS:
        return stem
    return "entrance" if stem in ENTRANCE else "ground"


def imports() -> set[tuple[str, str]]:
    """Return the pairs of rooms of which the first imports the second."""
    pairs = set()
    for path in [*ROOT.rglob("*.py"), ROOT / "__init__.pyi"]:
        own = room(path.relative_to(ROOT).parts[0])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            whole = f"{'dlnds.' * node.level}{node.module or ''}".rstrip(".").split(".")
            names = [[*whole, alias.name] for alias in node.names]
            pairs |= {(own, room(name[1])) for name in names if name[0] == "dlnds"}
    return {(one, other) for one, other in pairs if one != other}


def arrows() -> list[tuple[str, str]]:
    """Return the imports that no chain of others implies."""
    pairs = imports()
    behind = set(pairs)
    for middle, one, other in itertools.product(ROOMS, repeat=3):
        if {(one, middle), (middle, other)} <= behind:
            behind.add((one, other))
    implied = {(a, c) for a, b in pairs for d, c in behind if b == d}
    return sorted(pairs - implied)


def picture() -> str:
    """Return the drawing as SVG."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * MARGIN + 4 * ACROSS} '
        f'{5 * DOWN + 2 * HEIGHT}" font-family="sans-serif" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>',
    ]
    for one, other in arrows():
        (a, i, _), (b, j, _) = ROOMS[one], ROOMS[other]
        b = a if other == "ground" else b  # the ground is under all of them
        x, y = (MARGIN + ACROSS * c for c in (a, b))
        top, bottom = HEIGHT + DOWN * i + HEIGHT // 2, HEIGHT + DOWN * j - HEIGHT // 2
        if i == j:
            side = WIDTH // 2 if b > a else -WIDTH // 2
            x, y, top, bottom = x + side, y - side, HEIGHT + DOWN * i, HEIGHT + DOWN * j
        lines.append(
            f'<path id="{one}-{other}" d="M{x:g},{top} L{y:g},{bottom}" stroke="black" '
            'marker-end="url(#tip)"/>'
        )
    for name, (column, row, text) in ROOMS.items():
        width = WIDTH + 4 * ACROSS if name == "ground" else WIDTH
        x, y = MARGIN + ACROSS * column, HEIGHT + DOWN * row
        lines += [
            f'<rect x="{x - width / 2:g}" y="{y - HEIGHT // 2}" width="{width}" '
            f'height="{HEIGHT}" rx="6" fill="#eef3f8" stroke="#456"/>',
            f'<text x="{x:g}" y="{y - 3}" font-size="14">{name}</text>',
            f'<text x="{x:g}" y="{y + 14}" font-size="11" fill="#456">{text}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture(), encoding="utf-8")

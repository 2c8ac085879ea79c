"""Links to the glossary: the first use of each of its words on a page leads to it."""

import re
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).parent
#: Pages of text that readers go through; those of the API say what each name is.
PAGES = re.compile(r"(?!changes)[a-z]+|gallery/(?!index)\w+|generated/theory")


def entries(text: str) -> dict[str, list[str]]:
    """Return the entries of the glossary, by what they are called in text."""
    found: dict[str, list[str]] = {}
    for head in re.findall(r"^(\S.*)\n: ", text, re.MULTILINE):
        names = [re.split(r"[,(]", head)[0].strip(), *re.findall(r"\(([^)]*)\)", head)]
        found[head] = names
    return found


def glossary() -> dict[str, list[str]]:
    """Return the entries of the glossary of this site."""
    return entries((SITE / "glossary.md").read_text(encoding="utf-8"))


def as_directive(text: str) -> str:
    """Return a page of definitions, as GitHub shows it, as a glossary that Sphinx can link to."""
    title, *parts = re.split(r"\n\n(?=\S.*\n: )", text.rstrip("\n"))
    lines = [re.sub(r"^: ", "  ", part, flags=re.MULTILINE) for part in parts]
    return "\n\n".join([title, "```{glossary}", *lines, "```", ""])


class Uses:
    """Finds the first use of each entry on a page, whose texts it is given in their order."""

    def __init__(self, names: dict[str, list[str]]):
        head = {name.lower(): entry for entry, own in names.items() for name in own}
        longest = sorted(head, key=len, reverse=True)
        words = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in longest)
        self._head, self._seen = head, set[str]()
        self._pattern = re.compile(rf"(?<![\w-])({words})(?:s|es)?(?![\w-])", re.IGNORECASE)

    def of(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where first uses begin and end, and of which entry they are."""
        for match in self._pattern.finditer(text):
            entry = self._head[" ".join(match[1].lower().split())]
            if entry not in self._seen:
                self._seen.add(entry)
                yield match.start(), match.end(), entry

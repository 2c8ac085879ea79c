"""Indices and powers in plain text, W_1 and s^{h−1}, set low and high on every page."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

#: A single letter with an index, or anything with a power; words such as ``stop_reason`` stay.
_INDEX = re.compile(
    r"(?<![A-Za-z0-9_])(?P<base>[A-Za-zΑ-ωℓẆṗṡ𝒜])_"
    r"(?P<low>\{[^{}]*\}|(?:min|max|[A-Za-z0-9∞])(?![A-Za-z0-9_]))"
    r"|(?<=\S)\^(?P<high>\{[^{}]*\}|[−-]?\d+|[A-Za-z])"
)
_CODE = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.raw, nodes.math_block)
_KEPT = (*_CODE, nodes.math, addnodes.desc_signature)


class Typeset(SphinxPostTransform):
    """Splits text where there are indices or powers."""

    default_priority = 900
    builders = ("html",)

    def run(self, **options: object) -> None:
        """Go over all text that is no code."""
        for text in list(self.document.findall(nodes.Text)):
            if not _is_code(text) and _INDEX.search(text):
                text.parent.replace(text, list(_parts(text.astext())))


def _is_code(node: nodes.Node) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, _KEPT):
            return True
    return False


def _parts(text: str) -> list[nodes.Node]:
    """Return text as nodes: plain, low and high ones."""
    found, last = [], 0
    for match in _INDEX.finditer(text):
        found.append(nodes.Text(text[last : match.start()] + (match["base"] or "")))
        words = (match["low"] or match["high"]).strip("{}")
        kind = nodes.subscript if match["low"] else nodes.superscript
        found.append(kind("", words))
        last = match.end()
    return [node for node in [*found, nodes.Text(text[last:])] if node.astext()]

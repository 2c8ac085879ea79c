"""Indices and powers in plain text, W_1 and s^{h−1}, set low and high on every page."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_BRACED = r"\{(?:[^{}]|\{[^{}]*\})*\}"
#: Single letters, at most with an accent or a star, those right after W_1 or after one capital.
_LETTER = (
    r"(?:(?<![A-Za-z0-9_])|(?<=(?<![a-z_])[A-Za-z]_[A-Za-z0-9])|(?<=(?<![A-Za-z0-9_])[A-Z]))"
    r"[^\W\d_][\u0300-\u036f*]*"
)
_WORD = r"(?<![A-Za-z0-9_])(?:lim|min|max|sup|inf|blk)"
#: An index: in braces, a word, or one or two signs; right after it a further factor may stand.
_LOW = (
    rf"{_BRACED}|(?:min|max|[A-Za-z0-9Α-ω]{{1,2}}|[∞+*])(?![A-Za-z0-9_])"
    r"|[A-Za-z0-9](?=[A-Za-zΑ-ω]_)"
)
_HIGH = rf"{_BRACED}|\([^()]*\)|[−-]?\d+|[A-Za-z+]"
#: A letter, a norm, a positive part, a gradient or an integral with an index, or anything with a
#: power; words such as ``stop_reason`` stay.
_INDEX = re.compile(
    rf"(?P<base>{_LETTER}|{_WORD}|[‖\]∇∫])_(?P<low>{_LOW})|(?<=\S)\^(?P<high>{_HIGH})"
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
                text.parent.replace(text, _parts(text.astext()))


def _is_code(node: nodes.Node) -> bool:
    """Return whether text is kept: other extensions have blocks of code that name a language."""
    while (node := node.parent) is not None:
        if isinstance(node, _KEPT) or "lang" in node or "language" in node:
            return True
    return False


def _parts(text: str) -> list[nodes.Node]:
    """Return text as nodes: plain, low and high ones, which may have indices of their own."""
    found, last = [], 0
    for match in _INDEX.finditer(text):
        found.append(nodes.Text(text[last : match.start()] + (match["base"] or "")))
        words = match["low"] or match["high"]
        kind = nodes.subscript if match["low"] else nodes.superscript
        found.append(kind("", "", *_parts(words[1:-1] if words[0] in "{(" else words)))
        last = match.end()
    return [node for node in [*found, nodes.Text(text[last:])] if node.astext()]

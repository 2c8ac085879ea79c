"""Text on pages: W_1 and s^{h−1} are set low and high, terms lead to the glossary."""

import re

import terms
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
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
#: Where no term is linked: in what is a link already, in what stands out by itself, and in the
#: containers of what cells print and of names of tests, whose words are no terms.
_NO_TERMS = (
    nodes.container,
    *(nodes.title, nodes.term, nodes.reference, nodes.comment, nodes.rubric, nodes.caption),
    *(addnodes.pending_xref, addnodes.download_reference, addnodes.toctree, nodes.target),
)


class Typeset(SphinxPostTransform):
    """Splits text where there are indices or powers."""

    default_priority = 900
    builders = ("html",)

    def run(self, **options: object) -> None:
        """Go over all text that is no code."""
        for text in list(self.document.findall(nodes.Text)):
            if not _is_code(text) and _INDEX.search(text):
                text.parent.replace(text, _parts(text.astext()))


class Terms(SphinxTransform):
    """Makes the first use of each term on a page a link to the glossary."""

    default_priority = 800

    def apply(self, **options: object) -> None:
        """Go over all text that is neither code nor heading nor a link."""
        if self.env.docname == "glossary" or not terms.PAGES.fullmatch(self.env.docname):
            return
        uses = terms.Uses(terms.glossary())
        for text in list(self.document.findall(nodes.Text)):
            if not _is_code(text) and not _stands_in(text, _NO_TERMS):
                found, last = [], 0
                for begin, end, entry in uses.of(text.astext()):
                    found += [nodes.Text(text[last:begin]), self._link(text[begin:end], entry)]
                    last = end
                if found:
                    text.parent.replace(text, [*found, nodes.Text(text[last:])])

    def _link(self, words: str, entry: str) -> nodes.Node:
        link = {"reftype": "term", "refdomain": "std", "reftarget": entry, "refwarn": True}
        inner = nodes.inline("", words, classes=["std", "std-term"])
        page = self.env.docname
        return addnodes.pending_xref("", inner, refdoc=page, refexplicit=True, **link)


def _stands_in(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, kinds):
            return True
    return False


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

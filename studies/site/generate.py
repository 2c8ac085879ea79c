"""Pages that are made of the package: names by subject, files, statements, papers, figures.

`write` puts them into ``generated/``, where Sphinx finds them; ``conf.py`` calls it first.
"""

import inspect
import json
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import xarray as xr

import dlnds as dl
from dlnds import papers, schema
from dlnds.plot import pictures

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
#: The studies in the order of the gallery, from the simplest to the hardest: one mode and its
#: saddle, runs of several modes, landscapes and what else runs do, then what takes more theory.
STUDIES = (
    *("one_hidden_node", "learning_semantics", "singular_value_dynamics", "saddle_escape"),
    *("phase_diagram", "your_training_run", "landscape_atlas", "silent_alignment"),
    *("early_stopping", "weight_decay", "lazy_and_rich", "matrix_completion"),
    *("arcs", "landscape_census", "crossing_modes", "riemannian_flow"),
    *("learning_coefficient", "beyond_the_origin"),
)


def subjects() -> dict[str, tuple[str, list[str]]]:
    """Return the public names by subject, with a line on each subject, out of ``dl.__doc__``."""
    found = re.findall(r"^(\w[^:\n]*): (.+)\n((?:    .+\n)+)", dl.__doc__ or "", re.MULTILINE)
    return {title: (line, re.findall(r"\w+", names)) for title, line, names in found}


def members(module: ModuleType) -> list[str]:
    """Return what a public module offers: its own functions and classes, and those it names so."""
    named = getattr(module, "__all__", ())
    return [
        name
        for name, thing in inspect.getmembers(module)
        if not name.startswith("_")
        and getattr(dl, name, None) is not thing
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and (thing.__module__.startswith(module.__name__) or name in named)
        and "Examples\n" in (thing.__doc__ or "")
    ]


def listed(names: list[str]) -> list[str]:
    """Return names of what has a page: public names, and for modules what is in them."""
    found = []
    for name in names:
        thing = getattr(dl, name)
        inside = members(thing) if inspect.ismodule(thing) else []
        found += [f"{name}.{member}" for member in inside] if inside else [name]
    return found


def api() -> str:
    """Return the page of all public names, by subject."""
    text = ["API by subject\n==============\n", ".. currentmodule:: dlnds\n"]
    text.append("``import dlnds as dl``; each name below is ``dl.NAME``.\n")
    for title, (line, names) in subjects().items():
        text += [title, "-" * len(title), "", f"{line[0].upper()}{line[1:]}.", ""]
        text += [".. autosummary::", "   :toctree: api", "   :nosignatures:", ""]
        text += [f"   {name}" for name in listed(names)] + [""]
    return "\n".join(text)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def schemas() -> str:
    """Return the page of what every file holds: variables, dims, units, flags."""
    text = [
        "# What every file holds\n",
        "Each Dataset names its kind in `ds.attrs['schema']`. The tables list the variables that a",
        "kind is sure to have, with their dims, and in *italics* the optional ones, with when this",
        "package writes them. Dims are those of one run over time: a run of iterations has",
        "`iteration` for `time`. A stack of runs has `sample` in front. Its runs have the times of",
        "`t_eval` in common. Without `t_eval`, or with events, each has its own: rows are numbered",
        "by `step` in place of `time`, the variable `time(sample, step)` tells when they are, and",
        "behind the last row of a run there is NaN, or −1 as its `event`. A dim may have a",
        "coordinate of its own name, its labels; functions that you give to `save=`, or to an",
        "equation as what it observes, are there under their names.",
        'All quantities are pure numbers, with the units `"1"`: time is that of the equation.',
        "Flags are small integers; `dl.schema.decode(variable)` gives their words.",
        "*Picture* is what `ds.dlnds.plot()` draws, or where to look if a kind has none.\n",
    ]
    text += ["## Attributes of all files\n", "Those of a system are there if it has them.", ""]
    text += [
        _attributes(""),
        "Each kind lists below its variables what attributes it may have beside these.\n",
    ]
    for name in schema.REQUIRED:
        text.append(f"({name}-file)=\n## {name}\n")
        text += [*_nodes(name), f"*Picture:* {pictures.told(name)}.\n"]
        said = _words(name)
        rows = [
            (f"`{v}`", _dims(dims), said[v], "always") for v, dims in schema.whole(name).items()
        ]
        rows += [
            (f"*`{v}`*", _dims(dims), said[v], f"optional: {_WRITTEN.get(when, when)}")
            for v, (dims, when) in schema.optional(name).items()
        ]
        if rows:
            text.append(_table(("variable", "dims", "what", "when it is there"), rows))
        if schema.attributes(name):
            text.append(_attributes(name))
    text += ["## All names\n", "What a variable or a dim of that name means in any file.\n"]
    every = [
        (f"`{n}`", words[0], _symbol(words[1])) for n, words in sorted(schema.DESCRIPTIONS.items())
    ]
    text.append(_table(("name", "what", "symbol in pictures"), every))
    return "\n".join(text)


def _attributes(kind: str) -> str:
    rows = [(f"`{name}`", words) for name, words in schema.attributes(kind).items()]
    return _table(("attribute", "what"), rows)


#: What is said of what is optional for readers alone.
_WRITTEN = {"always": "always written"}


def _nodes(name: str) -> list[str]:
    """Return what is said of the nodes of a kind that is a tree."""
    needed, others = schema.REQUIRED_NODES.get(name), schema.OPTIONAL_NODES.get(name, {})
    if needed is None:
        return []
    said = f" with these nodes: {_kinds(needed)}" if needed else ""
    also = "; ".join(f"{when} {_kinds(nodes)}" for when, nodes in others.items())
    return [f"A DataTree{said}." + (f" Optional nodes: {also}." if also else "") + "\n"]


def _kinds(nodes: Mapping[str, str]) -> str:
    return ", ".join(f"`{node}` of kind [{kind}](#{kind}-file)" for node, kind in nodes.items())


def _dims(dims: tuple[str, ...]) -> str:
    return ", ".join(f"`{dim}`" for dim in dims) or "one number"


def _symbol(text: str) -> str:
    return f"`{text.strip('$')}`" if text else ""


def _words(kind: str) -> dict[str, str]:
    """Return what `schema.finish` says of variables in that kind of Dataset, with their flags."""
    names = {*schema.DESCRIPTIONS, *schema.REQUIRED[kind], *schema.optional(kind)}
    told = schema.finish(xr.Dataset(dict.fromkeys(sorted(names), 0)), kind, {})
    return {str(name): _spoken(variable.attrs) for name, variable in told.items()}


def _spoken(words: dict[str, Any]) -> str:
    meanings = words.get("flag_meanings", "").split()
    flags = zip(words.get("flag_values", []), meanings, strict=True)
    listed = ", ".join(f"{n} `{word}`" for n, word in flags)
    return str(words["long_name"]) + (f": {listed}" if listed else "")


def ledger() -> list[dict[str, Any]]:
    """Return the statements of the theory, each with its sources and its tests."""
    return tomllib.loads((SITE / "ledger.toml").read_text(encoding="utf-8"))["statement"]


def theory() -> str:
    """Return the page of statements: the text of ``notation.md``, then one by one."""
    text, last = [(SITE / "notation.md").read_text(encoding="utf-8")], ""
    for number, entry in enumerate(ledger(), 1):
        if entry["subject"] != last:
            last = entry["subject"]
            text.append(f"## {last}\n")
        sources = ", ".join(f"[{key}](#{key.lower()})" for key in entry["sources"])
        text += [
            f"**{number}.** {entry['says'].strip()}\n",
            f"*Source:* {sources or 'this package'}.",
        ]
        text.append(
            f":::{{container}} tests\n*Fails if it is false:* {'; '.join(_checks(entry))}.\n:::\n"
        )
    return "\n".join(text)


def _checks(entry: dict[str, Any]) -> list[str]:
    """Return the names of tests as sentences, with their files, and links to studies."""
    tests = [test.partition("::")[::2] for test in entry["tests"]]
    sentences = [f"{name[5:].replace('_', ' ')} (`{path}`)" for path, name in tests]
    studies = [(s.replace("_", " "), s) for s in entry.get("studies", [])]
    return sentences + [f"the study [{words}](../gallery/{name}.rst)" for words, name in studies]


def literature() -> str:
    """Return the page of papers, each with its key."""
    text = [
        "# Literature\n",
        "The keys that docstrings and pages cite. `dl.cite(dl.flow)` tells on which of them a",
        "function rests, `dl.cite(run)` a result; with `form='bibtex'` as entries for BibTeX.\n",
    ]
    for key in papers.PAPERS:
        text.append(f"({key.lower()})=\n**{key}**\n: {papers.reference(key)}\n")
        text.append(f"```bibtex\n{papers.bibtex(key)}\n```\n")
    return "\n".join(text)


def benchmarks() -> str:
    """Return the page of measured figures, with date, machine and misses."""
    text = [(SITE / "benchmarks.md").read_text(encoding="utf-8")]
    for part in json.loads((SITE / "benchmarks.json").read_text(encoding="utf-8")):
        rows = [(*row[:3], "**missed**" if row[3] else "met") for row in part["rows"]]
        text.append(f"## {part['title']}\n\n{part['when']}, {part['machine']}.\n")
        text.append(_table(("what", "measured", "goal", ""), rows))
    return "\n".join(text)


def mark_up(
    app: object, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Turn keys of papers in docstrings into links, and bars into mere bars."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = _linked(line)


def _linked(line: str) -> str:
    """Return a line of text with links for keys of papers, and bars that are mere bars."""
    key = re.compile(rf"(?<![\w`])({'|'.join(papers.PAPERS)})(?!\w)")
    parts = re.split(r"(``.*?``)", line)  # every other one is code
    parts[::2] = [key.sub(r":ref:`\1 <\1>`", p.replace("|", r"\|")) for p in parts[::2]]
    return "".join(parts)


_QUICK_FORM = """
.. admonition:: The quick form

   What ran here, while this site was built, is ``--quick``: {lacks}. The text is about the full
   form, which takes minutes: its picture is :download:`here <../../pictures/{name}.png>`, and
   ``python studies/{name}.py`` makes it, in a clone of the repository.

"""


#: What notebooks of studies begin with: their kernel was started with arguments of its own.
FIRST_CELL = """\
# The options of this study; without "--quick" it runs in its full form, which takes minutes.
import sys

sys.argv = ["study", "--quick"]"""


def place_of_study(path: str) -> int:
    """Return the place of a study in the gallery."""
    return STUDIES.index(Path(path).stem)


def _quick_form(name: str) -> str:
    """Return what the page of a study says of its form, and of the full one."""
    study = (ROOT / "studies" / f"{name}.py").read_text(encoding="utf-8")
    lacks = re.search(r'"--quick",.*help="([^"]+)"', study)
    assert lacks, f"{name}.py: needs a help for --quick that tells what it has less of"
    return _QUICK_FORM.format(name=name, lacks=lacks[1])


def prepare_study(app: object, page: str, source: list[str]) -> None:
    """Say which form is shown, let names and keys in the text be links, and bars mere bars."""
    name = page.removeprefix("gallery/")
    if name in STUDIES:
        underline = re.compile(r"(?<=\n)=+\n")
        source[0] = underline.sub(lambda line: line[0] + _quick_form(name), source[0], count=1)
    if page.startswith("gallery/"):
        lines = source[0].splitlines()
        code = [line.startswith((" ", "..")) or line.strip() == "|" for line in lines]
        kept = [
            line if is_code else _linked(line) for line, is_code in zip(lines, code, strict=True)
        ]
        source[0] = "\n".join([".. currentmodule:: dlnds", "", *kept])


def link_names(app: object, page: str, source: list[str]) -> None:
    """Make names of this package links to the API, on pages that are read without a build, too."""
    if (SITE / f"{page}.md").is_file():
        parts = re.split(r"(^```.*?^```$)", source[0], flags=re.MULTILINE | re.DOTALL)
        parts[::2] = [_NAMED.sub(_referred, text) for text in parts[::2]]  # the others are code
        source[0] = "".join(parts)


_NAMED = re.compile(r"(?<![`\[])`dl\.([\w.]+)`(?!`)")


def _referred(match: re.Match[str]) -> str:
    """Return a name as a link to its page, or to that of the class or module that it is in."""
    known = {name for _, names in subjects().values() for name in listed(names)}
    for name in (match[1], match[1].rpartition(".")[0]):
        if name in known:
            return f"{{py:obj}}`dl.{match[1]} <dlnds.{name}>`"
    return match[0]


class Plain(str):
    """An annotation as it is written, which `inspect` would put into quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def as_written(
    app: object, what: str, name: str, thing: Any, options: object, given: str, returned: str
) -> tuple[str, str] | None:
    """Return a signature with the annotations of the source: ``ArrayLike``, ``xr.Dataset``."""
    try:
        whole = inspect.signature(thing)
    except (TypeError, ValueError):  # no callable, or one of C
        return None
    parts = [
        p.replace(annotation=Plain(p.annotation)) if isinstance(p.annotation, str) else p
        for p in whole.parameters.values()
        if p.name != "self"
    ]
    text = str(whole.replace(parameters=parts, return_annotation=inspect.Signature.empty))
    shown = whole.return_annotation if isinstance(whole.return_annotation, str) else ""
    return text, shown


def quick(gallery: object, block: dict[str, Any]) -> list[str]:
    """Return the arguments that studies run with: their quick form, the picture elsewhere."""
    return ["--quick", "--out", str(Path(tempfile.gettempdir()) / "dlnds-study.png")]


def pages() -> Iterator[tuple[str, str]]:
    """Yield names of generated files, and what is in them."""
    yield "api.rst", api()
    yield "files.md", schemas()
    yield "theory.md", theory()
    yield "literature.md", literature()
    yield "benchmarks.md", benchmarks()


def animals(folder: Path) -> None:
    """Write the page of an atlas, which readers of the site can explore."""
    data = dl.read_csv("semantic")
    net = dl.LinearNetwork.from_data(data.X, data.Y, hidden=(16, 16))
    atlas = dl.build_atlas(net, n_runs=30, rng=0)
    atlas.attrs["title"] = data.attrs["title"]
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "animals.html"
    dl.save_page(atlas, page)
    back = '</h1>\n<p><a href="index.html">Back to the manual of dlnds</a></p>'
    page.write_text(page.read_text(encoding="utf-8").replace("</h1>", back, 1), encoding="utf-8")


def write(folder: Path) -> None:
    """Write all of these pages, touch none that is as it was, and take away what was before."""
    animals(folder / "generated" / "whole")
    stay = {f"dlnds.{name}" for _, names in subjects().values() for name in listed(names)}
    for path in (folder / "generated" / "api").glob("*.rst"):
        if path.stem not in stay:
            path.unlink()
    for name, text in pages():
        path = folder / "generated" / name
        path.parent.mkdir(exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

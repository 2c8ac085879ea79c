"""The documentation: names by subject, statements with their tests, papers behind results."""

import ast
import functools
import importlib.util
import inspect
import operator
import re
from pathlib import Path

import calls
import numpy as np
import pytest
import xarray as xr

import dlnds as dl
from dlnds import papers

ROOT = Path(__file__).parents[1]
SITE = ROOT / "studies" / "site"


@functools.cache
def results(group):
    """Return valid calls with what they make."""
    return [(call, call.function(**call.arguments)) for call in calls.table(group)]


def of_the_site(name):
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    return of_the_site("generate")


@pytest.fixture(scope="module")
def terms():
    return of_the_site("terms")


def test_every_public_name_stands_under_one_subject(generate):
    """The map is ``dl.__doc__``, in ``dlnds/__init__.py``: a new name belongs there."""
    listed = [name for _, names in generate.subjects().values() for name in names]
    assert sorted(listed) == sorted(dl.__all__), "put the name under a subject of dl.__doc__"
    losses = {f"losses.{name}" for name in dl.losses.__all__ if name[0].islower()}
    assert losses < set(generate.listed(listed))


def public_callables(generate):
    """Yield names and callables: functions, classes with their methods, what is in modules."""
    for _, names in generate.subjects().values():
        for name in generate.listed(names):
            thing = operator.attrgetter(name)(dl)
            yield name, thing
            if inspect.isclass(thing):
                methods = inspect.getmembers(thing, inspect.isroutine)
                yield from ((f"{name}.{m}", f) for m, f in methods if not m.startswith("_"))


def test_signatures_are_short(generate):
    """As written, not spelt out: ``from __future__ import annotations`` does it."""
    spelt_out = r"Union\[|numpy\._typing|xarray\.core|collections\.abc"
    for name, thing in public_callables(generate):
        if "dlnds" in str(getattr(thing, "__module__", "")) and name != "ConvergenceError":
            text = str(inspect.signature(thing))
            assert not re.search(spelt_out, text), name


def test_systems_and_losses_say_that_they_take_lists(generate):
    """An array is what they make of it."""
    for name, thing in public_callables(generate):
        if inspect.isclass(thing) and thing.__module__.startswith("dlnds.systems"):
            for parameter in inspect.signature(thing).parameters.values():
                text = str(parameter.annotation)
                wanted = "Callable" in text or not re.search(r"\bArray\b", text)
                assert wanted, f"{name}: {parameter}"


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_statement_names_tests_and_studies_that_exist(generate):
    entries = generate.ledger()
    assert len({entry["says"] for entry in entries}) == len(entries)
    for entry in entries:
        assert set(entry) <= {"subject", "says", "sources", "tests", "studies"}, entry["says"]
        assert entry["tests"], f"a statement without a test: {entry['says']}"
        assert set(entry["sources"]) <= set(papers.PAPERS), entry["says"]
        for test in entry["tests"]:
            path, _, name = test.partition("::")
            assert name in functions(ROOT / path), test
        for study in entry.get("studies", []):
            assert (ROOT / "studies" / f"{study}.py").is_file(), study


def test_statements_of_one_subject_stand_together(generate):
    order = [entry["subject"] for entry in generate.ledger()]
    runs = [subject for i, subject in enumerate(order) if subject != order[i - 1] or i == 0]
    assert len(runs) == len(set(order))


def tables(generate):
    """Return the rows of the reference of files, by kind and name of the variable."""
    text = generate.schemas()
    for name in dl.schema.REQUIRED:
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        yield (
            name,
            dict(
                re.findall(
                    r"^\| (\*?`\w+`\*?) \| (.*) \|$", section.partition("\n| attribute |")[0], re.M
                )
            ),
        )


def test_every_kind_of_file_has_its_table(generate):
    text = generate.schemas()
    for kind, rows in tables(generate):
        optional = dl.schema.optional(kind)
        assert {*rows} == {f"`{v}`" for v in dl.schema.REQUIRED[kind]} | {
            f"*`{v}`*" for v in optional
        }, kind
        for name, (_, when) in optional.items():
            row = rows[f"*`{name}`*"]
            assert row.endswith(f" | optional: {when}") or when == "always", (kind, name)
            assert name in dl.schema.DESCRIPTIONS, "its meaning belongs there"
    for name in dl.schema.DESCRIPTIONS:
        assert f"| `{name}` |" in text.partition("## All names")[2]


#: What an equation names.
OWN_NAMES = {("branch", "p"), ("branch", "q")}


def test_the_page_of_files_says_which_kinds_have_a_picture(generate):
    """In the words of the error of a kind that has none."""
    found = re.findall(r"^## (\w+)\n|^\*Picture:\* (.+)\.$", generate.schemas(), re.MULTILINE)
    names, said = [n for n, _ in found if n], [words for _, words in found if words]
    assert names == [*dl.schema.REQUIRED]
    for kind, words in zip(names, said, strict=True):
        with pytest.raises((ValueError, TypeError)) as error:  # it is empty
            xr.Dataset(attrs={"schema": kind}).dlnds.plot()
        refused = f"data: there is no picture of schema {kind!r}; "
        if words.startswith("none; "):
            assert str(error.value) == refused + words.removeprefix("none; ")
        else:
            assert not str(error.value).startswith(refused), kind
    pictures = (SITE / "questions.md").read_text("utf-8").partition("## Pictures")[2]
    assert "(generated/files.md)" in pictures


@pytest.mark.compiled
@pytest.mark.parametrize("group", sorted({*calls.GROUPS} - {"pictures"}))
def test_what_results_hold_is_in_the_table_of_their_kind(generate, group):
    """Each variable, with the dims and the meaning that the table says."""
    rows_are_times = {"iteration": "time", "step": "time"}
    for _, made in results(group):
        for node in nodes_of(made):
            kind = node.attrs["schema"]
            if kind == "sweep":  # which holds what its task returns
                continue
            known, said = dl.schema.optional(kind), generate._words(kind)
            must = dl.schema.whole(kind)
            for name in {*node.variables} - {*node.dims}:
                assert name in {*known, *must}, f"{kind}: {name} belongs into schema.OPTIONAL"
                dims = {*(must[name] if name in must else known[name][0])}
                found = {*node[name].dims} - {"sample"}
                if "time" in dims:
                    found = {rows_are_times.get(dim, dim) for dim in found}
                assert found == dims - {"sample"}, (kind, name)
            for name in {*node.variables} & {*said} - {n for k, n in OWN_NAMES if k == kind}:
                assert said[name].startswith(node[name].attrs["long_name"]), (kind, name)
                flags = node[name].attrs.get("flag_meanings", "").split()
                assert re.findall(r"`(\w+)`", said[name]) == flags, (kind, name)


@pytest.mark.compiled
@pytest.mark.parametrize("group", sorted({*calls.GROUPS} - {"pictures"}))
def test_attributes_of_results_are_in_the_table_of_their_kind(group):
    for call, made in results(group):
        for node in nodes_of(made):
            kind = node.attrs["schema"]
            lost = {*node.attrs} - {*dl.schema.attributes(""), *dl.schema.attributes(kind)}
            assert not lost, f"{call.function.__name__}, {kind}: put them into schema._ATTRIBUTES"


@pytest.mark.compiled
def test_stacks_have_the_dims_that_the_page_of_files_says(generate):
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    starts = [size * net.initial(scale=0.3, rng=0) for size in (1.0, 2.0)]
    events = [dl.events.loss_below(net, 0.1)]
    runs = dl.flow(net, starts, events=events)
    common = dl.flow(net, starts, t_span=(0, 2), t_eval=[0, 1, 2])
    known, attributes = dl.schema.optional("run"), dl.schema.attributes("run")
    for stack, rows in ((runs, "step"), (common, "time")):
        for name in {*stack.data_vars} - {"stop_reason"}:
            dims = [rows if dim == "time" else dim for dim in known[name][0] if dim != "sample"]
            assert stack[name].dims == ("sample", *dims), name
        assert {*stack.attrs} <= {*dl.schema.attributes(""), *attributes}
    assert runs.time.dims == ("sample", "step")
    last = [int(np.flatnonzero(row)[-1]) for row in np.isfinite(runs.time.values)]
    assert min(last) < max(last) == runs.sizes["step"] - 1
    for row, end, numbers in zip(runs.loss.values, last, runs.event.values, strict=True):
        assert np.isfinite(row[: end + 1]).all()
        assert np.isnan(row[end + 1 :]).all()
        assert (numbers[end + 1 :] == -1).all()
    assert {"n_unresolved", "events"} <= {*dl.flow(net, starts[0], events=events).attrs}
    assert "n_unresolved" in runs
    text = generate.schemas()
    assert "time(sample, step)" in text
    assert "nodes: ." not in text


def test_all_that_runs_record_is_in_the_table_of_runs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 3))
    decayed = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]), weight_decay=0.1)
    measured = dl.LossNetwork((2, 2, 2), dl.losses.completion((2, 2), [0, 1], [0, 1], [1.0, 2.0]))
    homogeneous = dl.HomogeneousNetwork((2, 2, 1), X, X[:1])
    product = dl.ProductFlow(dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0])), 2)
    table = dl.schema.optional("run")
    for system in (decayed, measured, homogeneous, product):
        with pytest.raises(ValueError, match="known are state, loss") as refused:
            system.observables(states := rng.normal(size=(1, system.dim)), ["nothing"])
        names = re.findall(r"\w+", str(refused.value).partition("known are")[2])
        for name, variable in system.observables(states, names).items():
            assert {*table[name][0]} == {*variable.dims}, name


def nodes_of(made):
    """Yield the Datasets of a result that say of what kind they are."""
    trees = [made] if isinstance(made, xr.Dataset | xr.DataTree) else []
    for tree in trees:
        nodes = [tree] if isinstance(tree, xr.Dataset) else [n.dataset for n in tree.subtree]
        yield from (node for node in nodes if "schema" in node.attrs)


def test_studies_are_pages():
    """Title, question, theory, and in the end what to see: the parts of a page of the gallery."""
    for path in sorted((ROOT / "studies").glob("*.py")):
        title, line, *rest = ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()
        assert line == "=" * len(title), f"{path.name}: needs a line of = below its title"
        heads = re.findall(r"^\*\*([\w ]+)\.\*\*", "\n".join(rest), re.MULTILINE)
        assert (heads[0], heads[-1]) == ("Question", "What the figure shows"), path.name
        assert "Theory" in heads, path.name
        # The gallery runs studies without their docstring.
        assert "__doc__.splitlines()[0]" not in path.read_text("utf-8"), (
            f"{path.name}: partition it"
        )


def test_the_gallery_has_each_study_in_its_place(generate):
    """One list, from simple to hard, orders the gallery: a new study goes where it belongs."""
    assert sorted(generate.STUDIES) == sorted(p.stem for p in (ROOT / "studies").glob("*.py"))
    assert "generate.place_of_study" in (SITE / "conf.py").read_text(encoding="utf-8")
    assert sorted(generate.STUDIES, key=generate.place_of_study) == list(generate.STUDIES)


def test_pages_of_studies_say_what_form_they_show(generate):
    """Said once, by the site; what the quick form has less of is the help of its option."""
    for name in generate.STUDIES:
        text = (ROOT / "studies" / f"{name}.py").read_text(encoding="utf-8")
        assert "--quick" not in ast.get_docstring(ast.parse(text)), f"{name}: the site says it"
        source = [".. _top:\n\nTitle\n=====\n\nText.\n\nPart\n====\n"]
        generate.prepare_study(None, f"gallery/{name}", source)
        assert source[0].count("--quick") == source[0].count(f"python studies/{name}.py") == 1
        assert source[0].index("Title") < source[0].index("--quick") < source[0].index("Text.")
        assert (ROOT / "studies" / "pictures" / f"{name}.png").is_file()


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "studies").glob("*.py")))
def test_notebooks_of_studies_run_in_their_quick_form(generate, name, monkeypatch):
    """A kernel is started with arguments of its own, which no study knows."""

    def parse_args(parser):
        options, unknown = parser.parse_known_args()
        assert not unknown, "parse_args would end the notebook"
        raise KeyboardInterrupt(options.quick)  # the study would begin

    assert '"first_notebook_cell": generate.FIRST_CELL' in (SITE / "conf.py").read_text("utf-8")
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setattr("argparse.ArgumentParser.parse_args", parse_args)
    notebook = {"__name__": "__main__", "__doc__": "Made by IPython."}
    exec(generate.FIRST_CELL, notebook)
    study = (ROOT / "studies" / f"{name}.py").read_text("utf-8")
    with pytest.raises(KeyboardInterrupt, match="True"):
        exec(compile(study, f"{name}.ipynb", "exec"), notebook)


def links(text):
    return re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text)


def test_links_between_pages_lead_to_pages():
    """To pages that are made at build, too; Sphinx looks at them again, with their anchors."""
    made = ("generated/", "gallery/")
    for page in sorted(SITE.glob("*.md")):
        for target in links(page.read_text(encoding="utf-8")):
            assert target.startswith(made) or (SITE / target).is_file(), f"{page.name}: {target}"


def test_names_on_pages_are_links_where_the_site_is_built(generate):
    """Without a build they are code; in code they stay what they are."""
    text = "`dl.flow`, `dl.LinearNetwork.from_data`, `dl.nothing`, [`dl.flow`](x)\n"
    code = "```python\n`dl.flow`\n```\n"
    source = [text + code + text]
    generate.link_names(None, "questions", source)
    linked = "{py:obj}`dl.flow <dlnds.flow>`, {py:obj}`dl.LinearNetwork.from_data "
    linked += "<dlnds.LinearNetwork>`, `dl.nothing`, [`dl.flow`](x)\n"
    assert source[0] == linked + code + linked
    generate.link_names(None, "gallery/arcs", other := [text])
    assert other == [text]
    for page in SITE.glob("*.md"):
        assert "{py:" not in page.read_text(encoding="utf-8"), "readers without a build see it raw"


def test_every_public_name_is_on_a_page_for_readers(generate):
    """Where one would look for it, beside the API: in the table of questions, or in an example."""
    made = ("benchmarks", "changes", "notation")
    text = "\n".join(p.read_text("utf-8") for p in SITE.glob("*.md") if p.stem not in made)
    names = [name for _, names in generate.subjects().values() for name in generate.listed(names)]
    lost = [name for name in names if not re.search(rf"\bdl\.{re.escape(name)}\b", text)]
    assert not lost, f"put them into questions.md, or onto the page where they belong: {lost}"


def test_figures_of_the_bench_stand_under_what_they_are_of():
    printed = (
        "dlnds 0.2.0\n== Figures of runs\n== one run, error 1e-6\n     dlnds 1.6 ms, peer 4.8 ms\n"
        "ok   against peer: 3 x (goal: at least 2)\n"
        "MISS drift: 2e-09 of the first (goal: at most 1e-09, missed by a factor 2)\n"
        "== plateaus\n--   peer: not available\nok   most steps: 691 steps (goal: at most 1500)\n"
    )
    assert of_the_site("benchmarks").parts(printed) == [
        {
            "title": "One run, error 1e-6",
            "rows": [
                ["against peer", "3 x", "at least 2", False],
                ["drift", "2e-09 of the first", "at most 1e-09", True],
            ],
        },
        {"title": "Plateaus", "rows": [["most steps", "691 steps", "at most 1500", False]]},
    ]


def test_the_glossary_is_in_order_and_names_each_thing_once(terms):
    heads = list(terms.glossary())
    assert heads == sorted(heads, key=str.casefold)
    names = [name.lower() for own in terms.glossary().values() for name in own]
    assert len(set(names)) == len(names)
    assert len(heads) > 45
    made = terms.as_directive((SITE / "glossary.md").read_text("utf-8"))
    assert made.count("```") == 2
    assert not re.findall(r"^: ", made, re.MULTILINE)
    within = made.partition("```{glossary}\n")[2].partition("```")[0]
    assert re.findall(r"^(\S.*)$", within, re.MULTILINE) == heads


def test_the_first_use_of_a_term_is_linked(terms):
    """Once on a page, in the plural and across lines, and the longest of the terms that fit."""
    uses = terms.Uses(terms.entries("index (Morse index)\n: x\n\nindex set, S\n: y\n\nbranch\n: z"))
    text = "An index\nset, an INDEX; sub-index, indexed; branches and a branch, an index set."
    found = [(text[a:b], entry) for a, b, entry in uses.of(text)]
    wanted = [("index\nset", "index set, S"), ("INDEX", "index (Morse index)")]
    assert found == [*wanted, ("branches", "branch")]
    assert list(uses.of("The Morse index of a branch.")) == []  # on the same page


def test_every_page_is_reached_from_the_first_one():
    index = (SITE / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:[\w ]+<)?([\w/]+)>?$", index, re.MULTILINE))
    assert {page.stem for page in SITE.glob("*.md")} - {"index", "notation", "benchmarks"} <= listed


def test_project_files_are_of_this_version():
    assert f"version: {dl.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {dl.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


# Papers.


def docstrings():
    for path in sorted((ROOT / "dlnds").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                yield f"{path.name}: {node.name}", ast.get_docstring(node)


def test_keys_of_papers_are_resolved_where_they_are_cited():
    """A key in References is followed by authors and place, as in ``papers.PAPERS``."""
    keys = "|".join(papers.PAPERS)
    for name, text in docstrings():
        references = text.partition("References\n")[2].partition("\nExamples\n")[0]
        flat = " ".join(references.split())
        for key in set(re.findall(rf"\b({keys})\b", flat)):
            assert f"{key} ({papers.PAPERS[key].short})" in flat, f"{name}: {key}"
        unknown = set(re.findall(r"\b[A-Z][A-Za-z]{1,7}\d{2}\b", flat)) - set(papers.PAPERS)
        assert not unknown, f"{name}: {unknown} are not in dlnds/papers.py"


def test_studies_cite_by_keys():
    """What is written as in ``(SMG14)`` is a link to the page of papers."""
    for path in sorted((ROOT / "studies").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert "arXiv" not in text, f"{path.name}: needs a key of dlnds/papers.py"
        unknown = set(re.findall(r"\b[A-Z][A-Za-z]{1,4}\d{2}\b", text)) - set(papers.PAPERS)
        assert not unknown, f"{path.name}: {unknown} are not in dlnds/papers.py"


def test_keys_on_pages_of_studies_are_links(generate):
    source = ["Strong ones first (SMG14), |W_11| says\nAo24; not ``KH25``\n\n    AS20 in code\n"]
    generate.prepare_study(None, "gallery/some", source)
    assert source[0].partition("dlnds\n\n")[2].splitlines() == [
        "Strong ones first (:ref:`SMG14 <SMG14>`), \\|W_11\\| says",
        ":ref:`Ao24 <Ao24>`; not ``KH25``",
        "",
        "    AS20 in code",
    ]


def lines(thing):
    return set(dl.cite(thing).splitlines())


@pytest.mark.compiled
@pytest.mark.parametrize("group", sorted({*calls.GROUPS} - {"pictures"}))
def test_a_result_is_cited_like_what_made_it(group):
    """It rests on what its function does, and on nothing but that, its system and its inputs."""
    for call, made in results(group):
        given = call.arguments.values()
        data = [thing for thing in (made, *given) if isinstance(thing, xr.Dataset | xr.DataTree)]
        if not isinstance(made, xr.Dataset) or "schema" not in made.attrs or call.name == "load":
            continue
        systems = [getattr(dl, str(one.attrs["system"])) for one in data if "system" in one.attrs]
        own, found = lines(call.function), lines(made)
        assert found <= own.union(lines(dl.observe), *map(lines, (*data[1:], *systems))), call.name
        if call.name != "observe":  # which rests on what was asked for
            assert own <= found, call.name


def test_a_tree_is_cited_like_its_nodes():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    atlas = dl.build_atlas(net)
    whole = set(dl.cite(atlas).splitlines())
    for node in ("points", "arcs", "connections"):
        assert set(dl.cite(atlas[node].to_dataset()).splitlines()) <= whole


def test_what_was_recorded_is_cited():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=["state"])
    assert "JGH18" not in dl.cite(run)
    assert "JGH18" in dl.cite(dl.observe(net, run, "ntk_distance"))
    assert "JT19" not in dl.cite(run)
    assert "JT19" in dl.cite(dl.observe(net, run, "alignment"))
    names = ["ntk_distance", "hidden_similarity", "stable_rank", "effective_rank", "alignment"]
    assert lines(dl.observe(net, run, names)) == lines(dl.observe) | lines(run)


def test_functions_of_one_kind_of_work_rest_on_the_same_papers(generate):
    """A curve of special points is a branch; a diagram of decay draws what theory says of it."""
    for name in ("fold_curve", "branch_point_curve", "extend_branch", "diagram"):
        assert lines(dl.branch) <= lines(getattr(dl, name)), name
    says = "Two layers lose a mode in a pitchfork"
    (entry,) = [e for e in generate.ledger() if e["says"].startswith(says)]
    assert entry["sources"]
    assert all(f"\n{key}: " in dl.cite(dl.decay_diagram) for key in entry["sources"])


def test_a_module_is_cited_for_all_that_is_in_it():
    assert lines(dl.losses) == set().union(
        *(lines(getattr(dl.losses, n)) for n in dl.losses.__all__)
    )
    own = (dl.events.loss_below, dl.events.mode_learnt, dl.events.near_saddle)
    assert lines(dl.events) == set().union(*map(lines, own))
    assert lines(dl.plot.loss) <= lines(dl.plot)
    every = [thing for name in dl.__all__ if callable(thing := getattr(dl, name))]
    assert lines(dl) == set().union(*map(lines, every))
    with pytest.raises(TypeError, match="^result: "):
        dl.cite(np)


def test_every_kind_of_result_has_its_maker():
    for schema in dl.schema.REQUIRED:
        assert papers.MAKERS.get(schema, schema) in dl.__all__, f"name its maker: {schema}"
    assert set(papers.MAKERS) <= set(dl.schema.REQUIRED)


def test_bibtex_has_one_entry_a_paper_and_closed_braces():
    text = dl.cite(dl.exact_flow, form="bibtex")
    keys = re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)
    assert keys == ["dlnds", *re.findall(r"^(\w+): ", dl.cite(dl.exact_flow), re.MULTILINE)]
    assert text.count("{") == text.count("}")
    entries = text.split("\n\n")
    assert all(re.search(r"^  year = \{\d{4}\},$", entry, re.MULTILINE) for entry in entries)
    own = re.search(r"year = \{(\d+)\}", entries[0])[1]
    assert f"\ndate-released: {own}-" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_what_is_not_of_this_package_is_not_cited():
    for bad in (np.zeros(3), np.mean, "flow", {}, None):
        with pytest.raises(TypeError, match="^result: "):
            dl.cite(bad)
    net = dl.LinearNetwork(widths=(2, 2), target=np.eye(2))
    with pytest.raises(TypeError, match="^result: .* the Dataset that it is of does"):
        dl.cite(dl.critical_points(net).loss)

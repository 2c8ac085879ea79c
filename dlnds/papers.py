"""The papers that functions and results rest on: keys, references, BibTeX."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any, NamedTuple

import xarray as xr

import dlnds
from dlnds._version import __version__
from dlnds.errors import check_choice


class Paper(NamedTuple):
    """A paper: how docstrings name it after its key, and what BibTeX needs."""

    short: str
    kind: str
    authors: str
    title: str
    where: dict[str, str]


#: The keys that docstrings cite.
PAPERS = {
    "Abd02": Paper(
        "Abdulle, SIAM Journal on Scientific Computing 23, 2002",
        "article",
        "Abdulle, Assyr",
        "Fourth order Chebyshev methods with recurrence relation",
        {
            "journal": "SIAM Journal on Scientific Computing",
            "volume": "23",
            "number": "6",
            "year": "2002",
        },
    ),
    "ABP22": Paper(
        "Atanasov, Bordelon & Pehlevan, arXiv:2111.00034",
        "inproceedings",
        "Atanasov, Alexander and Bordelon, Blake and Pehlevan, Cengiz",
        "Neural networks as kernel learners: The silent alignment effect",
        {"booktitle": "ICLR", "year": "2022", "eprint": "2111.00034"},
    ),
    "ACGH18": Paper(
        "Arora, Cohen, Golowich & Hu, arXiv:1810.02281",
        "inproceedings",
        "Arora, Sanjeev and Cohen, Nadav and Golowich, Noah and Hu, Wei",
        "A convergence analysis of gradient descent for deep linear neural networks",
        {"booktitle": "ICLR", "year": "2019", "eprint": "1810.02281"},
    ),
    "ACH18": Paper(
        "Arora, Cohen & Hazan, arXiv:1802.06509",
        "inproceedings",
        "Arora, Sanjeev and Cohen, Nadav and Hazan, Elad",
        "On the optimization of deep networks: Implicit acceleration by overparameterization",
        {"booktitle": "ICML", "year": "2018", "eprint": "1802.06509"},
    ),
    "ACHL19": Paper(
        "Arora, Cohen, Hu & Luo, arXiv:1905.13655",
        "inproceedings",
        "Arora, Sanjeev and Cohen, Nadav and Hu, Wei and Luo, Yuping",
        "Implicit regularization in deep matrix factorization",
        {"booktitle": "NeurIPS", "year": "2019", "eprint": "1905.13655"},
    ),
    "AMG24": Paper(
        "Achour, Malgouyres & Gerchinovitz, arXiv:2107.13289",
        "article",
        "Achour, El Mehdi and Malgouyres, François and Gerchinovitz, Sébastien",
        "The loss landscape of deep linear neural networks: a second-order analysis",
        {"journal": "Journal of Machine Learning Research", "year": "2024", "eprint": "2107.13289"},
    ),
    "Ao24": Paper(
        "Aoyagi, Neural Networks 172, 2024",
        "article",
        "Aoyagi, Miki",
        "Consideration on the learning efficiency of multiple-layered neural networks with linear "
        "units",
        {"journal": "Neural Networks", "volume": "172", "year": "2024"},
    ),
    "AS20": Paper(
        "Advani, Saxe & Sompolinsky, arXiv:1710.03667",
        "article",
        "Advani, Madhu S. and Saxe, Andrew M. and Sompolinsky, Haim",
        "High-dimensional dynamics of generalization error in neural networks",
        {"journal": "Neural Networks", "volume": "132", "year": "2020", "eprint": "1710.03667"},
    ),
    "AW05": Paper(
        "Aoyagi & Watanabe, Neural Networks 18, 2005",
        "article",
        "Aoyagi, Miki and Watanabe, Sumio",
        "Stochastic complexities of reduced rank regression in Bayesian estimation",
        {"journal": "Neural Networks", "volume": "18", "number": "7", "year": "2005"},
    ),
    "BDFS22": Paper(
        "Braun, Dominé, Fitzgerald & Saxe, NeurIPS 2022",
        "inproceedings",
        "Braun, Lukas and Dominé, Clémentine and Fitzgerald, James and Saxe, Andrew",
        "Exact learning dynamics of deep linear networks with prior knowledge",
        {"booktitle": "NeurIPS", "year": "2022"},
    ),
    "BGGS80": Paper(
        "Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15, 1980",
        "article",
        "Benettin, Giancarlo and Galgani, Luigi and Giorgilli, Antonio and Strelcyn, Jean-Marie",
        "Lyapunov characteristic exponents for smooth dynamical systems and for Hamiltonian "
        "systems; a method for computing all of them",
        {"journal": "Meccanica", "volume": "15", "year": "1980"},
    ),
    "BRTW22": Paper(
        "Bah, Rauhut, Terstiege & Westdickenberg, arXiv:1910.05505",
        "article",
        "Bah, Bubacarr and Rauhut, Holger and Terstiege, Ulrich and Westdickenberg, Michael",
        "Learning deep linear neural networks: Riemannian gradient flows and convergence to "
        "global minimizers",
        {
            "journal": "Information and Inference: A Journal of the IMA",
            "volume": "11",
            "number": "1",
            "year": "2022",
            "eprint": "1910.05505",
        },
    ),
    "COB19": Paper(
        "Chizat, Oyallon & Bach, arXiv:1812.07956",
        "inproceedings",
        "Chizat, Lénaïc and Oyallon, Edouard and Bach, Francis",
        "On lazy training in differentiable programming",
        {"booktitle": "NeurIPS", "year": "2019", "eprint": "1812.07956"},
    ),
    "DAPB25": Paper(
        "Dominé, Anguita, Proca, Braun, Kunin, Mediano & Saxe, arXiv:2409.14623",
        "inproceedings",
        "Dominé, Clémentine C. J. and Anguita, Nicolas and Proca, Alexandra M. and Braun, Lukas "
        "and Kunin, Daniel and Mediano, Pedro A. M. and Saxe, Andrew M.",
        "From lazy to rich: Exact learning dynamics in deep linear networks",
        {"booktitle": "ICLR", "year": "2025", "eprint": "2409.14623"},
    ),
    "Deu04": Paper(
        "Deuflhard, Springer 2004",
        "book",
        "Deuflhard, Peter",
        "Newton methods for nonlinear problems: Affine invariance and adaptive algorithms",
        {"publisher": "Springer", "year": "2004"},
    ),
    "FL24": Paper(
        "Furman & Lau, arXiv:2402.03698",
        "misc",
        "Furman, Zach and Lau, Edmund",
        "Estimating the local learning coefficient at scale",
        {"year": "2024", "eprint": "2402.03698"},
    ),
    "FUK98": Paper(
        "Fukumizu, ICONIP 1998",
        "inproceedings",
        "Fukumizu, Kenji",
        "Effect of batch learning in multilayer neural networks",
        {"booktitle": "ICONIP", "year": "1998"},
    ),
    "GPTCLP07": Paper(
        "Ginelli et al., arXiv:0706.0510",
        "article",
        "Ginelli, Francesco and Poggi, Pietro and Turchi, Alessio and Chaté, Hugues and "
        "Livi, Roberto and Politi, Antonio",
        "Characterizing dynamics with covariant Lyapunov vectors",
        {
            "journal": "Physical Review Letters",
            "volume": "99",
            "year": "2007",
            "eprint": "0706.0510",
        },
    ),
    "HNW93": Paper(
        "Hairer, Nørsett & Wanner, Springer 1993",
        "book",
        "Hairer, Ernst and Nørsett, Syvert P. and Wanner, Gerhard",
        "Solving ordinary differential equations I: Nonstiff problems",
        {"publisher": "Springer", "edition": "second", "year": "1993"},
    ),
    "HTF09": Paper(
        "Hastie, Tibshirani & Friedman, Springer 2009",
        "book",
        "Hastie, Trevor and Tibshirani, Robert and Friedman, Jerome",
        "The elements of statistical learning: Data mining, inference, and prediction",
        {"publisher": "Springer", "edition": "second", "year": "2009"},
    ),
    "HW96": Paper(
        "Hairer & Wanner, Springer 1996",
        "book",
        "Hairer, Ernst and Wanner, Gerhard",
        "Solving ordinary differential equations II: Stiff and differential-algebraic problems",
        {"publisher": "Springer", "edition": "second", "year": "1996"},
    ),
    "JGH18": Paper(
        "Jacot, Gabriel & Hongler, arXiv:1806.07572",
        "inproceedings",
        "Jacot, Arthur and Gabriel, Franck and Hongler, Clément",
        "Neural tangent kernel: Convergence and generalization in neural networks",
        {"booktitle": "NeurIPS", "year": "2018", "eprint": "1806.07572"},
    ),
    "JT19": Paper(
        "Ji & Telgarsky, arXiv:1810.02032",
        "inproceedings",
        "Ji, Ziwei and Telgarsky, Matus",
        "Gradient descent aligns the layers of deep linear networks",
        {"booktitle": "ICLR", "year": "2019", "eprint": "1810.02032"},
    ),
    "KH25": Paper(
        "Kumar & Haupt, arXiv:2502.15952",
        "article",
        "Kumar, Akshay and Haupt, Jarvis",
        "Towards understanding gradient flow dynamics of homogeneous neural networks beyond the "
        "origin",
        {"journal": "Journal of Machine Learning Research", "year": "2025", "eprint": "2502.15952"},
    ),
    "KNS16": Paper(
        "Karimi, Nutini & Schmidt, arXiv:1608.04636",
        "inproceedings",
        "Karimi, Hamed and Nutini, Julie and Schmidt, Mark",
        "Linear convergence of gradient and proximal-gradient methods under the Polyak-Łojasiewicz "
        "condition",
        {"booktitle": "ECML PKDD", "year": "2016", "eprint": "1608.04636"},
    ),
    "Kuz04": Paper(
        "Kuznetsov, Springer 2004",
        "book",
        "Kuznetsov, Yuri A.",
        "Elements of applied bifurcation theory",
        {"publisher": "Springer", "edition": "third", "year": "2004"},
    ),
    "LFW23": Paper(
        "Lau, Furman, Wang, Murfet & Wei, arXiv:2308.12108",
        "misc",
        "Lau, Edmund and Furman, Zach and Wang, George and Murfet, Daniel and Wei, Susan",
        "The local learning coefficient: A singularity-aware complexity measure",
        {"year": "2023", "eprint": "2308.12108"},
    ),
    "LG19": Paper(
        "Lampinen & Ganguli, arXiv:1809.10374",
        "inproceedings",
        "Lampinen, Andrew K. and Ganguli, Surya",
        "An analytic theory of generalization dynamics and transfer learning in deep linear "
        "networks",
        {"booktitle": "ICLR", "year": "2019", "eprint": "1809.10374"},
    ),
    "LR24": Paper(
        "Pepin Lehalleur & Rimányi, arXiv:2411.19920",
        "misc",
        "Pepin Lehalleur, Simon and Rimányi, Richárd",
        "Geometry of fibers of the multiplication map of deep linear neural networks",
        {"year": "2024", "eprint": "2411.19920"},
    ),
    "LZB22": Paper(
        "Liu, Zhu & Belkin, arXiv:2003.00307",
        "article",
        "Liu, Chaoyue and Zhu, Libin and Belkin, Mikhail",
        "Loss landscapes and optimization in over-parameterized non-linear systems and neural "
        "networks",
        {
            "journal": "Applied and Computational Harmonic Analysis",
            "volume": "59",
            "year": "2022",
            "eprint": "2003.00307",
        },
    ),
    "MGP23": Paper(
        "Marcotte, Gribonval & Peyré, arXiv:2307.00144",
        "inproceedings",
        "Marcotte, Sibylle and Gribonval, Rémi and Peyré, Gabriel",
        "Abide by the law and follow the flow: conservation laws for gradient flows",
        {"booktitle": "NeurIPS", "year": "2023", "eprint": "2307.00144"},
    ),
    "MVM23": Paper(
        "Min, Vidal & Mallada, ICML 2023",
        "inproceedings",
        "Min, Hancheng and Vidal, René and Mallada, Enrique",
        "On the convergence of gradient flow on multi-layer linear models",
        {"booktitle": "ICML", "year": "2023"},
    ),
    "RC20": Paper(
        "Razin & Cohen, arXiv:2005.06398",
        "inproceedings",
        "Razin, Noam and Cohen, Nadav",
        "Implicit regularization in deep learning may not be explainable by norms",
        {"booktitle": "NeurIPS", "year": "2020", "eprint": "2005.06398"},
    ),
    "RV07": Paper(
        "Roy & Vetterli, EUSIPCO 2007",
        "inproceedings",
        "Roy, Olivier and Vetterli, Martin",
        "The effective rank: A measure of effective dimensionality",
        {"booktitle": "EUSIPCO", "year": "2007"},
    ),
    "SMG14": Paper(
        "Saxe, McClelland & Ganguli, arXiv:1312.6120",
        "inproceedings",
        "Saxe, Andrew M. and McClelland, James L. and Ganguli, Surya",
        "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        {"booktitle": "ICLR", "year": "2014", "eprint": "1312.6120"},
    ),
    "SMG19": Paper(
        "Saxe, McClelland & Ganguli, arXiv:1810.10531",
        "article",
        "Saxe, Andrew M. and McClelland, James L. and Ganguli, Surya",
        "A mathematical theory of semantic development in deep neural networks",
        {
            "journal": "Proceedings of the National Academy of Sciences",
            "volume": "116",
            "number": "23",
            "year": "2019",
            "eprint": "1810.10531",
        },
    ),
    "TKB20": Paper(
        "Trager, Kohn & Bruna, arXiv:1910.01671",
        "inproceedings",
        "Trager, Matthew and Kohn, Kathlén and Bruna, Joan",
        "Pure and spurious critical points: a geometric study of linear networks",
        {"booktitle": "ICLR", "year": "2020", "eprint": "1910.01671"},
    ),
    "Ver18": Paper(
        "Vershynin, Cambridge University Press 2018",
        "book",
        "Vershynin, Roman",
        "High-dimensional probability: An introduction with applications in data science",
        {"publisher": "Cambridge University Press", "year": "2018"},
    ),
    "WA25": Paper(
        "Wendin & Altafini, arXiv:2511.10362",
        "misc",
        "Wendin, Joel and Altafini, Claudio",
        "Gradient flow equations for deep linear neural networks: A survey from a network "
        "perspective",
        {"year": "2025", "eprint": "2511.10362"},
    ),
    "YF01": Paper(
        "Yamashita & Fukushima, Computing Supplementa 15, 2001",
        "article",
        "Yamashita, Nobuo and Fukushima, Masao",
        "On the rate of convergence of the Levenberg–Marquardt method",
        {"journal": "Computing Supplementa", "volume": "15", "year": "2001"},
    ),
    "Zen21": Paper(
        "Zeng, arXiv:2101.09180",
        "misc",
        "Zeng, Zhonggang",
        "A Newton's iteration converges quadratically to nonisolated solutions too",
        {"year": "2021", "eprint": "2101.09180"},
    ),
}
#: schema of a result: the function whose docstring tells the papers behind it, if it has another
#: name than the schema. What other functions make of the same schema says so by itself, in the
#: attribute ``made_by``.
MAKERS = {
    "run": "flow",
    "decayed_points": "critical_points",
    "classification": "classify",
    "canonical_form": "canonicalize",
    "fiber": "fiber_dimension",
    "chain": "sample",
    "orbit": "orbit_basis",
    "tangent": "split_tangent",
    "linearization": "linearize",
    "critical_point": "find_critical_point",
    "arcs": "critical_arcs",
    "arc_path": "arc_states",
    "manifold": "unstable_manifold",
    "fibres": "grow_manifold",
    "orbits": "grow_manifold",
    "edge_path": "edge_states",
    "lyapunov": "lyapunov_spectrum",
    "path_comparison": "compare_with_path",
    "assumptions": "check_assumptions",
    "modes": "LinearNetwork",
    "visits": "saddle_visits",
    "atlas": "build_atlas",
    "evaluation": "evaluate",
}
#: beginnings of names of variables: the paper that they are from.
_VARIABLES = {
    "ntk_": "JGH18",
    "hidden_similarity": "SMG19",
    "stable_rank": "Ver18",
    "effective_rank": "RV07",
    "alignment": "JT19",
}


def cite(result: Any, *, form: str = "text") -> str:
    """Return the papers that a result, a function or a module rests on, with this package first.

    Parameters
    ----------
    result
        A Dataset or DataTree of this package, a public function, a class, a system, or a module,
        such as ``dl.losses``.
    form
        ``"text"``, a line each, or ``"bibtex"``.

    Raises
    ------
    TypeError
        If it is nothing of this package, or a variable, which does not know what made it: give
        the Dataset that it is of.

    Notes
    -----
    A function rests on the papers that its References name, a module on those of what is in it. A
    Dataset rests on those of the function that made it (``attrs["made_by"]``, or else that of its
    schema), of its system, and of what was recorded.

    Examples
    --------
    >>> import dlnds as dl
    >>> print(dl.cite(dl.saddle_visits).partition("WA25")[2])
    : Wendin, Joel and Altafini, Claudio. Gradient flow equations for deep linear neural networks: \
A survey from a network perspective. 2025. arXiv:2511.10362
    """
    check_choice("form", form, ("text", "bibtex"))
    keys = sorted(_keys(result))
    if form == "bibtex":
        return "\n\n".join([_own_bibtex(), *(bibtex(key) for key in keys)])
    own = f"dlnds {__version__}: {_OWN_TITLE}"
    return "\n".join([own, *(f"{key}: {reference(key)}" for key in keys)])


def reference(key: str) -> str:
    """Return the reference of a paper as a line of text."""
    _, _, authors, title, where = PAPERS[key]
    place = [where[k] for k in ("journal", "booktitle", "publisher") if k in where]
    number = "".join([where.get("volume", ""), f"({where['number']})" if "number" in where else ""])
    parts = ", ".join([*place, *([number] if number else []), where["year"]])
    arxiv = f". arXiv:{where['eprint']}" if "eprint" in where else ""
    return f"{authors}. {title}. {parts}{arxiv}"


def bibtex(key: str) -> str:
    """Return the entry of a paper for BibTeX."""
    _, kind, authors, title, where = PAPERS[key]
    archive = {"archiveprefix": "arXiv"} if "eprint" in where else {}
    return _entry(kind, key, {"author": authors, "title": f"{{{title}}}", **where, **archive})


_OWN_TITLE = "dynamical-systems analysis of gradient flow in deep linear networks"
#: When this version was made.
_OWN_YEAR = "2026"


def _own_bibtex() -> str:
    title = f"{{dlnds: {_OWN_TITLE}}}"
    fields = {"author": "{The dlnds developers}", "title": title, "year": _OWN_YEAR}
    fields["version"] = __version__
    return _entry("software", "dlnds", fields)


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _keys(result: Any) -> set[str]:
    """Return the keys behind whatever is cited."""
    if isinstance(result, xr.Dataset | xr.DataTree):
        return _of_dataset(result)
    is_own = isinstance(result, ModuleType) and result.__name__.partition(".")[0] == "dlnds"
    return _of_module(result) if is_own else _of_docstring(result)


def _of_docstring(thing: Any) -> set[str]:
    """Return the keys that the References of a function, a class, or a system's class name."""
    documented = thing if callable(thing) and hasattr(thing, "__name__") else type(thing)
    if not str(getattr(documented, "__module__", "")).startswith("dlnds."):
        variable = ": a variable does not say what made it, the Dataset that it is of does"
        raise TypeError(
            "result: needs a Dataset, a function, a class, a module or a system of this package, "
            f"got {type(thing).__name__}{variable if isinstance(thing, xr.DataArray) else ''}"
        )
    references = (documented.__doc__ or "").partition("References\n")[2].partition("Examples\n")[0]
    return set(re.findall("|".join(PAPERS), references))


def _of_module(module: ModuleType) -> set[str]:
    """Return the keys behind all functions and classes that a module of this package offers."""
    offered = getattr(module, "__all__", ())
    things = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    own = [
        thing
        for name, thing in things.items()
        if inspect.isroutine(thing) or inspect.isclass(thing)
        if name in offered or thing.__module__.startswith(module.__name__)
    ]
    return set().union(*(_of_docstring(t) for t in own if t.__module__.startswith("dlnds.")))


def _maker(node: xr.Dataset) -> str:
    """Return the name of the function that made a Dataset."""
    schema = str(node.attrs.get("schema", ""))
    return str(node.attrs.get("made_by", MAKERS.get(schema, schema)))


def _of_dataset(data: xr.Dataset | xr.DataTree) -> set[str]:
    """Return the keys behind a Dataset, or behind all nodes of a tree."""
    nodes = [data] if isinstance(data, xr.Dataset) else [n.dataset for n in data.subtree]
    made = [maker for node in nodes if hasattr(dlnds, maker := _maker(node))]
    if not made:
        raise TypeError("result: needs a Dataset that says in its attribute 'schema' what it is")
    named = {*made, *(str(node.attrs["system"]) for node in nodes if "system" in node.attrs)}
    keys = set().union(*(_of_docstring(getattr(dlnds, n)) for n in named if hasattr(dlnds, n)))
    names = [str(name) for node in nodes for name in node.data_vars]
    recorded = {key for start, key in _VARIABLES.items() for n in names if n.startswith(start)}
    return keys | recorded

"""How fast the loss leaves zero around the layers with one end-to-end map: learning coefficients.

With Δ_i = d_i − r, r = rank W*, all that counts of the widths d_0, …, d_h is which of the Δ_i are
smallest, how many they are, and their sum.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple


class Coefficient(NamedTuple):
    """What Z(β) = ∫ exp(−β ‖W − W*‖²/2) is for large β: ~ c β^{−λ} (ln β)^{m−1}."""

    #: 2 λ, the codimension of {W = W*}.
    doubled: int
    #: m.
    order: int
    #: Irreducible components of {W = W*} of the largest dimension.
    components: int
    #: The levels 0, …, h whose widths decide, ascending.
    levels: tuple[int, ...]


def deciding_levels(widths: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return the levels whose widths decide, those of the q smallest Δ_i.

    q ≥ 2 is the largest number with
    Δ_(1) + … + Δ_(q) ≥ (q − 1) Δ_(q), where Δ_(1) ≤ Δ_(2) ≤ ….

    The left side minus the right one falls with q, and of equal widths all are in or none.
    """
    order = sorted(range(len(widths)), key=lambda level: widths[level])
    total = widths[order[0]] - rank
    for q, level in enumerate(order[1:], 2):
        total += widths[level] - rank
        if q > 2 and total < (q - 1) * (widths[level] - rank):
            return tuple(sorted(order[: q - 1]))
    return tuple(sorted(order))


def coefficient(widths: Sequence[int], rank: int) -> Coefficient:
    """Return λ, its order and the number of largest components for a map of a rank r ≤ min d_i.

    With ℓ + 1 deciding Δ_i of sum s, a = s − (⌈s/ℓ⌉ − 1) ℓ ∈ {1, …, ℓ}:

    λ = ½ [r (d_0 + d_h) − r²] + a (ℓ − a)/(4ℓ) − (ℓ − 1) s²/(4ℓ) + ½ Σ_{i<j} Δ_i Δ_j,

    the order is a (ℓ − a) + 1, and the components are ℓ over a (Aoyagi 2024; Pepin Lehalleur and
    Rimányi 2024). All in integers: 2ℓ divides a (ℓ − a) − (ℓ − 1) s² since a ≡ s modulo ℓ.
    """
    levels = deciding_levels(widths, rank)
    excess = [widths[level] - rank for level in levels]
    count, total = len(levels) - 1, sum(excess)
    rest = (total - 1) % count + 1
    crossed = (total**2 - sum(e * e for e in excess)) // 2
    curved = (rest * (count - rest) - (count - 1) * total**2) // (2 * count)
    ends = rank * (widths[0] + widths[-1] - rank)
    order = rest * (count - rest) + 1
    return Coefficient(ends + curved + crossed, order, comb(count, rest), levels)

"""Compiled kernels: the formulas, on flat contiguous arrays, writing into ``out``."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def compile_all() -> None:
    """Compile every kernel that a public function may need, into Numba's cache, on all cores."""
    numbers = range(len(_groups()))
    workers, spawn = min(len(numbers), os.cpu_count() or 1), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as pool:
        list(pool.map(compile_group, numbers))


def compile_group(number: int) -> None:
    """Compile one group of kernels."""
    from dlnds._kernels import jit

    for kernel, signature in _groups()[number]:
        jit.ready(kernel, signature)


def _groups() -> list[list[tuple[Any, Any]]]:
    """Return the kernels and their signatures, those that take longest first.

    Two processes must not write files of one function at once, for Numba may then mix them up: what
    calls functions that have files of their own is one group.
    """
    from dlnds._kernels import (
        balance,
        bordered,
        graded,
        homogeneous,
        implicit,
        jit,
        langevin,
        linear,
        low_rank,
        product,
        runge_kutta,
        stabilized,
        tangent,
    )

    losses = [
        (linear.loss_field_from_inputs, jit.FIELD),
        (linear.loss_field_from_outputs, jit.FIELD),
        (linear.loss_jvp_from_inputs, jit.JVP),
        (linear.loss_jvp_from_outputs, jit.JVP),
        (linear.loss_jacobian, jit.JACOBIAN),
        (low_rank.loss_own_step, runge_kutta.OWN_STEP),
        (product.loss_field, jit.FIELD),
        (product.loss_jvp, jit.JVP),
        (product.loss_jacobian, jit.JACOBIAN),
        (graded.field, jit.FIELD),
        (graded.jvp, jit.JVP),
        (graded.jacobian, jit.JACOBIAN),
        (graded.canonical, jit.FIELD),
        (graded.restore, jit.RESTORE),
        (graded.error_scale, jit.FIELD),
    ]
    loops = [
        (runge_kutta.advance, runge_kutta.ADVANCE),
        (runge_kutta.advance_each, runge_kutta.ADVANCE_EACH),
    ]
    alone = [
        (low_rank.own_step, runge_kutta.OWN_STEP),
        (stabilized.step, runge_kutta.OWN_STEP),
        (implicit.advance, implicit.ADVANCE),
        (implicit.factorize_all, implicit.FACTORIZE),
        (implicit.solve_dense, implicit.SOLVE),
        (implicit.solve_free, implicit.SOLVE),
        (tangent.advance, tangent.ADVANCE),
        (bordered.advance, bordered.ADVANCE),
        (linear.field_from_inputs, jit.FIELD),
        (linear.field_from_outputs, jit.FIELD),
        (balance.error_scale, jit.FIELD),
        (balance.restore, jit.RESTORE),
        (linear.jvp_from_inputs, jit.JVP),
        (linear.jvp_from_outputs, jit.JVP),
        (linear.jacobian, jit.JACOBIAN),
        (product.field, jit.FIELD),
        (product.force, jit.FIELD),
        (product.jvp, jit.JVP),
        (product.jacobian, jit.JACOBIAN),
        (homogeneous.field, jit.FIELD),
        (homogeneous.jvp, jit.JVP),
        (homogeneous.jacobian, jit.JACOBIAN),
        (runge_kutta.error_scale, jit.FIELD),
        (runge_kutta.grouped_scale, jit.FIELD),
        (runge_kutta.keep, jit.RESTORE),
        (runge_kutta.no_jacobian, jit.JACOBIAN),
        (runge_kutta.no_jvp, jit.JVP),
        (homogeneous.climb, homogeneous.CLIMB),
        (runge_kutta.evaluate_each, runge_kutta.EVALUATE_EACH),
        (runge_kutta.iterate, runge_kutta.ITERATE),
        (langevin.walk, langevin.WALK),
        (linear.tangent, jit.TANGENT),
        (tangent.no_tangent, jit.TANGENT),
        (tangent.tangent_field, tangent.MOVE),
        (tangent.tangent_scale, tangent.MOVE),
        (tangent.iterate, tangent.ITERATE),
        (tangent.apply, tangent.APPLY),
        (bordered.assemble, bordered.ASSEMBLE),
        (bordered.course, bordered.COURSE),
    ]
    return [losses, loops, *([kernel] for kernel in alone)]

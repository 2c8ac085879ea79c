"""Compiled kernels: the formulas, on flat contiguous arrays, writing into ``out``."""


def compile_all() -> None:
    """Compile every kernel that a public function may need, into Numba's cache."""
    from dlnds._kernels import (
        balance,
        bordered,
        homogeneous,
        implicit,
        jit,
        linear,
        product,
        runge_kutta,
        tangent,
    )

    for kernel, signature in (
        (linear.field_from_inputs, jit.FIELD),
        (linear.field_from_outputs, jit.FIELD),
        (balance.error_scale, jit.FIELD),
        (balance.restore, jit.RESTORE),
        (linear.jvp_from_inputs, jit.JVP),
        (linear.jvp_from_outputs, jit.JVP),
        (linear.jacobian, jit.JACOBIAN),
        (linear.loss_field_from_inputs, jit.FIELD),
        (linear.loss_field_from_outputs, jit.FIELD),
        (linear.loss_jvp_from_inputs, jit.JVP),
        (linear.loss_jvp_from_outputs, jit.JVP),
        (linear.loss_jacobian, jit.JACOBIAN),
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
        (runge_kutta.advance, runge_kutta.ADVANCE),
        (implicit.advance, implicit.ADVANCE),
        (homogeneous.climb, homogeneous.CLIMB),
        (runge_kutta.iterate, runge_kutta.ITERATE),
        (linear.tangent, jit.TANGENT),
        (tangent.no_tangent, jit.TANGENT),
        (tangent.tangent_field, tangent.MOVE),
        (tangent.tangent_scale, tangent.MOVE),
        (tangent.advance, tangent.ADVANCE),
        (tangent.iterate, tangent.ITERATE),
        (tangent.apply, tangent.APPLY),
        (bordered.assemble, bordered.ASSEMBLE),
        (bordered.advance, bordered.ADVANCE),
        (bordered.course, bordered.COURSE),
    ):
        jit.ready(kernel, signature)

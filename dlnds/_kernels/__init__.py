"""Compiled kernels: the formulas, on flat contiguous arrays, writing into ``out``."""

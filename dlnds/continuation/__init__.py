"""Branches of solutions of an equation with a parameter, modulo its symmetry."""

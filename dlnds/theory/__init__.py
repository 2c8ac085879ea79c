"""Formulas on layers, singular values and ranks: plain functions of arrays."""

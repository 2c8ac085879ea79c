"""Dynamical systems: frozen problems that all answer the same few questions of the engines."""

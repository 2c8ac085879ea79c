"""Dynamical systems: frozen problems that all answer the same few questions of the engines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["losses"])

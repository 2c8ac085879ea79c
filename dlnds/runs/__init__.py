"""Runs of any system: integration, events, closed forms, Lyapunov exponents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["events"])

"""Runs of any system: integration, events, closed forms, Lyapunov exponents."""

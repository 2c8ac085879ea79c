"""The version of the package, which every Dataset carries."""

__version__ = "0.2.0"

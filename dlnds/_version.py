"""The version of the package, which every Dataset carries."""

__version__ = "0.1.0"

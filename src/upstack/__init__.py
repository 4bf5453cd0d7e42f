"""One endpoint in front of every model you can get, answered from the cheapest route that has proved good enough."""

__all__ = ["__version__"]

__version__ = "0.1.0"

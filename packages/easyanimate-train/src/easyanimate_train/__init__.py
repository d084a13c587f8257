"""Training loops, objectives and datasets for the EasyAnimate SDK."""

__version__ = "0.1.0"

__all__ = ["__version__"]

"""`wrap` for models in PyTorch, which are those of transformers."""

from fabula.interop.transformers import wrap

__all__ = ["wrap"]

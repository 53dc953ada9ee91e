"""Every exception that Fabula raises on purpose.

FabulaError
├── ArgumentError (ValueError)            an argument is out of range or makes no sense with another
│   ├── UnknownArgumentError (TypeError)  a name that nothing reads; the message holds the nearest known one
│   └── ContextLengthError                the prompt, or the prompt and what is asked for, exceeds the context
├── NotSupportedError (NotImplementedError)  known and valid, but not done here; never silently ignored
│   └── AbsentAttributeError (AttributeError)  what another backend's model has, so that hasattr() is False
├── MissingDependencyError (ImportError)  an optional package is absent; the message holds the pip command
├── ModelFileError (OSError)              a model's file is missing, damaged, hostile or not understood
├── DownloadError (OSError)               a model could not be fetched, or was not what was expected
├── TemplateError (ValueError)            a chat template is absent, fails, or exceeds its bounds
├── OutOfMemoryError (MemoryError)        the cache or the weights do not fit
└── GenerationError (RuntimeError)        a run failed or was cancelled while it was under way
    ├── NumericalError                    scores that are not finite where a choice must be made
    └── CancelledError                    somebody asked the run to end
"""

from __future__ import annotations

__all__ = [
    "AbsentAttributeError",
    "ArgumentError",
    "CancelledError",
    "ContextLengthError",
    "DownloadError",
    "FabulaError",
    "GenerationError",
    "MissingDependencyError",
    "ModelFileError",
    "NotSupportedError",
    "NumericalError",
    "OutOfMemoryError",
    "TemplateError",
    "UnknownArgumentError",
]


class FabulaError(Exception):
    """The root: catch it to catch whatever Fabula raises on purpose."""


class ArgumentError(FabulaError, ValueError):
    """An argument is wrong: the message names it, says what was got and what is allowed."""


class UnknownArgumentError(ArgumentError, TypeError):
    """A keyword that nothing reads."""


class ContextLengthError(ArgumentError):
    """More positions are asked for than the model has."""


class NotSupportedError(FabulaError, NotImplementedError):
    """A valid request for something that this version, backend or model cannot do."""


class AbsentAttributeError(NotSupportedError, AttributeError):
    """An attribute that this object lacks and a related one has; the message says which."""


class MissingDependencyError(FabulaError, ImportError):
    """An optional package is needed and absent."""


class ModelFileError(FabulaError, OSError):
    """A file of a model cannot be used; the message names the file and the field or tensor."""


class DownloadError(FabulaError, OSError):
    """A model could not be fetched whole and unchanged."""


class TemplateError(FabulaError, ValueError):
    """A chat template cannot be rendered."""


class OutOfMemoryError(FabulaError, MemoryError):
    """What was asked for does not fit in memory."""


class GenerationError(FabulaError, RuntimeError):
    """A run ended without its result."""


class NumericalError(GenerationError):
    """A row's scores hold no finite number, so that nothing can be chosen."""


class CancelledError(GenerationError):
    """The run was asked to end."""

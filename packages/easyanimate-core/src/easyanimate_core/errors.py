"""Every error that the SDK raises on purpose.

```
EasyAnimateError(message, hint)
├── ConfigError             exit code 2
│   ├── UnknownComponent        a name that no installed plugin registered
│   ├── InvalidOptions          options of a component do not validate
│   ├── InvalidRequest          a request that no model could run
│   ├── IncompatibleConditions  a condition that this checkpoint has no inlet for
│   └── InvalidPlan             stages that cannot run in this order
├── PluginError             exit code 2
│   ├── PluginLoadError         the entry point did not import
│   ├── DuplicateComponent      two plugins, one name
│   └── IncompatiblePlugin      made for another version of the hooks
├── CheckpointError         exit code 3
│   ├── CheckpointNotFound
│   ├── UnknownFormat
│   ├── AmbiguousCheckpoint
│   ├── CheckpointMismatch      missing, unexpected or mis-shaped tensors
│   └── UnsafeCheckpoint        the file holds code, or lies about itself
├── MediaError              exit code 4
│   ├── UnreadableMedia
│   └── UnsupportedCodec
└── ExecutionError          exit code 4
    ├── OutOfMemory
    ├── KernelUnavailable
    └── Cancelled
```

The message says what happened, with the value in quotes; the hint says what to do.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousCheckpoint",
    "Cancelled",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "ConfigError",
    "DuplicateComponent",
    "EasyAnimateError",
    "ExecutionError",
    "IncompatibleConditions",
    "IncompatiblePlugin",
    "InvalidOptions",
    "InvalidPlan",
    "InvalidRequest",
    "KernelUnavailable",
    "MediaError",
    "OutOfMemory",
    "PluginError",
    "PluginLoadError",
    "UnknownComponent",
    "UnknownFormat",
    "UnreadableMedia",
    "UnsafeCheckpoint",
    "UnsupportedCodec",
]


class EasyAnimateError(Exception):
    """Base of all errors of the SDK.

    Attributes:
        message: what happened, with the offending value in quotes.
        hint: what to do about it; empty when there is nothing useful to say.
        exit_code: exit status of the command line for this family of errors.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(EasyAnimateError):
    """The request, a component's options or the plan is wrong; nothing has been loaded yet."""

    exit_code = 2


class UnknownComponent(ConfigError):
    """No installed plugin registered this name in this slot."""


class InvalidOptions(ConfigError):
    """The options of a component or a document do not validate."""


class InvalidRequest(ConfigError):
    """The request asks for something that the chosen model cannot do."""


class IncompatibleConditions(ConfigError):
    """A condition has no inlet in this checkpoint, or an inlet's width differs."""


class InvalidPlan(ConfigError):
    """A stage needs something that no earlier stage gives."""


class PluginError(EasyAnimateError):
    """A plugin cannot be adopted."""

    exit_code = 2


class PluginLoadError(PluginError):
    """Importing a plugin's entry point, or calling one of its hooks, failed."""


class DuplicateComponent(PluginError):
    """Two distributions register the same name in the same slot."""


class IncompatiblePlugin(PluginError):
    """A plugin implements hooks that this version of the SDK does not have."""


class CheckpointError(EasyAnimateError):
    """A checkpoint cannot be used."""

    exit_code = 3


class CheckpointNotFound(CheckpointError):
    """A file or folder of the checkpoint does not exist."""


class UnknownFormat(CheckpointError):
    """No registered format recognises the checkpoint."""


class AmbiguousCheckpoint(CheckpointError):
    """Several formats recognise the checkpoint equally well."""


class CheckpointMismatch(CheckpointError):
    """Tensors are missing, unexpected, of another shape, or not finite."""


class UnsafeCheckpoint(CheckpointError):
    """The file would run code when loaded, or its header is not to be trusted."""


class MediaError(EasyAnimateError):
    """A picture or video cannot be read or written."""

    exit_code = 4


class UnreadableMedia(MediaError):
    """The file is missing, truncated, or not a picture or video."""


class UnsupportedCodec(MediaError):
    """The container or codec is not available."""


class ExecutionError(EasyAnimateError):
    """Running a valid plan failed."""

    exit_code = 4


class OutOfMemory(ExecutionError):
    """The device ran out of memory; the hint names the next cheaper offload or storage."""


class KernelUnavailable(ExecutionError):
    """A kernel was asked for by name and cannot run here."""


class Cancelled(ExecutionError):
    """The user stopped the run; nothing partial is left behind."""

"""Errors that a user of the workbench may meet: each names what was given, what exists and what to do.

WorkbenchError
├── UnknownModelError      no model of that name, or a path that leads nowhere
├── CheckpointError        a file that is broken, hostile, or not what its config says
├── ConfigError            a configuration value that cannot be meant
├── PromptError            a prompt that the model cannot read
├── SiteError              a hook or head that this model does not have
├── BudgetError            a result that would not fit the stated memory
├── DivergedError          a training run whose loss is no longer a number
└── UnsupportedError       an analysis that this architecture does not admit
"""


class WorkbenchError(ValueError):
    """Base of every error that is the input's fault rather than the program's."""


class UnknownModelError(WorkbenchError):
    """No model of that name."""


class CheckpointError(WorkbenchError):
    """A checkpoint file that is broken, hostile or not what its config says."""


class ConfigError(WorkbenchError):
    """A configuration value that cannot be meant."""


class PromptError(WorkbenchError):
    """A prompt that the model cannot read."""


class SiteError(WorkbenchError):
    """A hook point or head that this model does not have."""


class BudgetError(WorkbenchError):
    """A result that would not fit into the stated memory budget."""


class DivergedError(WorkbenchError):
    """A training run whose loss is no longer a number."""


class UnsupportedError(WorkbenchError):
    """An analysis that this architecture does not admit."""

"""What can go wrong, as a tree. Each message says what is wrong, where, and what to do.

CharterError                 exit code 2: the user can mend it; shown as one line, never a traceback
├── ConfigError              a run file: unknown key, wrong type, combination that makes no sense
├── ConstitutionError        a constitution: empty or duplicate principle, unknown key
├── DataError                prompts, preferences or artifacts that can't be read (names file and line)
├── ModelError               a model folder or hub id that can't be loaded or used
├── LabelerError             labelling can't go on
│   ├── CoverageError        too many abstentions
│   └── UnfitLabelerError    the labeler check found it unfit
├── EndpointError            a server that can't be reached or answers nonsense
├── BudgetError              a stated cap on money or tokens is reached (the run can be resumed)
├── StoreError               the run folder: locked, of another run, damaged, disk full
└── TrainingError            NaN, divergence, or a budget that stops training
"""


class CharterError(Exception):
    """A fault that the user can mend. The message is one line and ends with the remedy."""

    exit_code = 2


class ConfigError(CharterError):
    """The run file is wrong."""


class ConstitutionError(CharterError):
    """The constitution is wrong."""


class DataError(CharterError):
    """Input data or an artifact can't be read."""


class ModelError(CharterError):
    """A model can't be loaded or used."""


class LabelerError(CharterError):
    """Labelling can't go on."""


class CoverageError(LabelerError):
    """Fewer pairs got a usable label than the run file demands."""


class UnfitLabelerError(LabelerError):
    """The labeler check found the labeler unfit."""


class EndpointError(CharterError):
    """A server can't be reached or answers nonsense."""


class BudgetError(CharterError):
    """A stated cap is reached; the run can be resumed with a higher one."""


class StoreError(CharterError):
    """The run folder can't be used."""


class TrainingError(CharterError):
    """Training can't go on."""

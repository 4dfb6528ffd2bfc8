"""Errors that the user of a training job can fix. Their texts are printed unchanged.

TrainingError
├── DataError      the data set can't be loaded
├── DeviceError    the required devices are missing, or can't share the work
├── DivergedError  the loss is no longer finite
├── FolderError    a folder can't be written to
├── FullError      a disk or a device's memory is full
├── ResumeError    the run can't be resumed
├── ExportError    the version can't be published
└── VersionError   an exported version can't be measured again
"""


class TrainingError(Exception):
    """Base of all."""


class DataError(TrainingError):
    """The data set can't be loaded; the message says why."""


class DeviceError(TrainingError):
    """The required devices are missing, or can't share the work; the message says which were found."""


class DivergedError(TrainingError):
    """The loss is no longer finite. The checkpoint of the last good epoch is kept; the message says what to change."""


class FolderError(TrainingError):
    """A folder can't be made or written to; the message says which, and why."""


class FullError(TrainingError):
    """TensorFlow reports that a disk or a device's memory is full; the message says which."""


class ResumeError(TrainingError):
    """A run can't be resumed: it has no checkpoint, or was started by another recipe, on other data or precision."""


class ExportError(TrainingError):
    """The exported model can't be loaded, its answers differ from the fitted one's, or its folder can't be renamed."""


class VersionError(TrainingError):
    """A version can't be measured again: it can't be read, or its files are not the exported ones."""


def one_line(error: Exception) -> str:
    """Return an error's text on one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__

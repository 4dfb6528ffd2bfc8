"""Errors that the person who started a training job can fix; their texts are printed as they are.

TrainingError
├── DataError      the data set can't be had
├── DeviceError    the devices that were asked for are not there, or can't share the work
├── DivergedError  the loss is not finite any more
├── FolderError    a folder can't be written to
├── FullError      a disk or a device's memory is full
├── ResumeError    the run can't be resumed
├── ExportError    the version can't be published
└── VersionError   an exported version can't be measured again
"""


class TrainingError(Exception):
    """Base of all."""


class DataError(TrainingError):
    """The data set can't be had; the message says what was looked for and where."""


class DeviceError(TrainingError):
    """The devices can't do what was asked; the message says what was found."""


class DivergedError(TrainingError):
    """The loss is not finite any more; the last good epoch's checkpoint is kept; the message says what to change."""


class FolderError(TrainingError):
    """A folder can't be made or written to; the message says which, and why."""


class FullError(TrainingError):
    """A disk or a device's memory is full, as TensorFlow tells it; the message says of what."""


class ResumeError(TrainingError):
    """A run can't be resumed: it has no checkpoint, or was started by another recipe, on other data or precision."""


class ExportError(TrainingError):
    """The exported model can't be loaded or does not answer as the fitted one, or its folder can't be put in place."""


class VersionError(TrainingError):
    """A version can't be measured again: it can't be read, or its files are not those that were exported."""


def one_line(error: Exception) -> str:
    """Return an error's text on one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__

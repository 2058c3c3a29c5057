"""Errors whose message is written for the person who gave the input.

A message says what was expected and what came. It names a file by its base name only, so it can be shown on a page
without giving away a path of the server.
"""


class SteelError(Exception):
    """Base of every error that may be shown to a user as it is."""


class ImageError(SteelError):
    """An image was refused: unreadable, damaged, too large, or of an unsupported type."""


class DataError(SteelError):
    """A data set, an annotation or a manifest is not what its reader expects."""


class CheckpointError(SteelError):
    """A checkpoint is missing, damaged, or does not fit its card."""


class UsageError(SteelError):
    """A call was wrong: an unknown name, or a parameter outside its range."""

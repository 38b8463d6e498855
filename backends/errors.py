"""Errors that a user may see. Each message is one line: where, expected, got, and the next step."""


class ToolkitError(Exception):
    """Base class of the errors below. The command line turns them into exit code 2."""


class InvalidInput(ToolkitError):
    """The caller's input is wrong: a feed, an image, a message, an option, a closed session."""


class InvalidArtifact(ToolkitError):
    """A file or a bundle is broken, was changed, or differs from its manifest."""


class NotAvailable(ToolkitError):
    """A name, package, backend or precision is not available. The message lists the available ones."""


class NotInstalled(NotAvailable):
    """An optional package is not installed. The message has the command that installs it."""


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks, to put it into another message."""
    return " ".join(str(error).split())

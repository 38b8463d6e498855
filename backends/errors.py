"""The errors that a person may meet. Each message is one line: where, expected, got, and the next step."""


class ToolkitError(Exception):
    """Base of every error this project raises on purpose. The command line turns it into exit code 2."""


class InvalidInput(ToolkitError):
    """The caller's input is wrong: a feed, an image, a message, an option, a closed session."""


class InvalidArtifact(ToolkitError):
    """A file or a bundle is broken, was changed, or differs from its manifest."""


class NotAvailable(ToolkitError):
    """A name, package, backend or precision is not available. The message lists the available ones."""


def one_line(error: Exception) -> str:
    """The message of a library's error without its line breaks, for the middle of our own line."""
    return " ".join(str(error).split())

"""The errors a person may meet: one line that says what, where, expected, got, and what to do."""


class ToolkitError(Exception):
    """Base of every error this project raises on purpose. The command line turns it into exit code 2."""


class InvalidInput(ToolkitError):
    """What the caller gave is wrong: a feed, an image, a message, an option, a closed session."""


class InvalidArtifact(ToolkitError):
    """A file or a bundle is broken, tampered with, or not what its manifest says."""


class NotAvailable(ToolkitError):
    """A name, package, backend or precision that is not here. The message lists what there is."""


def one_line(error: Exception) -> str:
    """The message of a library's error without its line breaks, for the middle of our own line."""
    return " ".join(str(error).split())

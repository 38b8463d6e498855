"""How a process of ours ended, in words."""

import signal


def how_it_ended(returncode: int) -> str:
    """ "was killed by SIGABRT", or "failed with exit code 3"; for a process that did not end with 0."""
    if returncode >= 0:
        return f"failed with exit code {returncode}"
    name = signal.Signals(-returncode).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

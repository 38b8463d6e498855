"""The command line as `python -m toolkit`, for a Python whose scripts are not on the PATH."""

from toolkit.cli import main

main(prog_name="python -m toolkit")

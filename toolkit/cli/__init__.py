"""The command line. Each command is one file that reads options, calls the toolkit and prints, without other logic."""

import click

from toolkit.cli.group import CommandGroup

COMMANDS = {
    "ship": ("toolkit.cli.ship:ship", "Do all that follows for one model; say which file to take."),
    "models": ("toolkit.cli.models:models", "List the models and what each one is."),
    "export": ("toolkit.cli.export:export", "Export a model's networks to ONNX, as a bundle."),
    "import": ("toolkit.cli.import_:import_", "Make a bundle of any ONNX file."),
    "convert": ("toolkit.cli.convert:convert", "Lower a bundle to TFLite and quantize it."),
    "compare": ("toolkit.cli.compare:compare", "Hold every file of a bundle to the reference."),
    "bisect": ("toolkit.cli.bisect:bisect", "Find the layer in which a file differs."),
    "bench": ("toolkit.cli.bench:bench", "Time every file of a bundle, side by side."),
    "embed": ("toolkit.cli.embed:embed", "Hide a message in an image."),
    "run": ("toolkit.cli.run:run", "Read the message that images carry."),
    "doctor": ("toolkit.cli.doctor:doctor", "Try every part on this machine; give advice."),
    "setup-converter": ("toolkit.cli.setup_converter:setup_converter", "Make the converter's own environment."),
}

main = CommandGroup(
    COMMANDS,
    name="toolkit",
    help="""Models on several runtimes, from one ONNX graph, with proof that the files agree.

    \b
    Example:
      toolkit ship resnet50.onnx -o build/resnet50
      toolkit embed photo.jpg --message 0123456789abcdef -o marked.jpg
      toolkit run marked.jpg --expect 0123456789abcdef
    """,
    epilog="""Exit codes: 0 done, 1 the judgement is negative, 2 bad usage or bad input.

    \b
    Completion for bash (zsh and fish alike):
      eval "$(_TOOLKIT_COMPLETE=bash_source toolkit)"
    """,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(package_name="seal-toolkit")(main)

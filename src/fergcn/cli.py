"""The command line.

Results go to stdout, progress and errors to stderr. A command's module is imported when it is
called, so that `fergcn --help` answers at once.
"""

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

from cyclopts import App, CycloptsError
from cyclopts.config import Toml

from fergcn.expressions import FergcnError

COMMANDS = {
    "demo": ("demo:demo", "Train, test and analyse a video on what the package ships."),
    "predict": ("predict:predict", "Tell who shows which expression when in videos."),
    "datasets": ("datasets:app", "List the datasets, or check one on disk."),
    "prepare": ("prepare:prepare", "Cut aligned faces out of a dataset, once for all."),
    "train": ("train:train", "Train a network on a whole dataset."),
    "crossval": ("crossval:crossval", "Cross-validate a network, subjects kept apart."),
    "ablate": ("crossval:ablate", "Cross-validate variants and other networks on the same folds."),
    "report": ("report:report", "Put runs on one page, beside the paper's results."),
    "evaluate": ("evaluate:evaluate", "Score a checkpoint on a dataset."),
    "calibrate": ("calibrate:calibrate", "Make a checkpoint's probabilities say what they mean."),
    "card": ("report:card", "Write a checkpoint's scores into its model card."),
    "export": ("export:export", "Write a checkpoint as ONNX, checked against torch."),
    "render": ("render:render", "Render a dataset of parametric heads with known truth."),
    "bench": ("bench:bench", "Measure speed as ratios on this machine."),
}
"""Function below `fergcn.commands` and summary of each command."""

app = App(
    name="fergcn",
    help="Recognise facial expressions in video with FER-GCN.\n\n"
    "Every command takes --config FILE.toml: its table of the command's name holds flags.",
    help_format="plaintext",
)
for _name, (_target, _summary) in COMMANDS.items():
    app.command(f"fergcn.commands.{_target}", name=_name, help=_summary)


def main() -> NoReturn:
    """Run the command line and exit: 0 all good, 1 some input failed, 2 wrong usage."""
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # some terminals know no arrows
    try:
        given = "--config" in arguments
        # A lone hyphen is stdin, as everywhere, but cyclopts takes it for an option.
        arguments = ["/dev/stdin" if word == "-" else word for word in arguments]
        app.config = (Toml(_take_config(arguments), must_exist=True),) if given else ()
        # Settings check themselves when they are made, which is still a matter of usage.
        command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except FileNotFoundError as error:
        _stop(f"found no file {error.filename}, expected a TOML file: check --config", 2)
    except (CycloptsError, FergcnError, ValueError) as error:
        files = [word for word in arguments if word[:1] == "-" and os.path.lexists(word)]
        hint = f" If you mean the file, write ./{files[0]}" if files else ""
        _stop(" ".join(str(error).split()) + hint, 2)
    try:
        sys.exit(command(*bound.args, **bound.kwargs) or 0)
    except FergcnError as error:
        _stop(str(error), 1)


def _stop(message: str, code: int) -> NoReturn:
    print(f"fergcn: {message}", file=sys.stderr)
    sys.exit(code)


def _take_config(arguments: list[str]) -> str:
    """Take `--config FILE` out of the arguments."""
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise ValueError("found --config without a file, expected a TOML file: name one")
    path = arguments[at + 1]
    del arguments[at : at + 2]
    return path

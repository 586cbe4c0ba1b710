"""The export command: a checkpoint as ONNX."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from fergcn.checkpoint import checkpoint_folder, load_checkpoint
from fergcn.commands.progress import progress_bars, stdout
from fergcn.export import TOLERANCE, export_in_place, export_network
from fergcn.expressions import FergcnError


def export(
    checkpoint: str = "default",
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    in_place: Annotated[bool, Parameter(negative="")] = False,
    tolerance: float = TOLERANCE,
) -> int:
    """Write a checkpoint as ONNX, for use without torch.

    Writes backbone.onnx (frames to features), backbone-int8.onnx (the same in 8 bits, faster on a
    CPU; left out where features would differ by more than 15 %), head.onnx (features to logits),
    export.json, which says what they are, and parity.json: how far their answers are from torch's
    on bundled clips.

    Args:
        checkpoint: folder of a checkpoint, or the name of one in the package.
        output: folder of the export; export if left out.
        in_place: write into the checkpoint's own folder instead; the files of 32 bits then read the
            weights from the checkpoint, and predict and evaluate use ONNX Runtime with it.
        tolerance: largest difference from torch in 32 bits; beyond it nothing is written.
    """
    if in_place and output is not None:
        print(
            "fergcn: found --in-place and --output, expected one of them: leave one out",
            file=sys.stderr,
        )
        return 2
    output = checkpoint_folder(checkpoint) if in_place else output or Path("export")
    with progress_bars() as progress:

        def told(done: int, total: int) -> None:
            progress("clips compared", done, total)

        try:
            if in_place:
                parity = export_in_place(output, tolerance, told)
            else:
                parity = export_network(load_checkpoint(checkpoint), output, tolerance, told)
        except OSError as error:
            raise FergcnError(
                f"{output}: found it can't be written ({error.strerror or error}), expected a "
                "folder with room: choose another with -o"
            ) from None
    table = Table("output", "values", "largest", "largest difference from torch")
    for entry in parity.outputs:
        table.add_row(
            entry.output, str(entry.values), f"{entry.largest:.3g}", f"{entry.difference:.1e}"
        )
    stdout.print(table)
    in_8_bits = "in 8 bits: no range for the values was found"
    if (int8 := parity.int8) is not None:
        in_8_bits = (
            f"in 8 bits: features differ by {int8.features:.1%}, {int8.same} of {int8.answers} "
            f"answers are the same, probabilities differ by at most {int8.probability:.3f}"
        )
    if not parity.int8_is_kept:
        in_8_bits += "; backbone-int8.onnx was left out"
    stdout.print(in_8_bits, soft_wrap=True, highlight=False)
    if not parity.agrees(tolerance):
        print(
            f"fergcn: found differences beyond {tolerance:g}, expected ONNX to answer as torch "
            "does: nothing was written",
            file=sys.stderr,
        )
        return 1
    stdout.print(f"export: {output}", soft_wrap=True, highlight=False)
    return 0

"""The evaluate command: a checkpoint's scores on a dataset, other tools beside it."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fergcn.analysis.config import Runtime
from fergcn.commands.progress import progress_bars, stdout
from fergcn.commands.scores import print_evaluation
from fergcn.expressions import FergcnError
from fergcn.files import write_json, write_text


def evaluate(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    checkpoint: str = "default",
    expressions: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    hold_out: int | None = None,
    by: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    peers: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    runtime: Runtime = "auto",
) -> int:
    """Score a checkpoint on a dataset.

    Of a dataset as it is distributed, faces are found first and kept in the cache.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder, or the store that fergcn prepare made; without one, the edition in the
            package.
        checkpoint: folder of a checkpoint, or the name of one in the package.
        expressions: choose among these only, as a,b,c; clips of others are left out. Without
            any, among all that the checkpoint knows.
        hold_out: score the people only whom fergcn train left out with the same number.
        by: also score groups of clips by what the dataset knows of them, such as skin_tone age
            gender; numbers are cut into thirds of like many people.
        json_file: also write the scores there, and beside it every answer as a table (.csv).
        peers: score other tools beside it, on the same faces: fer, face-api. What they need is
            installed into an environment of their own in the cache, once.
        runtime: what runs the backbone: torch, onnx, int8 (8 bits), or auto, as predict chooses it
            on a CPU.
    """
    from fergcn.analysis.network import cpu_runtime, open_export
    from fergcn.checkpoint import load_checkpoint
    from fergcn.commands.peers import find_peers, print_peers, score_peers
    from fergcn.evaluation import choose_expressions, evaluate_clips, load_faces
    from fergcn.folds import split_people

    table_file = _check_outputs(json_file)
    peer_names = find_peers(peers or [])
    loaded = load_checkpoint(checkpoint)
    if runtime == "auto":
        runtime = cpu_runtime(checkpoint)
    exported = None if runtime == "torch" else open_export(checkpoint, runtime)
    if exported is not None and exported.sha256 != loaded.sha256:
        raise FergcnError(
            f"{checkpoint}: found an export of the weights {exported.sha256[:12]}…, expected one "
            f"of {loaded.sha256[:12]}…: export again, or use --runtime torch"
        )
    chosen = None
    if expressions is not None:
        names = [name.strip() for value in expressions for name in value.split(",")]
        chosen = choose_expressions([name for name in names if name], loaded.expressions)
    with progress_bars() as report:
        clips, failures = load_faces(dataset, root, loaded.model.config.num_frames, report)
        if hold_out is not None:
            clips = split_people(clips, hold_out)[1]
        evaluation = evaluate_clips(loaded, clips, chosen, report, by or [], exported=exported)
        num_frames = loaded.model.config.num_frames
        beside, failed = score_peers(peer_names, clips, evaluation.expressions, num_frames, report)
    for reason in (*failures, *failed.values()):
        print(f"fergcn: {reason}", file=sys.stderr)
    stdout.print(f"{checkpoint} on {dataset}, by {runtime}", soft_wrap=True, highlight=False)
    print_evaluation(evaluation)
    if beside:
        print_peers({checkpoint: evaluation} | beside)
    if json_file is not None and table_file is not None:
        about: dict[str, Any] = {
            "dataset": dataset,
            "checkpoint": checkpoint,
            "runtime": runtime,
            "hold_out": hold_out,
            "unreadable": list(failures),
        }
        if peers:
            scores = {name: peer.summary for name, peer in beside.items()}
            about["peers"] = scores | {name: {"failed": reason} for name, reason in failed.items()}
        tables = {table_file: evaluation} | {
            table_file.with_suffix(f".{name}.csv"): peer for name, peer in beside.items()
        }
        try:
            write_json(json_file, about | evaluation.summary)
            for file, answers in tables.items():
                write_text(file, answers.predictions.to_csv(index=False))
        except OSError as error:
            raise FergcnError(
                f"{json_file}: found it can't be written ({error.strerror}), expected a folder "
                "with room: choose another with --json"
            ) from None
        where = ", ".join(map(str, tables))
        stdout.print(f"scores: {json_file}\nanswers: {where}", soft_wrap=True)
    return int(bool(failures or failed))


def _check_outputs(json_file: Path | None) -> Path | None:
    """Where the table beside the scores goes; known to fit before the work begins."""
    if json_file is None:
        return None
    if json_file.is_dir() or json_file.suffix == ".csv":
        raise FergcnError(
            f"{json_file}: found a folder or the ending of the table beside the scores, expected "
            "a file such as scores.json: choose another with --json"
        )
    return json_file.with_suffix(".csv")

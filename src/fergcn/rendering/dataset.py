"""A whole rendered dataset on disk: all cores, resumable, the same bytes whatever the order.

Layout of a finished dataset::

    rendered.json   settings and versions; written last, so it marks a complete dataset
    clips.csv       one row per clip; where the kind `anywhere` is among those rendered, also the
                    second expression and its strength, empty and 0 where there is none
    frames.csv      true intensity of the labelled expression in every frame; where that kind is
                    among them, also `second_intensity`, that of the second one
    motion.npy      (clips, 14, 14) uint8: where each expression moves the face
    actions.csv     where the kind `still` is among those rendered: what each of these faces does,
                    one column for each of ARKit's 52 actions
    points.npz      likewise, arrays clip_id (stills,) and points (stills, 2, P, 2): where points of
                    these faces are, 0–1 of the picture, x first, and how far actions have moved
                    them; the second half mirrors the first, which is on the subject's left
    clips/<subject_id>/<clip_id>.mp4, or .jpg for a still

While rendering, `in-progress/` holds the settings and what is known about each finished clip.
"""

import io
import json
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from fergcn.expressions import EXPRESSIONS, FergcnError
from fergcn.files import csv_text, write_bytes, write_json, write_text
from fergcn.progress import Count, silent
from fergcn.rendering.timing import KINDS, Kind
from fergcn.video import write_video
from fergcn.workers import num_cores, run_tasks

if TYPE_CHECKING:  # the renderer needs packages that only the extra `render` installs
    from fergcn.rendering.clips import ClipRequest, RenderedClip

FORMAT = 1
"""Version of the layout on disk."""

MAX_STRENGTH = 1.5
"""An expression more exaggerated than that is a grimace."""

MANIFEST = "rendered.json"
IN_PROGRESS = "in-progress"


@dataclass(frozen=True)
class RenderConfig:
    """Settings of a rendered dataset."""

    num_subjects: int = 40
    clips_per_expression: int = 2
    """Clips of each subject and expression."""
    kinds: tuple[Kind, ...] = ("onset_apex", "onset_apex_offset")
    """When these clips reach their apex, in turn. onset_apex: last; onset_apex_offset: between two
    neutral ends; anywhere: in any frame, with pauses and often a second, weaker expression; still:
    in the only one, a picture."""
    expressions: tuple[str, ...] = EXPRESSIONS
    image_size: int = 128
    """Side of the aligned faces in pixels; even."""
    min_frames: int = 16
    """Of a clip; a still has one."""
    max_frames: int = 24
    min_strength: float = 0.15
    """The weakest apex; 1 shows an expression in full."""
    max_strength: float = 1.0
    """The strongest apex; above 1, for the kind still alone, it is exaggerated."""
    varied: bool = False
    """People, their light and their faces at rest differ more, closer to photographs."""
    fps: int = 25
    seed: int = 0
    """Two seeds share no subject."""
    crf: int = 22
    """Quality of the videos for x264, lower is better and larger; stills are JPEG of quality 95."""

    def __post_init__(self) -> None:
        if unknown := set(self.expressions) - set(EXPRESSIONS):
            raise FergcnError(
                f"found the expression {', '.join(sorted(unknown))}, expected some of "
                f"{', '.join(EXPRESSIONS)}: correct the setting expressions"
            )
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise FergcnError(
                f"found the kinds {', '.join(self.kinds) or 'none'}, expected some of "
                f"{', '.join(KINDS)}: correct the setting kinds"
            )
        if self.image_size < 32 or self.image_size % 2:
            raise FergcnError(
                f"found image_size {self.image_size}, expected an even number from 32: change it"
            )
        if not 8 <= self.min_frames <= self.max_frames:
            raise FergcnError(
                f"found {self.min_frames} to {self.max_frames} frames, expected a range from "
                "8: change min_frames or max_frames"
            )
        if not 0 < self.min_strength <= self.max_strength <= MAX_STRENGTH:
            raise FergcnError(
                f"found strengths of {self.min_strength} to {self.max_strength}, expected a range "
                f"above 0, up to {MAX_STRENGTH}: change min_strength or max_strength"
            )
        if self.max_strength > 1 and set(self.kinds) != {"still"}:
            raise FergcnError(
                f"found a max_strength of {self.max_strength} for {', '.join(self.kinds)}, "
                "expected 1 at most, as intensity ends there: only the kind still can be "
                "exaggerated"
            )
        if min(self.num_subjects, self.clips_per_expression, len(self.expressions)) < 1:
            raise FergcnError(
                "found settings without any clip, expected at least one subject, expression and "
                "clip: change num_subjects, expressions or clips_per_expression"
            )


def render_dataset(
    output: Path,
    config: RenderConfig | None = None,
    workers: int | None = None,
    on_progress: Count = silent,
) -> None:
    """Render a dataset; called again after an interruption, it goes on where it was.

    The bytes depend on the settings only. With more than one worker, a script that calls this needs
    the usual `if __name__ == "__main__":`.

    Args:
        output: folder of the dataset; it is created.
        config: the settings.
        workers: number of processes; None for one per core.
        on_progress: is told the number of finished clips and of all clips.

    Raises:
        FergcnError: `anny` or `numba` is not installed; the folder holds something else, or was
            begun with other settings; a process was killed.
    """
    config = config or RenderConfig()
    manifest = _manifest(config)
    requests = _requests(config)
    if _is_complete(output, manifest):
        on_progress(len(requests), len(requests))
        return
    _begin(output, manifest)
    todo = [request for request in requests if not _is_rendered(output, request)]
    done = len(requests) - len(todo)
    on_progress(done, len(requests))
    render = partial(_render_one, output, config)
    with closing(run_tasks(render, todo, workers or num_cores())) as rendered:
        for _, outcome in rendered:
            if isinstance(outcome, FergcnError):
                raise outcome
            done += 1
            on_progress(done, len(requests))
    _finish(output, manifest, requests)


def _manifest(config: RenderConfig) -> dict[str, Any]:
    try:
        fergcn_version = version("fergcn")
    except PackageNotFoundError:  # run from a folder
        fergcn_version = "unknown"
    return {
        "format": FORMAT,
        "config": _as_json(config),
        "fergcn_version": fergcn_version,
        "complete": True,
    }


def _as_json(config: RenderConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))  # tuples become lists
    return settings


def _requests(config: RenderConfig) -> list["ClipRequest"]:
    # a missing extra is reported here, before anything is written
    from fergcn.rendering.clips import ClipRequest
    from fergcn.rendering.head import load_head

    load_head()
    return [
        ClipRequest(
            seed=config.seed,
            subject=subject,
            expression=expression,
            index=index,
            kind=config.kinds[index % len(config.kinds)],
            image_size=config.image_size,
            min_frames=config.min_frames,
            max_frames=config.max_frames,
            min_strength=config.min_strength,
            max_strength=config.max_strength,
            varied=config.varied,
        )
        for subject in range(config.num_subjects)
        for expression in config.expressions
        for index in range(config.clips_per_expression)
    ]


# --- folder --------------------------------------------------------------------------------------


def _is_complete(output: Path, manifest: dict[str, Any]) -> bool:
    """Whether the folder already holds just this dataset."""
    if not (output / MANIFEST).exists():
        return False
    found = _read_settings(output / MANIFEST)
    if found.get("config") != manifest["config"]:
        raise FergcnError(
            f"{output}: found a dataset with other settings ({_difference(found, manifest)}), "
            "expected an empty folder: choose another folder or delete this one"
        )
    return True


def _begin(output: Path, manifest: dict[str, Any]) -> None:
    """Mark the folder as ours, or check that it is."""
    marker = output / IN_PROGRESS / "settings.json"
    if marker.exists():
        found = _read_settings(marker)
        if found != manifest:
            raise FergcnError(
                f"{output}: found a rendering begun with other settings "
                f"({_difference(found, manifest)}), expected the same ones: choose another folder "
                "or delete this one"
            )
        return
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FergcnError(
            f"{output}: found files that are not a rendering, expected an empty folder: "
            "choose another folder"
        )
    write_json(marker, manifest)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise FergcnError(f"{path}: found no settings, expected JSON: delete the dataset's folder")
    if isinstance(settings.get("config"), dict):  # one that was added since has its default
        settings["config"] = _as_json(RenderConfig()) | settings["config"]
    return settings


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Name the settings that differ."""
    old = {**found, **found.get("config", {})}
    new = {**expected, **expected["config"]}
    names = [name for name in new if name != "config" and old.get(name) != new[name]]
    return ", ".join(f"{name} {old.get(name)}, not {new[name]}" for name in names)


def _clip_path(output: Path, request: "ClipRequest") -> Path:
    suffix = ".jpg" if request.kind == "still" else ".mp4"
    return output / "clips" / request.subject_id / f"{request.clip_id}{suffix}"


def _facts_path(output: Path, request: "ClipRequest") -> Path:
    return output / IN_PROGRESS / f"{request.clip_id}.json"


def _is_rendered(output: Path, request: "ClipRequest") -> bool:
    return _clip_path(output, request).exists() and _facts_path(output, request).exists()


# --- rendering -----------------------------------------------------------------------------------


def _render_one(output: Path, config: RenderConfig, request: "ClipRequest") -> None:
    """Render one clip to disk: first its facts, then its frames, whose name says it is complete."""
    from fergcn.rendering.clips import render_clip
    from fergcn.rendering.head import load_head

    with threadpool_limits(1):  # several threads add up in another order: other last digits
        clip = render_clip(request)
    frames = {"intensity": clip.intensity}
    if "anywhere" in config.kinds:
        frames["second_intensity"] = clip.second_intensity
    facts: dict[str, Any] = {
        "row": _table_row(request, clip, config),
        "frames": [
            {name: f"{values[index]:.4f}" for name, values in frames.items()}
            for index in range(len(clip.frames))
        ],
        "motion": clip.motion.tolist(),
    }
    if request.kind == "still":
        names = load_head().action_names
        shown = (f"{value:.4f}" for value in clip.actions[0])
        facts["actions"] = dict(zip(names, shown, strict=True))
        assert clip.points is not None  # as it is a still
        facts["points"] = clip.points.astype(np.float64).round(5).tolist()
    write_text(_facts_path(output, request), json.dumps(facts))
    path = _clip_path(output, request)
    path.parent.mkdir(parents=True, exist_ok=True)
    if request.kind == "still":
        picture = io.BytesIO()
        Image.fromarray(clip.frames[0]).save(picture, "jpeg", quality=95, subsampling=0)
        write_bytes(path, picture.getvalue())
    else:
        write_video(path, clip.frames, config.fps, config.crf)


def _table_row(
    request: "ClipRequest", clip: "RenderedClip", config: RenderConfig
) -> dict[str, Any]:
    second = {
        "second_expression": clip.second_expression,
        "second_strength": f"{clip.second_intensity.max():.4f}",
    }
    return {
        "clip_id": request.clip_id,
        "subject_id": request.subject_id,
        "expression": request.expression,
        "kind": request.kind,
        "num_frames": len(clip.frames),
        "fps": config.fps,
        "apex_index": "" if clip.apex_index is None else clip.apex_index,
        "apex_strength": f"{clip.apex_strength:.4f}",
        **(second if "anywhere" in config.kinds else {}),
        **clip.attributes,
    }


def _finish(output: Path, manifest: dict[str, Any], requests: list["ClipRequest"]) -> None:
    """Collect the facts of all clips into the tables and mark the dataset as complete."""
    facts, points = [], []
    for request in requests:
        fact = json.loads(_facts_path(output, request).read_text())
        if "points" in fact:
            points.append(np.array(fact.pop("points"), np.float32))
        facts.append(fact)
    write_text(output / "clips.csv", csv_text([fact["row"] for fact in facts]))
    frames = [
        {"clip_id": fact["row"]["clip_id"], "frame_index": index, **frame}
        for fact in facts
        for index, frame in enumerate(fact["frames"])
    ]
    write_text(output / "frames.csv", csv_text(frames))
    actions = [
        {"clip_id": fact["row"]["clip_id"], **fact["actions"]}
        for fact in facts
        if "actions" in fact
    ]
    if actions:
        write_text(output / "actions.csv", csv_text(actions))
        clip_ids = np.array([row["clip_id"] for row in actions])
        arrays = io.BytesIO()
        np.savez_compressed(arrays, clip_id=clip_ids, points=np.stack(points))
        write_bytes(output / "points.npz", arrays.getvalue())
    motion = io.BytesIO()
    np.save(motion, np.array([fact["motion"] for fact in facts], np.uint8))
    write_bytes(output / "motion.npy", motion.getvalue())
    write_json(output / MANIFEST, manifest)
    shutil.rmtree(output / IN_PROGRESS, ignore_errors=True)  # what is left does no harm

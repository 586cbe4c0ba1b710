"""ONNX Runtime, as everything here uses it."""

import os
from pathlib import Path
from typing import Any

# From 1.29 on, ONNX Runtime gives the machine a lasting number and reports to its maker, unless
# this is set before it is imported. Whoever wants that can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def open_session(path: Path, threads: int) -> Any:
    """Open an ONNX file on the CPU.

    Args:
        path: the file.
        threads: that it may use.

    Returns:
        An `onnxruntime.InferenceSession`; `Any` because ONNX Runtime has no types.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Faces are searched in another thread meanwhile: threads that wait must not take its core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; what it warns of is how it optimises
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

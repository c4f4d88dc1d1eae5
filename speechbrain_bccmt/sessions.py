"""ONNX files, opened with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path


def load_session(path: str | Path, threads: int = 0):
    """Open an ONNX file. Several threads may run the session at once.

    Parameters
    ----------
    path : str or Path
        The file.
    threads : int
        Threads of one operation; 0 leaves the choice to ONNX Runtime.

    Returns
    -------
    onnxruntime.InferenceSession
        The session.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If ONNX Runtime cannot read it.
    ImportError
        If ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path} needs ONNX Runtime: pip install onnxruntime") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"no ONNX file at {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class for errors from its C++ side
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a usable ONNX file: {reason}") from error

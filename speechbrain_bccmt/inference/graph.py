"""A model run by the ONNX graph that it ships: without PyTorch, and several times faster on a CPU thread."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechbrain_bccmt.audio.recording import check_rate
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.waveforms import split_batch, to_float
from speechbrain_bccmt.inference.model_files import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    GRAPH_FILE,
    PHRASE_FILE,
    find_file,
)
from speechbrain_bccmt.inference.verifier import Verifier
from speechbrain_bccmt.models import DEFAULT
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration
from speechbrain_bccmt.sessions import load_session


class GraphVerifier(Verifier):
    """A model run by ONNX Runtime: embeds recordings and verifies speakers. Load it with `GraphVerifier.load`.

    Any number of threads may use one at once.

    Parameters
    ----------
    path : str or Path
        A graph from `bccmt export onnx --graph waveform`.
    calibration : Calibration, QualityFusion or None
        Turns scores into probabilities, and has the threshold.
    source : str
        Where the model came from, for messages.
    vad : bool
        Embed only the speech of files; False: whole files, as for trial lists.
    threads : int or None
        Threads per operation; None: the value of OMP_NUM_THREADS, or one.

    Raises
    ------
    OSError, ImportError
        If the file cannot be read, or ONNX Runtime is not installed.
    ValueError
        If it is damaged, or is not a waveform graph of this package.

    Examples
    --------
    >>> model = GraphVerifier.load("tiny")
    >>> model.embed(np.random.default_rng(0).normal(0, 0.1, (2, 16000))).shape, round(model.threshold, 2)
    ((2, 192), 0.45)
    """

    engine = "onnx"

    def __init__(
        self,
        path: str | Path,
        calibration: Calibration | QualityFusion | None = None,
        source: str = "",
        vad: bool = True,
        threads: int | None = None,
    ):
        if threads is None:  # OpenMP also takes a list, for nested loops
            threads = int((re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", "")) or "1")[0])
        self._session = load_session(path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            if metadata["graph"] != "waveform":
                raise ValueError(f"it is a graph of {metadata['graph']}")
            self._fingerprint = metadata["fingerprint"]
            self.sample_rate = check_rate(float(metadata["sample_rate"]), "its sample rate")
            self.min_seconds = float(metadata["min_seconds"])
        except (KeyError, ValueError) as error:
            reason = f"it does not say its {error.args[0]}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path} is no graph from waveform to embedding of this package ({reason}): "
                "write it again by `bccmt export hub`"
            ) from error
        self.calibration, self.source, self.vad = calibration, str(source), vad

    @classmethod
    def load(
        cls, source: str | Path = DEFAULT, vad: bool = True, threads: int | None = None
    ) -> GraphVerifier:
        """Load a model that ships a graph.

        Parameters
        ----------
        source : str or Path
            Name of a shipped model, by default the one for most uses; a published folder; or a HuggingFace hub id.
        vad, threads
            See `GraphVerifier`.

        Returns
        -------
        GraphVerifier
            The model.

        Raises
        ------
        OSError, ImportError
            If a file cannot be read, or ONNX Runtime is not installed.
        ValueError
            If a file is damaged, or the graph is not of the folder's model.
        """
        path, config = find_file(source, GRAPH_FILE), find_file(source, CONFIG_FILE)
        try:
            described = json.loads(config.read_text(encoding="utf-8"))
            expected = described.get("sha256", {}).get(GRAPH_FILE)
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{config} is no valid JSON of a model: {error}") from error
        if expected not in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
            raise ValueError(
                f"{path} is damaged, or not the file that {config} describes: get the model again"
            )
        calibration = find_file(source, CALIBRATION_FILE, needed=False)
        model = cls(path, calibration and load_calibration(calibration), str(source), vad, threads)
        if phrases := find_file(source, PHRASE_FILE, needed=False):
            model.phrase_fusion = PhraseFusion.load(phrases)
        if described.get("fingerprint") != model.fingerprint:
            raise ValueError(
                f"{path} is the graph of another model than {config} describes: publish both by `bccmt export hub`"
            )
        return model

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that the graph was exported from, so PyTorch's embeddings are comparable."""
        return self._fingerprint

    def embed_waveform(self, wav: np.ndarray) -> np.ndarray:
        """Embed a waveform (samples,), float32, at the model's sample rate: (D,), float32."""
        return self._session.run(["embedding"], {"waveform": wav[None]})[0][0]

    def embed(self, wavs_or_path, sample_rate: int | None = None, vad: bool | None = None) -> np.ndarray:
        """Embed recordings or waveforms.

        Parameters
        ----------
        wavs_or_path : str, Path, sequence of these, or array_like
            One file or several; or waveforms (samples,), (batch, samples) or (batch, samples, channels), floating
            point or integers as files hold them.
        sample_rate : int or None
            Sample rate of the waveforms in Hz; None: the model's.
        vad : bool or None
            For files, see `embed_file`.

        Returns
        -------
        numpy.ndarray
            (D,) for one file or waveform, else (N, D), float32.

        Raises
        ------
        OSError, ValueError
            If audio cannot be read or is too short; the message names the file.
        """
        if isinstance(wavs_or_path, str | os.PathLike):
            return self.embed_file(wavs_or_path, vad).embedding
        if isinstance(wavs_or_path, Sequence) and all(
            isinstance(path, str | os.PathLike) for path in wavs_or_path
        ):
            if not wavs_or_path:
                raise ValueError("there are no files to embed")
            return np.stack([self.embed_file(path, vad).embedding for path in wavs_or_path])
        rate = self.sample_rate if sample_rate is None else check_rate(sample_rate, "sample_rate")
        wavs = to_float(wavs_or_path)
        utterances = split_batch(wavs, None, rate, self.min_seconds)
        found = np.stack([self.embed_waveform(resample(wav, rate, self.sample_rate)) for wav in utterances])
        return found[0] if wavs.ndim == 1 else found

"""The network of silero-vad (https://github.com/snakers4/silero-vad), and the stretches of speech it finds.

The package silero-vad ships the network as an ONNX file; its own Python code needs PyTorch, this module does not.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from speechbrain_bccmt.sessions import load_session

# In Hz; of its rates, the network handles this one best.
RATE = 16000
# Samples of a frame, and of the previous one that are fed in with it.
FRAME, _CONTEXT = 512, 64
# Frames per call: 16 s.
_FRAMES = 512
# Speech begins at or above the first probability, and may end below the second.
BEGINS, ENDS = 0.5, 0.35
MODEL_FILE = "silero_vad_16k_sequence.onnx"


def model_file() -> Path:
    """Find the network: beside this module, as in the runtime's wheel, or in the package silero-vad.

    Raises
    ------
    ImportError
        If it is in neither.
    """
    beside = Path(__file__).with_name(MODEL_FILE)
    if beside.is_file():
        return beside
    package = importlib.util.find_spec("silero_vad")  # not imported, as that would import PyTorch
    if package is None:
        raise ImportError(
            "voice activity detection needs the package silero-vad: pip install 'silero-vad>=6.2.3'"
        )
    return Path(package.submodule_search_locations[0]) / "data" / MODEL_FILE


@lru_cache(maxsize=1)
def _session():
    return load_session(model_file(), threads=1)


def speech_probabilities(wav: np.ndarray) -> np.ndarray:
    """Compute the probability of speech in each frame of a waveform.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,), float32, at 16 kHz.

    Returns
    -------
    numpy.ndarray
        (frames,), one per 512 samples, the last padded.

    Examples
    --------
    >>> speech_probabilities(np.zeros(1000, np.float32)).round(1).tolist()
    [0.0, 0.0]
    """
    return SpeechDetector().feed(np.pad(wav, (0, -len(wav) % FRAME)))


class SpeechDetector:
    """The network run over a waveform that arrives in parts, at 16 kHz.

    Examples
    --------
    >>> detector, wav = SpeechDetector(), np.random.default_rng(0).random(4096, np.float32)
    >>> parts = [detector.feed(wav[:700]), detector.feed(wav[700:])]
    >>> np.allclose(np.concatenate(parts), speech_probabilities(wav), atol=1e-5)
    True
    """

    def __init__(self):
        self._held = np.zeros(_CONTEXT, np.float32)  # the end of the last frame, and an unfinished one
        self._state, self._cell = np.zeros((2, 1, 1, 128), np.float32)

    def feed(self, wav: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each frame that `wav` (samples,), float32, completes, (frames,)."""
        self._held = np.concatenate([self._held, wav])
        n_frames, found = (len(self._held) - _CONTEXT) // FRAME, []
        for start in range(0, n_frames, _FRAMES):
            frames = np.lib.stride_tricks.sliding_window_view(self._held, _CONTEXT + FRAME)[::FRAME]
            values, self._state, self._cell = _session().run(
                ["speech_probs", "hn", "cn"],
                {
                    "input": np.ascontiguousarray(frames[start : min(start + _FRAMES, n_frames)]),
                    "h": self._state,
                    "c": self._cell,
                },
            )
            found.append(values.reshape(-1))
        self._held = self._held[n_frames * FRAME :].copy()
        return np.concatenate(found) if found else np.zeros(0, np.float32)


def speech_stretches(
    probabilities, n_samples: int, shortest: int, pause: int, padding: int
) -> list[tuple[int, int]]:
    """Find the stretches of speech, as `silero_vad.get_speech_timestamps` does.

    Parameters
    ----------
    probabilities : array_like
        Probability of speech in each frame, (frames,).
    n_samples : int
        Length of the recording.
    shortest : int
        Stretches of no more samples than this are dropped.
    pause : int
        Samples without speech that end a stretch.
    padding : int
        Samples kept before and after; stretches too close for that meet in the middle.

    Returns
    -------
    list of (int, int)
        First sample of each stretch, and the one after its last.

    Examples
    --------
    >>> speech_stretches([0.1, 0.9, 0.4, 0.9, 0.1, 0.1], 3000, shortest=0, pause=512, padding=0)
    [(512, 2048)]
    >>> speech_stretches([0.1, 0.9, 0.1, 0.1, 0.9, 0.9], 3000, shortest=0, pause=512, padding=100)
    [(412, 1124), (1948, 3000)]
    """
    found, begin, quiet = [], None, None
    for frame, probability in enumerate(np.asarray(probabilities).tolist()):
        if probability >= BEGINS:
            begin, quiet = frame if begin is None else begin, None
        elif begin is not None and probability < ENDS:
            quiet = frame if quiet is None else quiet
            if (frame - quiet) * FRAME >= pause:
                found.append([begin * FRAME, quiet * FRAME])
                begin = quiet = None
    if begin is not None:
        found.append([begin * FRAME, n_samples])
    found = [stretch for stretch in found if stretch[1] - stretch[0] > shortest]
    if found:
        found[0][0], found[-1][1] = max(0, found[0][0] - padding), min(n_samples, found[-1][1] + padding)
    for before, after in zip(found[:-1], found[1:], strict=True):
        widened = min(padding, (after[0] - before[1]) // 2)
        before[1], after[0] = before[1] + widened, after[0] - widened
    return [(start, stop) for start, stop in found]

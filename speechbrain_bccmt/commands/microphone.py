"""Chunks of samples in real time, from a microphone or from a recording played as if it came from one."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import numpy as np

CHUNK_SECONDS = 0.1


class Microphone:
    """An audio input of the machine, through the package sounddevice.

    Parameters
    ----------
    device : str or None
        Name or number of the input; None: the default one.

    Raises
    ------
    ImportError
        If sounddevice is not installed.
    OSError
        If there is no usable input.
    """

    def __init__(self, device: str | None = None):
        try:
            import sounddevice
        except ImportError:
            raise ImportError(
                "listening to a microphone needs the package sounddevice: pip install 'speechbrain_bccmt[live]', or "
                "play a recording by --file"
            ) from None
        except OSError as error:  # from the underlying library
            raise OSError(f"no microphone can be used: {error}") from None
        self._module = sounddevice
        self._device = int(device) if device is not None and device.isdigit() else device
        try:
            found = sounddevice.query_devices(self._device, "input")
        except (ValueError, sounddevice.PortAudioError) as error:
            raise OSError(f"there is no microphone{f' {device}' if device else ''}: {error}") from None
        self.sample_rate = int(found["default_samplerate"])

    def chunks(self, seconds: float | None = None) -> Iterator[np.ndarray]:
        """Yield chunks (samples,), int16, for `seconds`; None: until the reader stops."""
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        size = round(CHUNK_SECONDS * self.sample_rate)
        left = None if seconds is None else round(seconds * self.sample_rate)
        try:
            with self._module.InputStream(
                samplerate=self.sample_rate,
                blocksize=size,
                device=self._device,
                channels=1,
                dtype="int16",
                callback=lambda data, frames, when, status: waiting.put(data[:, 0].copy()),
            ):
                while left is None or left > 0:
                    chunk = waiting.get()
                    yield chunk if left is None else chunk[:left]
                    left = None if left is None else left - len(chunk)
        except self._module.PortAudioError as error:
            raise OSError(f"the microphone cannot be used: {error}") from None


class Playback:
    """A recording whose chunks arrive in real time, or with `fast` at once."""

    def __init__(self, path: str, fast: bool = False):
        from speechbrain_bccmt.audio.recording import Recording

        self._recording, self._fast = Recording.open(path), fast
        self.sample_rate = self._recording.sample_rate

    def chunks(self, seconds: float | None = None) -> Iterator[np.ndarray]:
        """Yield chunks (samples,), float32; see `Microphone.chunks`."""
        began, given = time.monotonic(), 0
        size = max(1, round(CHUNK_SECONDS * self.sample_rate))
        for part in self._recording.chunks(self.sample_rate):
            for start in range(0, len(part.wav), size):
                chunk = part.wav[start : start + size]
                given += len(chunk)
                if not self._fast:
                    time.sleep(max(0.0, began + given / self.sample_rate - time.monotonic()))
                yield chunk
                if seconds is not None and given >= seconds * self.sample_rate:
                    return

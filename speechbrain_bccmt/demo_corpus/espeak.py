"""Formant synthesis of speech with espeak-ng, using the library in the ``espeakng-loader`` package.

Only what the demo corpus needs: a voice given as the text of an espeak-ng voice file (language, pitch range,
formants and voice quality), and sentences synthesised to samples. The library keeps state between sentences
(phases, flutter, random noise) that nothing resets: the same sentence sounds a little different the second
time. To reproduce the same samples, synthesise them in a new process, in the same order.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

SAMPLE_RATE = 22050
INSTALL_HINT = 'the demo corpus needs espeak-ng: pip install "speechbrain_bccmt[demo]"'

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def data_folder() -> Path:
    """Return the folder of espeak-ng's voices and dictionaries.

    Returns
    -------
    Path
        The folder ``espeak-ng-data`` of the installed ``espeakng-loader``.

    Raises
    ------
    ModuleNotFoundError
        If ``espeakng-loader`` is not installed; the message says how to install it.
    """
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(INSTALL_HINT, name="espeakng_loader") from error
    return Path(espeakng_loader.get_data_path())


def synthesize(text: str, voice: str, words_per_minute: int = 175) -> np.ndarray:
    """Synthesise a text with a voice.

    Parameters
    ----------
    text : str
        Text to say.
    voice : str
        Text of an espeak-ng voice file, with its ``language`` line.
    words_per_minute : int
        Speaking rate, 80 to 450.

    Returns
    -------
    np.ndarray
        Samples (samples,), float32 in [-1, 1), at 22,050 Hz.

    Raises
    ------
    ModuleNotFoundError
        If ``espeakng-loader`` is not installed.
    ValueError
        If espeak-ng refuses the voice or produces no sound.

    Examples
    --------
    >>> samples = synthesize("one two three", "language en-us\\npitch 90 130\\n")
    >>> samples.dtype, 0.5 < len(samples) / SAMPLE_RATE < 2
    (dtype('float32'), True)
    """
    library = _library()
    _set_voice(library, voice)
    library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
    chunks: list[np.ndarray] = []

    @_CALLBACK
    def keep(samples, count, events):
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(keep)
    encoded = text.encode("utf-8")
    library.espeak_Synth(encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
    if not chunks:
        raise ValueError(f"espeak-ng says nothing for the text {text!r}")
    return np.concatenate(chunks).astype(np.float32) / 32768


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    """Set the current voice from the text of a voice file."""
    # espeak-ng keeps a voice's path in 60 bytes and reads "+" in it as a variant, so pass a bare name.
    earlier_folder = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "voice").write_text(voice, encoding="utf-8")
        os.chdir(folder)
        try:
            status = library.espeak_SetVoiceByFile(b"voice")
        finally:
            os.chdir(earlier_folder)
    if status != 0:
        raise ValueError(f"espeak-ng refuses this voice (status {status}):\n{voice}")


@cache
def _library() -> ctypes.CDLL:
    """Load and initialise the library, once per process."""
    folder = data_folder()
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(folder), _INITIALIZE_DONT_EXIT)
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"espeak-ng does not start from {folder} (status {rate}): its data may be incomplete"
        )
    return library

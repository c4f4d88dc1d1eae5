"""One embedding per utterance of a CSV, exactly as if the utterance were embedded alone."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_bccmt.audio import recording
from speechbrain_bccmt.audio.recording import Chunk, equal_parts, read_mono
from speechbrain_bccmt.audio.speech import keep_speech
from speechbrain_bccmt.features import frame_count, relative_lengths, sample_rate
from speechbrain_bccmt.inference.chunk_mean import embed_chunks
from speechbrain_bccmt.inference.embedding_store import (
    EmbeddingStore,
    ShardWriter,
    batches_by_length,
    utterance_key,
)
from speechbrain_bccmt.inference.fingerprint import fingerprint

logger = get_logger(__name__)

# Decoding runs in threads beside the network (soundfile releases Python's lock), this many batches ahead.
BATCHES_AHEAD = 2


def embed_utterances(
    rows: list[dict],
    compute_features: torch.nn.Module,
    mean_var_norm: torch.nn.Module,
    embedding_model: torch.nn.Module,
    device: str | torch.device = "cpu",
    batch_seconds: float = 80.0,
    progress: bool = True,
    on_batch: Callable[[list[int], np.ndarray], None] | None = None,
    vad: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Embed utterances, each once, as a whole or, above 30 s (`audio.MAX_CHUNK_SECONDS`), in chunks.

    They are batched by similar length, and padding affects no embedding: valid frames are counted exactly. Files of
    another sample rate are resampled, and several channels are averaged.

    Parameters
    ----------
    rows : list of dict
        Rows of a CSV of utterances: `ID`, `wav` and `duration` in seconds, optionally `start` and `stop` in
        samples of the file.
    compute_features : torch.nn.Module
        `KaldiFbank` or SpeechBrain's `Fbank`.
    mean_var_norm : torch.nn.Module
        SpeechBrain's `InputNormalization`, called with features and relative lengths.
    embedding_model : torch.nn.Module
        Encoder: features (batch, frames, mels) and relative lengths (batch,) to embeddings (batch, 1, D). It
        runs in evaluation mode and is left in the mode it was in.
    device : str or torch.device
        Where the three modules are.
    batch_seconds : float
        Audio in a batch, padding included; a longer utterance is a batch of its own.
    progress : bool
        Show a progress bar.
    on_batch : callable or None
        Called after each batch with the positions of its rows and their embeddings, to store them.
    vad : bool
        Embed only the speech, as `SpeakerVerification.embed_file` does; False: whole utterances, as for trial lists.

    Returns
    -------
    ids : list of str
        The utterances' ids in the order of `rows`.
    embeddings : numpy.ndarray
        (N, D), float32, finite.

    Raises
    ------
    FileNotFoundError
        If an audio file does not exist.
    ValueError
        If there are no rows, an id occurs twice, an audio file cannot be decoded or is too short for a
        frame, or an embedding is NaN or infinite; the message names the utterance.

    Examples
    --------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.processing.features import InputNormalization
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.random.randn(16000) / 10, 16000)
    >>> rows = [{"ID": "a", "wav": str(folder / "a.wav"), "duration": "1.0"}]
    >>> class Spread(torch.nn.Module):
    ...     def forward(self, feats, lengths=None):
    ...         return feats.std(dim=1, keepdim=True)
    >>> norm = InputNormalization(norm_type="sentence", std_norm=False)
    >>> ids, embeddings = embed_utterances(rows, Fbank(n_mels=80), norm, Spread(), progress=False)
    >>> ids, embeddings.shape
    (['a'], (1, 80))
    """
    ids = [row["ID"] for row in rows]
    if not ids:
        raise ValueError("there are no utterances to embed")
    if len(set(ids)) < len(ids):
        repeated = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"utterance '{repeated}' occurs more than once")
    modules = [compute_features, mean_var_norm, embedding_model]
    was_training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        embeddings = None
        batches = batches_by_length(rows, batch_seconds)
        with tqdm(total=len(rows), desc="Embedding", unit="utt", disable=not progress) as bar:
            for batch, wavs in _read_ahead(rows, batches, compute_features, vad):
                vectors = _embed_batch(wavs, modules, device)
                _check_finite(vectors, [ids[index] for index in batch])
                if embeddings is None:
                    embeddings = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
                embeddings[batch] = vectors
                if on_batch is not None:
                    on_batch(batch, vectors)
                bar.update(len(batch))
    finally:
        for module, training in zip(modules, was_training, strict=True):
            module.train(training)
    return ids, embeddings


def embed_with_store(
    rows: list[dict],
    compute_features: torch.nn.Module,
    mean_var_norm: torch.nn.Module,
    embedding_model: torch.nn.Module,
    folder: str | Path,
    device: str | torch.device = "cpu",
    batch_seconds: float = 80.0,
    progress: bool = True,
    vad: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Embed utterances as `embed_utterances` does, but only those that are not yet stored; store them.

    Results are written to disk once a minute and when the run ends, for whatever reason; a killed run resumes where
    it stopped.

    Parameters
    ----------
    rows, compute_features, mean_var_norm, embedding_model, device, batch_seconds, progress, vad
        As for `embed_utterances`.
    folder : str or Path
        Folder of the store, see `EmbeddingStore`.

    Returns
    -------
    ids : list of str
        The utterances' ids in the order of `rows`.
    embeddings : numpy.ndarray
        (N, D), float32, finite.

    Raises
    ------
    OSError
        If an audio file does not exist, or the store cannot be written.
    ValueError
        As for `embed_utterances`.
    """
    ids = [row["ID"] for row in rows]
    modules = {
        "compute_features": compute_features,
        "mean_var_norm": mean_var_norm,
        "embedding_model": embedding_model,
    }
    # Embeddings of speech alone differ from those of whole utterances.
    store = EmbeddingStore(folder, fingerprint(modules) + ("-speech" if vad else ""))
    keys = [utterance_key(row) for row in rows]  # before the audio is read: it may change meanwhile
    missing = [index for index, key in enumerate(keys) if key not in store]
    logger.info(f"{len(rows) - len(missing)} of {len(rows)} embeddings are in {store.folder}")
    if len(set(ids)) < len(ids) or not rows:
        missing = list(range(len(rows)))  # refused there, with the same message
    if missing:
        shard = ShardWriter(store, [ids[index] for index in missing], [keys[index] for index in missing])
        try:
            embed_utterances(
                [rows[index] for index in missing],
                **modules,
                device=device,
                batch_seconds=batch_seconds,
                progress=progress,
                on_batch=shard.take,
                vad=vad,
            )
        finally:
            shard.write()
    return ids, store.read(keys)


def read_utterance(row: dict, rate: int, vad: bool = False) -> torch.Tensor:
    """Read the audio of one row of a CSV of utterances; with `vad`, only its speech, if it has any.

    Parameters
    ----------
    row : dict
        `ID` and `wav`, optionally `start` and `stop` in samples of the file.
    rate : int
        The sample rate wanted in Hz; a file of another rate is resampled.
    vad : bool
        Keep only its speech, joined; see `keep_speech`.

    Returns
    -------
    torch.Tensor
        (samples,), float32, mono.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it cannot be decoded, holds no samples, or holds NaN or infinite ones.
    """
    start = int(row.get("start") or 0)
    stop = int(row["stop"]) if row.get("stop") else None
    try:
        wav = read_mono(row["wav"], rate, start, stop)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"utterance '{row['ID']}': there is no file {row['wav']}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"utterance '{row['ID']}': {error}") from error
    if vad:
        chunks = keep_speech((Chunk.from_waveform(part, rate) for part in equal_parts(wav, rate)), rate)
        wav = np.concatenate([chunk.wav for chunk in chunks])
    return torch.from_numpy(wav)


def _read_ahead(rows: list[dict], batches: list[list[int]], front_end: torch.nn.Module, vad: bool):
    rate = sample_rate(front_end)

    def read(row: dict) -> torch.Tensor:
        wav = read_utterance(row, rate, vad)
        if frame_count(front_end, len(wav)) == 0:
            raise ValueError(
                f"utterance '{row['ID']}': {row['wav']} has {len(wav)} samples at {rate} Hz, "
                "too short for one frame"
            )
        return wav

    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        pending: deque = deque()
        for batch in batches:
            pending.append((batch, [pool.submit(read, rows[index]) for index in batch]))
            if len(pending) > BATCHES_AHEAD:
                done, futures = pending.popleft()
                yield done, [future.result() for future in futures]
        for done, futures in pending:
            yield done, [future.result() for future in futures]
    finally:
        # After an error or an interruption nobody waits for the files still queued.
        pool.shutdown(wait=True, cancel_futures=True)


def embed_waveforms(
    wavs: list[torch.Tensor],
    compute_features: torch.nn.Module,
    mean_var_norm: torch.nn.Module,
    embedding_model: torch.nn.Module,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Embed waveforms as one padded batch; padding affects no embedding.

    If one is longer than 30 s (`audio.MAX_CHUNK_SECONDS`), they are embedded one by one, by `embed_chunks`.

    Parameters
    ----------
    wavs : list of torch.Tensor
        (samples,) each, float32, at the front end's sample rate, at least one frame long.
    compute_features, mean_var_norm, embedding_model : torch.nn.Module
        As in `embed_utterances`; run in their current mode.
    device : str or torch.device
        Where the three modules are.

    Returns
    -------
    torch.Tensor
        (batch, D), float32, on `device`.
    """
    modules = compute_features, mean_var_norm, embedding_model
    rate = sample_rate(compute_features)
    if all(len(wav) <= recording.MAX_CHUNK_SECONDS * rate for wav in wavs):
        return _embed_padded(wavs, *modules, device)

    def embed(wav: np.ndarray) -> torch.Tensor:
        return _embed_padded([torch.from_numpy(wav)], *modules, device)[0]

    parts = (equal_parts(wav.detach().cpu().numpy(), rate) for wav in wavs)
    chunks = ((Chunk.from_waveform(part, rate) for part in row) for row in parts)
    return torch.stack([embed_chunks(row, embed, rate)[0] for row in chunks])


def _embed_padded(wavs, compute_features, mean_var_norm, embedding_model, device) -> torch.Tensor:
    lengths = relative_lengths(compute_features, torch.tensor([len(wav) for wav in wavs])).to(device)
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True).to(device)
    feats = mean_var_norm(compute_features(padded), lengths)
    return embedding_model(feats, lengths).squeeze(1).float()


def _embed_batch(wavs: list[torch.Tensor], modules: list[torch.nn.Module], device) -> np.ndarray:
    # Not inference_mode: what a module caches here must be usable in training as well.
    with torch.no_grad():
        return embed_waveforms(wavs, *modules, device).cpu().numpy()


def _check_finite(vectors: np.ndarray, ids: list[str]) -> None:
    wrong = [name for name, vector in zip(ids, vectors, strict=True) if not np.isfinite(vector).all()]
    if wrong:
        raise ValueError(
            f"the embeddings of {len(wrong)} utterances are NaN or infinite, first '{wrong[0]}': check that "
            "its audio and the model's parameters are finite"
        )

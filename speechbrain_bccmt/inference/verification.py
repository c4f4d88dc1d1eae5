"""The pretrained interface: load a model in one line, embed recordings, and verify speakers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_bccmt.audio.levels import audible_seconds
from speechbrain_bccmt.audio.recording import check_rate, read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.waveforms import split_batch, to_float
from speechbrain_bccmt.features import sample_rate
from speechbrain_bccmt.inference.embedding import embed_waveforms
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.inference.results import Verification
from speechbrain_bccmt.inference.verifier import MIN_SECONDS, Verifier
from speechbrain_bccmt.models import DEFAULT
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion


class SpeakerVerification(Verifier, SpeakerRecognition):
    """A trained model with its threshold. Load it with `SpeakerVerification.from_hparams`.

    Recordings may have any sample rate and number of channels, and any length from `min_seconds` on. All of
    SpeechBrain's `SpeakerRecognition` works as well; unlike there, padding changes no embedding, and the default
    threshold is the one shipped with the model. Only the speech of files is embedded (voice activity detection);
    waveforms in memory are embedded as they are.

    Parameters
    ----------
    modules, hparams, run_opts, freeze_params
        See `speechbrain.inference.interfaces.Pretrained`. `hparams` may have `min_seconds`.
    calibration : Calibration, QualityFusion or None
        Turns scores into probabilities, and has the threshold.
    source : str
        Where the model came from, for messages.
    vad : bool
        Embed only the speech of files; False: whole files, as for trial lists.

    Examples
    --------
    >>> from speechbrain.processing.features import InputNormalization
    >>> from speechbrain_bccmt import bccmt_tiny
    >>> from speechbrain_bccmt.features import KaldiFbank
    >>> modules = {
    ...     "compute_features": KaldiFbank(),
    ...     "mean_var_norm": InputNormalization(norm_type="sentence", std_norm=False),
    ...     "embedding_model": bccmt_tiny(),
    ... }
    >>> verification = SpeakerVerification(modules=modules, hparams={}, run_opts={"device": "cpu"})
    >>> verification.embed(torch.randn(2, 16000)).shape
    torch.Size([2, 192])
    >>> score, decision = verification.verify_batch(torch.randn(2, 8000), torch.randn(2, 8000), threshold=0.5)
    """

    MODULES_NEEDED = ["compute_features", "mean_var_norm", "embedding_model"]
    engine, in_batches = "torch", True

    def __init__(
        self,
        *args,
        calibration: Calibration | QualityFusion | None = None,
        phrase_fusion: PhraseFusion | None = None,
        source: str = "",
        vad: bool = True,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.vad = vad
        self.calibration, self.phrase_fusion = calibration, phrase_fusion
        self.source = str(source)
        self.min_seconds = float(getattr(self.hparams, "min_seconds", MIN_SECONDS))
        self.audio_normalizer.sample_rate = check_rate(
            self.sample_rate, f"the sample rate of {source or 'the model'}"
        )

    @classmethod
    def from_hparams(
        cls,
        source=DEFAULT,
        hparams_file="hyperparams.yaml",
        overrides=None,
        overrides_must_match=True,
        savedir=None,
        trust_code=None,
        **options,
    ):
        """Load a model; see `load_speaker_model`.

        Parameters
        ----------
        source : str or Path
            Name of a shipped model, by default the one for most uses; a published folder, the output folder of a
            training, or a HuggingFace hub id (owner/model).
        hparams_file, overrides, trust_code
            See `load_speaker_model`.
        overrides_must_match, savedir
            Accepted as in SpeechBrain's interfaces, without effect: files are read where they are.
        **options
            Further arguments of the class, such as `run_opts={"device": "cuda"}`, `vad=False` or `freeze_params`.

        Returns
        -------
        SpeakerVerification
            The model.

        Raises
        ------
        OSError, ValueError
            As for `load_speaker_model`.
        """
        model = load_speaker_model(source, trust_code, hparams_file, overrides)
        plain = {
            key: value for key, value in model.architecture.items() if not isinstance(value, dict | list)
        }
        hparams = {**plain, **model.others, "label_encoder": model.label_encoder}
        return cls(
            modules=model.modules | model.others,
            hparams=hparams,
            calibration=model.calibration,
            phrase_fusion=model.phrase_fusion,
            source=source,
            **options,
        )

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz that the model works at; other audio is resampled."""
        return sample_rate(self.mods.compute_features)

    @property
    def fingerprint(self) -> str:
        """Fingerprint that only embeddings of this model share; computed anew each time."""
        return fingerprint(self)

    @property
    def embedding_size(self) -> int:
        """Size of the embedding."""
        return self.encode_batch(torch.zeros(1, self.sample_rate)).shape[-1]

    def encode_batch(self, wavs, wav_lens=None, normalize=False):
        """Embed a batch of waveforms at the model's sample rate; padding changes no embedding.

        Parameters
        ----------
        wavs : torch.Tensor
            (batch, samples), (batch, samples, channels) or (samples,).
        wav_lens : torch.Tensor or None
            Relative lengths, (batch,), in (0, 1]; None: all have full length.
        normalize : bool
            Apply `hparams.mean_var_norm_emb`, if the model has one.

        Returns
        -------
        torch.Tensor
            (batch, 1, D).

        Raises
        ------
        ValueError
            If an utterance is shorter than `min_seconds`, or a sample or length is NaN, infinite or out of range.
        """
        embeddings = embed_waveforms(
            self._utterances(wavs, wav_lens), **self._parts(), device=self.device
        ).unsqueeze(1)
        if normalize:
            ones = torch.ones(len(embeddings), device=self.device)
            embeddings = self.hparams.mean_var_norm_emb(embeddings, ones)
        return embeddings

    def embed(
        self, wavs_or_path, wav_lens=None, sample_rate: int | None = None, vad: bool | None = None
    ) -> torch.Tensor:
        """Embed recordings or waveforms.

        Parameters
        ----------
        wavs_or_path : str, Path, sequence of these, torch.Tensor or numpy.ndarray
            One file or several; or waveforms (samples,), (batch, samples) or (batch, samples, channels), floating
            point or integers as files hold them.
        wav_lens : torch.Tensor or None
            Relative lengths of the waveforms.
        sample_rate : int or None
            Sample rate of the waveforms in Hz; None: the model's.
        vad : bool or None
            For files, see `embed_file`.

        Returns
        -------
        torch.Tensor
            (D,) for one file or waveform, else (N, D).

        Raises
        ------
        OSError, ValueError
            If audio cannot be read or is too short; the message names the file.
        """
        if isinstance(wavs_or_path, str | os.PathLike):
            return torch.from_numpy(self.embed_file(wavs_or_path, vad).embedding)
        if isinstance(wavs_or_path, Sequence) and all(
            isinstance(path, str | os.PathLike) for path in wavs_or_path
        ):
            if not wavs_or_path:
                raise ValueError("there are no files to embed")
            return torch.from_numpy(np.stack([self.embed_file(path, vad).embedding for path in wavs_or_path]))
        wavs = to_float(wavs_or_path)
        rate = self.sample_rate if sample_rate is None else check_rate(sample_rate, "sample_rate")
        utterances = self._utterances(wavs, wav_lens, rate)
        with torch.no_grad():
            embeddings = embed_waveforms(utterances, **self._parts(), device=self.device)
        return embeddings[0] if wavs.ndim == 1 else embeddings

    def embed_waveform(self, wav: np.ndarray) -> np.ndarray:
        """Embed a waveform (samples,), float32, at the model's sample rate, all at once: (D,), float32."""
        return self.embed_waveforms([wav])[0]

    def embed_waveforms(self, wavs: Sequence[np.ndarray]) -> np.ndarray:
        """Embed waveforms, (samples,) each, in one padded batch, as `embed_waveform` does: (N, D)."""
        with torch.no_grad():
            tensors = [torch.from_numpy(wav) for wav in wavs]
            return embed_waveforms(tensors, **self._parts(), device=self.device).cpu().numpy()

    def verify_batch(self, wavs1, wavs2, wav1_lens=None, wav2_lens=None, threshold: float | None = None):
        """Verify pairs of waveforms at the model's sample rate.

        Parameters
        ----------
        wavs1, wavs2 : torch.Tensor
            (batch, samples) each; see `encode_batch`.
        wav1_lens, wav2_lens : torch.Tensor or None
            Relative lengths, (batch,).
        threshold : float or None
            The score from which the decision is True; None: the one shipped with the model.

        Returns
        -------
        Verification
            Tensors (batch, 1), as SpeechBrain's; `score, decision = model.verify_batch(a, b)` works.

        Raises
        ------
        ValueError
            As for `encode_batch`, or if there is no threshold.
        """
        given, threshold = threshold, self.resolve_threshold(threshold)
        if len(wavs1) != len(wavs2):
            raise ValueError(f"{len(wavs1)} waveforms on one side and {len(wavs2)} on the other are no pairs")
        score = self.similarity(self.encode_batch(wavs1, wav1_lens), self.encode_batch(wavs2, wav2_lens))
        seconds = zip(self._audible(wavs1, wav1_lens), self._audible(wavs2, wav2_lens), strict=True)
        probability, llr = (torch.full_like(score, math.nan) for _ in range(2))
        thresholds, heard = torch.full_like(score, threshold), torch.zeros_like(score, dtype=torch.bool)
        for row, sides in enumerate(seconds):
            heard[row] = min(sides) > 0
            if heard[row] and self.calibration is not None:
                calibration = self.calibration.at(*(side_quality([seconds]) for seconds in sides))
                value = score[row].cpu().numpy()
                probability[row] = torch.from_numpy(calibration.probability(value))
                llr[row] = torch.from_numpy(calibration.llr(value))
                thresholds[row] = calibration.threshold if given is None else threshold
        return Verification(score, (score >= thresholds) & heard, probability, llr, thresholds)

    def load_audio(self, path, savedir=None):
        """Read a local file, mono and at the model's sample rate: (samples,). `savedir` is not used."""
        return torch.from_numpy(read_mono(path, self.sample_rate)).to(self.device)

    def _parts(self) -> dict[str, torch.nn.Module]:
        return {name: self.mods[name] for name in self.MODULES_NEEDED}

    def _utterances(self, wavs, wav_lens=None, rate: int | None = None) -> list[torch.Tensor]:
        rate = self.sample_rate if rate is None else rate
        utterances = split_batch(wavs, wav_lens, rate, self.min_seconds)
        if isinstance(wavs, torch.Tensor) and wavs.dim() < 3 and rate == self.sample_rate:
            # The tensors themselves, on their device and with their gradients.
            rows = torch.atleast_2d(wavs.float())
            return [row[: len(wav)] for row, wav in zip(rows, utterances, strict=True)]
        return [torch.from_numpy(resample(wav, rate, self.sample_rate)) for wav in utterances]

    def _audible(self, wavs, wav_lens) -> list[float]:
        utterances = split_batch(wavs, wav_lens, self.sample_rate, self.min_seconds)
        return [audible_seconds(wav, self.sample_rate) for wav in utterances]

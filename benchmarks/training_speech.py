"""Training data of the shipped model, held on one device: speech, the teacher's embeddings of it, noises and rooms."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from batch_augmentation import RATE, BatchAugmentation
from card_speech import held_out_speakers, trial_set, used_in_training
from model_card import campplus_model
from recipe_runs import SPEECH
from tqdm import tqdm

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.trials.trial_list import speaker_of

# Share of draws per corpus; within a corpus, utterances are weighted by the square root of their length, up to 6 s.
SHARES = {
    "common_voice_mini": 0.22,
    "speechocean762": 0.20,
    "google_speech_commands": 0.20,
    "msc_malayalam": 0.10,
    "unlabelled": 0.09,  # unknown speakers: no speaker loss
    "librispeech_mini": 0.08,
    "arabic_speech_commands": 0.06,
    "an4": 0.05,
}
# Speed ratios, how often each is drawn, and its class among the speaker's: 5 % faster is still the same voice.
SPEEDS = ((1, 1), (9, 10), (11, 10), (19, 20), (21, 20), (41, 50), (6, 5))
SPEED_SHARES = (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
SPEED_CLASSES = (0, 1, 2, 0, 0, 3, 4)
# New voices: in each such copy of the speech, every speaker has a speed and formants of their own. Share of draws of
# all these copies, and the smallest and largest formant shift, up or down, as a logarithm.
NEW_VOICES_SHARE, FORMANT_SHIFT = 0.3, (0.05, 0.17)
QUEFRENCIES = 36  # of the spectral envelope: below the period of any voice at 16 kHz
TEACHER_SECONDS = 8
LONGEST = 16  # seconds kept of an utterance


def training_utterances(corpora: list[str]) -> list[tuple[str, str, str]]:
    """List corpus, speaker ("" if unknown) and path of the utterances that may be used for training."""
    kept = []
    for corpus in corpora:
        left_out = set(held_out_speakers().get(corpus, ()))
        if (SPEECH / corpus / "meta").is_dir() and corpus in ("speechocean762", "arabic_speech_commands"):
            left_out |= set(trial_set(corpus).speakers)
        for utterance, file in find_utterances([str(SPEECH / corpus)]).items():
            speaker = "" if corpus == "unlabelled" else speaker_of(utterance)
            if speaker not in left_out:
                kept.append((corpus, speaker, file.path))
    return kept


def shift_formants(wave: torch.Tensor, factor: float) -> torch.Tensor:
    """Scale the frequencies of the spectral envelope of a waveform (samples,) at 16 kHz, keeping the pitch."""
    size, hop = 512, 128
    if len(wave) < 2 * size:
        return wave
    window = torch.hann_window(size, device=wave.device)
    spectrum = torch.stft(wave, size, hop, window=window, return_complex=True)
    magnitude = spectrum.abs()
    floor = 1e-3 * magnitude.mean() + 1e-4
    cepstrum = torch.fft.irfft((magnitude + floor).log(), n=size, dim=0)
    cepstrum[QUEFRENCIES : size - QUEFRENCIES + 1] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    top = len(envelope) - 1
    position = (torch.arange(top + 1, device=wave.device) / factor).clamp(max=top)
    below = position.long().clamp(max=top - 1)
    share = (position - below)[:, None]
    moved = envelope[below] * (1 - share) + envelope[below + 1] * share
    gain = (moved - envelope).clamp(-4, 4).exp()
    shifted = torch.istft(spectrum * gain, size, hop, window=window, length=len(wave))
    return shifted * (32000 / shifted.abs().max().clamp(min=32000))


def draw_voices(utterances: list[tuple[str, str, str]], seed: int) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield the speed and formant factor of each utterance, drawn once per speaker."""
    random, drawn = np.random.default_rng(seed), {}
    for row, (corpus, speaker, _) in enumerate(utterances):
        key = (corpus, speaker) if speaker else row
        if key not in drawn:
            shift = random.uniform(*FORMANT_SHIFT) * random.choice([-1, 1])
            drawn[key] = SPEEDS[random.integers(len(SPEEDS))], math.exp(shift)
        yield drawn[key]


class Speech:
    """All training speech on a device, as 16-bit samples, with the teacher's embeddings.

    It holds one copy of the speech for each of the first `speeds` of SPEEDS, and `new_voices` more. The embeddings of
    each copy are kept in the folder `kept`, from which the next run reads them.
    """

    def __init__(
        self,
        utterances: list[tuple[str, str, str]],
        device: torch.device,
        kept: Path,
        speeds: int = len(SPEEDS),
        new_voices: int = 0,
    ):
        self.device, self.kept = device, kept
        voices = [[(speed, 1.0)] * len(utterances) for speed in SPEEDS[:speeds]]
        voices += [list(draw_voices(utterances, seed)) for seed in range(len(SPEEDS), len(SPEEDS) + new_voices)]
        self._set_shares(speeds, new_voices)
        self._copy(utterances, voices)
        self._number_speakers(utterances)
        self.targets = torch.stack([self._embed(copy, utterances, drawn) for copy, drawn in enumerate(voices)])
        self._weight_and_centre(utterances, speeds)

    def _set_shares(self, speeds: int, new_voices: int) -> None:
        """Set how often each copy is drawn, and its class among the speaker's."""
        shares = torch.tensor(SPEED_SHARES[:speeds])
        first_new = max(SPEED_CLASSES[:speeds]) + 1
        new_share = NEW_VOICES_SHARE if new_voices else 0.0
        new_shares = torch.full((new_voices,), new_share / max(1, new_voices))
        self.shares = torch.cat([(1 - new_share) * shares / shares.sum(), new_shares]).to(self.device)
        classes = [*SPEED_CLASSES[:speeds], *range(first_new, first_new + new_voices)]
        self.copy_classes, self.classes = torch.tensor(classes, device=self.device), first_new + new_voices

    def _copy(self, utterances: list[tuple[str, str, str]], voices: list) -> None:
        """Make the copies: their samples one after another, with starts and lengths (copies, utterances)."""
        waves, parts = list(_read_all([path for _, _, path in utterances])), []
        for drawn in tqdm(voices, "copies"):
            for wave, (speed, formants) in zip(waves, drawn, strict=True):
                part = wave.to(self.device).float()
                if speed != (1, 1):
                    part = torchaudio.functional.resample(part, *speed)
                if formants != 1:
                    part = shift_formants(part, formants)
                parts.append(part.round().clamp(-32768, 32767).to(torch.int16))
        lengths = torch.tensor([len(part) for part in parts], device=self.device)
        self.samples = torch.cat(parts)
        self.lengths = lengths.reshape(len(voices), -1)
        self.starts = (lengths.cumsum(0) - lengths).reshape(len(voices), -1)

    def _number_speakers(self, utterances: list[tuple[str, str, str]]) -> None:
        """Assign each speaker a number (-1: unknown), and sort utterances by speaker, to draw another by the same."""
        names = sorted({(corpus, speaker) for corpus, speaker, _ in utterances if speaker})
        number = {name: index for index, name in enumerate(names)}
        speakers = [number.get((corpus, speaker), -1) for corpus, speaker, _ in utterances]
        self.speakers, self.n_speakers = torch.tensor(speakers, device=self.device), len(names)
        self.by_speaker = torch.argsort(self.speakers, stable=True)
        self.counts = torch.bincount(self.speakers + 1, minlength=self.n_speakers + 1)
        self.first = self.counts.cumsum(0) - self.counts

    def _weight_and_centre(self, utterances: list[tuple[str, str, str]], speeds: int) -> None:
        """Set how often each utterance is drawn, and subtract the mean target of its corpus.

        What the recordings of a corpus have in common is not the voice, and the student should not learn it. The same
        goes for artefacts of making a new voice.
        """
        self.probabilities = torch.zeros(len(utterances), device=self.device)
        weights = (self.lengths[0] / RATE).clamp(max=6).sqrt()
        for corpus in {corpus for corpus, _, _ in utterances}:
            rows = torch.tensor([name == corpus for name, _, _ in utterances], device=self.device)
            self.probabilities[rows] = SHARES[corpus] * weights[rows] / weights[rows].sum()
            means = self.targets[:, rows].mean(1, keepdim=True)
            means[:speeds] = means[0].clone()
            self.targets[:, rows] -= means

    def draw(self, batch: int, samples: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw crops (batch, samples) in [-1, 1], with their utterances and copies.

        Short utterances are filled up with another one by the same speaker.
        """
        rows = torch.multinomial(self.probabilities, batch, replacement=True)
        copies = torch.multinomial(self.shares, batch, replacement=True)
        speakers = self.speakers[rows]
        place = (torch.rand(batch, device=self.device) * self.counts[speakers + 1]).long()
        others = torch.where(speakers >= 0, self.by_speaker[self.first[speakers + 1] + place], rows)
        lengths, other_lengths = self.lengths[copies, rows], self.lengths[copies, others]
        room = (lengths - samples).clamp(min=0)
        offsets = (torch.rand(batch, device=self.device) * room).long()
        position = torch.arange(samples, device=self.device)[None]
        beyond = position - lengths[:, None]
        places = torch.where(
            beyond < 0,
            (self.starts[copies, rows] + offsets)[:, None] + position,
            self.starts[copies, others][:, None] + beyond % other_lengths[:, None],
        )
        return self.samples[places].float() / 32768, rows, copies

    def _embed(self, copy: int, utterances: list[tuple[str, str, str]], voices: list) -> torch.Tensor:
        """Return the teacher's embeddings of a copy, (utterances, size), from an earlier run if it had the same."""
        digest = hashlib.sha256(repr((utterances, voices)).encode()).hexdigest()[:16]
        file = self.kept / f"{digest}.npy"
        if not file.is_file():
            found = self._teach(self.starts[copy], self.lengths[copy], f"teacher, copy {copy + 1}").cpu().numpy()
            with temporary_sibling(file) as unfinished:
                np.save(unfinished, found)
                os.replace(unfinished, file)
        return torch.from_numpy(np.load(file)).to(self.device)

    @torch.no_grad()  # not inference mode: the targets take part in training
    def _teach(self, starts: torch.Tensor, lengths: torch.Tensor, description: str) -> torch.Tensor:
        """Embed whole utterances, cut to a multiple of 0.2 s, with the teacher: (utterances, size)."""
        teacher, front_end = campplus_model().to(self.device), KaldiFbank(scale=32768).to(self.device)
        step = RATE // 5
        cut = lengths.clamp(max=TEACHER_SECONDS * RATE) // step * step
        cut = torch.where(cut < 2 * step, lengths, cut)
        found = torch.empty(len(lengths), 192, device=self.device)
        limit = (1500 if self.device.type == "cuda" else 30) * RATE
        with tqdm(total=len(lengths), desc=description, unit="utt") as progress:
            for samples in cut.unique().tolist():
                position = torch.arange(samples, device=self.device)
                for rows in (cut == samples).nonzero()[:, 0].split(max(1, limit // samples)):
                    waves = self.samples[starts[rows][:, None] + position].float() / 32768
                    features = front_end(waves)
                    found[rows] = teacher(features - features.mean(1, keepdim=True))
                    progress.update(len(rows))
        return found

    def class_centres(self) -> torch.Tensor:
        """Return the classifier's initial weights: the mean target of each speaker and class of copies."""
        targets = F.normalize(self.targets, dim=-1)
        known = self.speakers >= 0
        centres = torch.zeros(self.n_speakers * self.classes, targets.shape[-1], device=self.device)
        for copy, vectors in enumerate(targets):
            labels = self.speakers[known] * self.classes + self.copy_classes[copy]
            centres.index_add_(0, labels, vectors[known])
        return F.normalize(centres, dim=-1)


def _read_all(paths: list[str], longest: int = LONGEST):
    """Read the first seconds of recordings as 16-bit samples, in order."""

    def one(path):
        wave = torch.from_numpy(read_mono(path, RATE)[: longest * RATE])
        return (wave * 32768).round().clamp(-32768, 32767).to(torch.int16)

    with ThreadPoolExecutor() as pool:
        yield from tqdm(pool.map(one, paths), "reading", len(paths), unit="utt")


def load_augmentation(device: torch.device) -> BatchAugmentation:
    """Read the noises and room responses that may be used for training."""
    noises, rooms = (
        [path for path in find_recordings(SPEECH / name) if used_in_training(path)]
        for name in ("noise", "rir")
    )
    noise = torch.cat(list(_read_all(noises, longest=8))).to(device).float() / 32768
    responses = torch.zeros(len(rooms), RATE)
    for row, path in zip(responses, rooms, strict=True):
        response = torch.from_numpy(read_mono(path, RATE))
        response = response[max(0, int(response.abs().argmax()) - RATE // 200) :][:RATE]
        row[: len(response)] = response / response.norm()
    return BatchAugmentation(noise, responses.to(device))

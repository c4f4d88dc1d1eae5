"""Training data of the shipped model, held on one device: speech, the teacher's embeddings of it, noises and rooms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
SPEEDS = ((1, 1), (19, 20), (21, 20), (9, 10), (11, 10), (41, 50), (6, 5))
SPEED_SHARES = (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
SPEED_CLASSES = (0, 0, 0, 1, 2, 3, 4)
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

    It holds one copy of the speech for each of SPEEDS, and `new_voices` more.
    """

    def __init__(self, utterances: list[tuple[str, str, str]], device: torch.device, new_voices: int = 0):
        self.device = device
        waves = list(_read_all([path for _, _, path in utterances]))
        copies = len(SPEEDS) + new_voices
        first_new = max(SPEED_CLASSES) + 1
        # For each copy: how often it is drawn, and its class among the speaker's.
        new_share = NEW_VOICES_SHARE if new_voices else 0.0
        shares = [(1 - new_share) * share for share in SPEED_SHARES]
        self.shares = torch.tensor(shares + [new_share / max(1, new_voices)] * new_voices, device=device)
        self.copy_classes = torch.tensor([*SPEED_CLASSES, *range(first_new, first_new + new_voices)], device=device)
        self.classes = first_new + new_voices
        parts, starts, lengths, at = [], [], [], 0
        for copy in tqdm(range(copies), "copies"):
            voices = [(SPEEDS[copy], 1.0)] * len(waves) if copy < len(SPEEDS) else draw_voices(utterances, copy)
            for wave, (speed, formants) in zip(waves, voices, strict=True):
                part = wave.to(device).float()
                if speed != (1, 1):
                    part = torchaudio.functional.resample(part, *speed)
                if formants != 1:
                    part = shift_formants(part, formants)
                parts.append(part.round().clamp(-32768, 32767).to(torch.int16))
                starts.append(at)
                lengths.append(len(part))
                at += len(part)
        self.samples = torch.cat(parts)
        # (copies, utterances)
        self.starts = torch.tensor(starts, device=device).reshape(copies, -1)
        self.lengths = torch.tensor(lengths, device=device).reshape(copies, -1)
        names = sorted({(corpus, speaker) for corpus, speaker, _ in utterances if speaker})
        number = {name: index for index, name in enumerate(names)}
        speakers = [number.get((corpus, speaker), -1) for corpus, speaker, _ in utterances]
        self.speakers, self.n_speakers = torch.tensor(speakers, device=device), len(names)
        # Utterances sorted by speaker, and where each speaker's start: to draw another one by the same speaker.
        self.by_speaker = torch.argsort(self.speakers, stable=True)
        self.counts = torch.bincount(self.speakers + 1, minlength=self.n_speakers + 1)
        self.first = self.counts.cumsum(0) - self.counts
        self.probabilities = torch.zeros(len(utterances), device=device)
        self.targets = self._embed()
        weights = (self.lengths[0] / RATE).clamp(max=6).sqrt()
        for corpus in {corpus for corpus, _, _ in utterances}:
            rows = torch.tensor([name == corpus for name, _, _ in utterances], device=device)
            self.probabilities[rows] = SHARES[corpus] * weights[rows] / weights[rows].sum()
            # What the recordings of a corpus have in common is not the voice, and the student should not learn it. The
            # same goes for artefacts of making a new voice.
            means = self.targets[:, rows].mean(1, keepdim=True)
            means[: len(SPEEDS)] = means[0]
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

    @torch.no_grad()  # not inference mode: the targets take part in training
    def _embed(self) -> torch.Tensor:
        """Embed whole utterances, cut to a multiple of 0.2 s, with the teacher: (copies, utterances, size)."""
        teacher, front_end = campplus_model().to(self.device), KaldiFbank(scale=32768).to(self.device)
        lengths, starts = self.lengths.flatten(), self.starts.flatten()
        step = RATE // 5
        cut = lengths.clamp(max=TEACHER_SECONDS * RATE) // step * step
        cut = torch.where(cut < 2 * step, lengths, cut)
        found = torch.empty(len(lengths), 192, device=self.device)
        limit = (1500 if self.device.type == "cuda" else 30) * RATE
        with tqdm(total=len(lengths), desc="teacher", unit="utt") as progress:
            for samples in cut.unique().tolist():
                position = torch.arange(samples, device=self.device)
                for rows in (cut == samples).nonzero()[:, 0].split(max(1, limit // samples)):
                    waves = self.samples[starts[rows][:, None] + position].float() / 32768
                    features = front_end(waves)
                    found[rows] = teacher(features - features.mean(1, keepdim=True))
                    progress.update(len(rows))
        return found.reshape(*self.lengths.shape, -1)

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

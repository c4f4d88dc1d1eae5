/** Listening: a stream from the microphone, or the samples of a file, to an utterance and what is speech in it. */

import {
  resample,
  Resampler,
  type SpeakerModel,
  type SpeechDetector,
  type Utterance,
} from "../library/index.js";
import { concatenate } from "../library/resample.js";
import { SPEECH_FRAME, SPEECH_PROBABILITY, SPEECH_RATE } from "../library/speech.js";
import { mixDown } from "../library/waveform.js";
import type { Clip, Heard } from "./protocol.js";

/** Kept around the speech of a recording, in seconds. */
const MARGIN = 0.2;
/** While listening, the recording so far is embedded whenever so much speech is new, up to so long. */
const LIVE_STEP = 1;
const LIVE_LONGEST = 10;
const FRAME_SECONDS = SPEECH_FRAME / SPEECH_RATE;

/** No speech was found in a recording of the microphone. */
export class NoSpeechError extends Error {}

/** Listens to one stream. */
export class Listener {
  private readonly toModel: Resampler;
  private readonly toSpeech: Resampler;
  private readonly blocks: Float32Array[] = [];
  private readonly probabilities: number[] = [];
  private embeddedSpeech = 0;
  private length = 0;

  constructor(
    private readonly model: SpeakerModel,
    private readonly detector: SpeechDetector,
    rate: number,
    private readonly live: boolean,
  ) {
    this.toModel = new Resampler(rate, model.config.sample_rate);
    this.toSpeech = new Resampler(rate, SPEECH_RATE);
    detector.reset();
  }

  /** Take the next samples, one channel at the stream's rate. */
  async hear(block: Float32Array): Promise<Heard> {
    this.keep(this.toModel.push(block));
    this.probabilities.push(...(await this.detector.push(this.toSpeech.push(block))));
    const power = block.reduce((sum, value) => sum + value * value, 0) / (block.length || 1);
    return {
      seconds: this.length / this.model.config.sample_rate,
      speechSeconds: this.speechSeconds,
      level: 10 * Math.log10(power + 1e-10),
    };
  }

  /** Embed the latest seconds, where enough speech is new; or give nothing. */
  async soFar(): Promise<Utterance | null> {
    if (!this.live || this.speechSeconds < this.embeddedSpeech + LIVE_STEP) return null;
    this.embeddedSpeech = this.speechSeconds;
    const { sample_rate: rate } = this.model.config;
    const wav = concatenate(this.blocks);
    const [begin] = speechBounds(this.probabilities, rate, wav.length)!;
    return this.model.embed(wav.subarray(Math.max(begin, wav.length - LIVE_LONGEST * rate)), rate);
  }

  /** The end: embed what was said, without the silence before and after it. */
  async finish(): Promise<Clip> {
    this.keep(this.toModel.finish());
    const { sample_rate: rate } = this.model.config;
    const wav = concatenate(this.blocks);
    const bounds = speechBounds(this.probabilities, rate, wav.length);
    if (bounds === null) throw new NoSpeechError("no speech");
    return this.toClip(wav, wav.slice(...bounds), this.probabilities);
  }

  /** Embed the samples of a file, whole, and find what is speech in it. */
  async analyse(channels: readonly Float32Array[], rate: number): Promise<Clip> {
    const utterance = await this.model.embed(channels, rate);
    const { mono } = mixDown(channels);
    const probabilities = await this.detector.push(resample(mono, rate, SPEECH_RATE));
    const wav = resample(mono, rate, this.model.config.sample_rate);
    return this.toClip(wav, wav, probabilities, utterance);
  }

  private get speechSeconds(): number {
    return FRAME_SECONDS * this.probabilities.filter(isSpeech).length;
  }

  private keep(block: Float32Array): void {
    this.blocks.push(block);
    this.length += block.length;
  }

  private async toClip(
    whole: Float32Array,
    samples: Float32Array,
    probabilities: readonly number[],
    utterance?: Utterance,
  ): Promise<Clip> {
    const { sample_rate: rate } = this.model.config;
    return {
      utterance: utterance ?? (await this.model.embed(samples, rate)),
      speechSeconds: FRAME_SECONDS * probabilities.filter(isSpeech).length,
      aboveNoise: aboveNoise(whole, probabilities, rate),
      samples: samples.slice(),
    };
  }
}

function isSpeech(probability: number): boolean {
  return probability >= SPEECH_PROBABILITY;
}

/** Where speech begins and ends, in samples, with a margin; null without speech. */
export function speechBounds(probabilities: readonly number[], rate: number, length: number): [number, number] | null {
  const first = probabilities.findIndex(isSpeech);
  if (first < 0) return null;
  const last = probabilities.findLastIndex(isSpeech);
  const begin = Math.round((first * FRAME_SECONDS - MARGIN) * rate);
  const end = Math.round(((last + 1) * FRAME_SECONDS + MARGIN) * rate);
  return [Math.max(0, begin), Math.min(length, end)];
}

/** By how many dB frames of speech are above the others. */
function aboveNoise(wav: Float32Array, probabilities: readonly number[], rate: number): number | null {
  const size = Math.round(FRAME_SECONDS * rate);
  const powers = probabilities.map((_, index) => {
    const frame = wav.subarray(index * size, (index + 1) * size);
    return frame.reduce((sum, value) => sum + value * value, 0) / (frame.length || 1);
  });
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const speech = powers.filter((_, index) => isSpeech(probabilities[index]!));
  const others = powers.filter((_, index) => !isSpeech(probabilities[index]!));
  if (!speech.length || others.length < 3) return null;
  return 10 * Math.log10((mean(speech) + 1e-10) / (mean(others) + 1e-10));
}

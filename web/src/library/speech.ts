/** Voice activity detection, by silero's network and the rule of the Python package. */

import { InferenceSession, Tensor } from "onnxruntime-web/wasm";

import { removeHum } from "./hum.js";
import { concatenate, resample } from "./resample.js";
import { useRuntime } from "./runtime.js";
import { cut, type Chunk } from "./waveform.js";

/** Input of the network: frames of 32 ms at 16 kHz, each preceded by the end of the one before. */
export const SPEECH_RATE = 16_000;
export const SPEECH_FRAME = 512;
const CONTEXT = 64;
/** Frames per call: 16 s. */
const FRAMES = 512;
const STATE = 128;
/** The probability from which speech begins, and the one below which it may end. */
export const SPEECH_BEGINS = 0.5;
const SPEECH_ENDS = 0.35;
/** In seconds: the shortest speech, the shortest pause that ends it, and what is kept before and after it. */
const SHORTEST = 0.1;
const PAUSE = 0.8;
const PADDING = 0.4;
/** The level, as a standard deviation, that the loudest 100 ms are brought to. */
const LOUDEST = 0.1;
const LEVEL_SECONDS = 0.1;

/** The network. */
export class SpeechDetector {
  private constructor(private readonly session: InferenceSession) {}

  /** Create a detector from silero's ONNX file for whole recordings, `silero_vad_16k_sequence.onnx`. */
  static async create(network: Uint8Array, runtime?: Uint8Array): Promise<SpeechDetector> {
    useRuntime(runtime);
    return new SpeechDetector(await InferenceSession.create(network, { executionProviders: ["wasm"] }));
  }

  /** Start listening to a stream at 16 kHz. */
  listen(): SpeechStream {
    return new SpeechStream(this.session);
  }

  /** Compute the probability of speech in each frame of a waveform at 16 kHz, the last one padded with zeros. */
  async probabilities(wav: Float32Array): Promise<number[]> {
    const rest = (SPEECH_FRAME - (wav.length % SPEECH_FRAME)) % SPEECH_FRAME;
    return this.listen().push(concatenate([wav, new Float32Array(rest)]));
  }
}

/** A stream that a detector listens to. */
export class SpeechStream {
  private state = [new Float32Array(STATE), new Float32Array(STATE)] as const;
  private rest = new Float32Array(CONTEXT);

  constructor(private readonly session: InferenceSession) {}

  /** Take the next samples and return the probability of speech in each frame they complete. */
  async push(samples: Float32Array): Promise<number[]> {
    const joined = concatenate([this.rest, samples]);
    const count = Math.floor((joined.length - CONTEXT) / SPEECH_FRAME);
    const found: number[] = [];
    for (let first = 0; first < count; first += FRAMES) {
      const frames = Math.min(FRAMES, count - first);
      const input = new Float32Array(frames * (CONTEXT + SPEECH_FRAME));
      for (let frame = 0; frame < frames; frame++) {
        const begin = (first + frame) * SPEECH_FRAME;
        input.set(joined.subarray(begin, begin + CONTEXT + SPEECH_FRAME), frame * (CONTEXT + SPEECH_FRAME));
      }
      const [h, c] = this.state.map((values) => new Tensor("float32", values, [1, 1, STATE])) as [Tensor, Tensor];
      const feed = { input: new Tensor("float32", input, [frames, CONTEXT + SPEECH_FRAME]), h, c };
      const given = await this.session.run(feed);
      const values = (name: string) => (given[name]!.data as Float32Array).slice();
      found.push(...values("speech_probs"));
      this.state = [values("hn"), values("cn")];
    }
    this.rest = joined.slice(count * SPEECH_FRAME);
    return found;
  }
}

/** The speech of a recording. */
export interface KeptSpeech {
  readonly chunks: readonly Chunk[];
  /** Level of the frames of speech above the others, in dB; null if either is missing. */
  readonly aboveNoise: number | null;
}

/**
 * Join the speech of a recording, without hum and at one level, and cut it into new chunks.
 *
 * For a recording without speech, return its first chunk as it is, with `audibleSeconds` 0.
 *
 * @param recorded the recording's chunks.
 * @param rate their sample rate in Hz.
 * @param longest the longest chunk, in samples.
 */
export async function keepSpeech(
  recorded: readonly Chunk[],
  rate: number,
  longest: number,
  detector: SpeechDetector,
): Promise<KeptSpeech> {
  const kept: Chunk[] = [];
  const noise = new NoiseLevel();
  let [speech, first, seconds, clipped]: [Float32Array, Chunk, number, number] = [new Float32Array(0), recorded[0]!, 0, 0];
  let [hum, cancelled] = [0, false];
  const keep = (wav: Float32Array, share: number) => {
    const gain = levelGain(wav, rate);
    const whole = share * seconds;
    kept.push({
      wav: wav.map((value) => value * gain),
      seconds: whole,
      audibleSeconds: wav.length / rate,
      clippedShare: whole ? (share * clipped) / whole : 0,
      cancelled,
      hum,
    });
  };
  for (const chunk of recorded) {
    const { wav, mains } = removeHum(chunk.wav, rate);
    const stretches = await findSpeech(wav, rate, detector, noise);
    speech = concatenate([speech, ...stretches.map(([begin, end]) => wav.subarray(begin, end))]);
    hum ||= mains;
    seconds += chunk.seconds;
    cancelled ||= chunk.cancelled;
    clipped += chunk.clippedShare * chunk.seconds;
    while (speech.length >= 2 * longest) {
      keep(speech.subarray(0, longest), 1);
      [speech, first, seconds, clipped] = [speech.slice(longest), chunk, 0, 0];
    }
  }
  if (speech.length) {
    const parts = cut([speech], longest);
    for (const [part] of parts) keep(part!, 1 / parts.length);
  } else {
    keep(first.wav, 1);
    kept.push({ ...kept.pop()!, wav: first.wav, audibleSeconds: 0 });
  }
  return { chunks: kept, aboveNoise: noise.aboveNoise };
}

/** Find where speech begins and ends in a waveform, in samples, whatever its level. */
export async function findSpeech(
  wav: Float32Array,
  rate: number,
  detector: SpeechDetector,
  noise?: NoiseLevel,
): Promise<[number, number][]> {
  const heard = resample(wav, rate, SPEECH_RATE);
  const gain = levelGain(heard, SPEECH_RATE);
  if (!gain) return [];
  const probabilities = await detector.probabilities(heard.map((value) => value * gain));
  noise?.add(heard, probabilities);
  return speechStretches(probabilities, heard.length).map(([begin, end]) => [
    Math.floor((begin * rate) / SPEECH_RATE),
    Math.min(wav.length, Math.floor((end * rate) / SPEECH_RATE)),
  ]);
}

/** Find stretches of speech from frame probabilities, in samples at 16 kHz; two that are near meet in the middle. */
export function speechStretches(probabilities: readonly number[], length: number): [number, number][] {
  const [shortest, pause, padding] = [SHORTEST, PAUSE, PADDING].map((value) => Math.round(value * SPEECH_RATE)) as [number, number, number];
  const found: [number, number][] = [];
  let begin = -1;
  let quiet = -1;
  const end = (stop: number) => {
    if (stop - begin * SPEECH_FRAME > shortest) found.push([begin * SPEECH_FRAME, stop]);
    begin = quiet = -1;
  };
  probabilities.forEach((probability, frame) => {
    if (probability >= SPEECH_BEGINS) {
      if (begin < 0) begin = frame;
      quiet = -1;
    } else if (begin >= 0 && probability < SPEECH_ENDS) {
      if (quiet < 0) quiet = frame;
      if ((frame - quiet) * SPEECH_FRAME >= pause) end(quiet * SPEECH_FRAME);
    }
  });
  if (begin >= 0) end(length);
  found.forEach((stretch, index) => {
    const after = found[index + 1];
    if (!index) stretch[0] = Math.max(0, stretch[0] - padding);
    if (!after) {
      stretch[1] = Math.min(length, stretch[1] + padding);
    } else {
      const widened = Math.min(padding, (after[0] - stretch[1]) >> 1);
      stretch[1] += widened;
      after[0] -= widened;
    }
  });
  return found;
}

/** The gain that brings a waveform to the working level; 0 if it is silent. */
export function levelGain(wav: Float32Array, rate: number): number {
  const size = Math.min(wav.length, Math.round(LEVEL_SECONDS * rate));
  let loudest = 0;
  for (let begin = 0; size && begin + size <= wav.length; begin += size) {
    const frame = wav.subarray(begin, begin + size);
    let [sum, squares] = [0, 0];
    for (const value of frame) sum += value;
    for (const value of frame) squares += (value - sum / size) ** 2;
    loudest = Math.max(loudest, Math.sqrt(squares / size));
  }
  return loudest ? LOUDEST / loudest : 0;
}

/**
 * How far speech stands out from the rest of a recording.
 *
 * Uses the median of the other frames, as some hold the ends of words: of clean recordings of six corpora, 2 % lie
 * below 15 dB, and 16 % by the mean; with white noise at 10 dB, 97 % and 98 % do.
 */
class NoiseLevel {
  private readonly speech: number[] = [];
  private readonly others: number[] = [];

  add(wav: Float32Array, probabilities: readonly number[]): void {
    probabilities.forEach((probability, frame) => {
      const samples = wav.subarray(frame * SPEECH_FRAME, (frame + 1) * SPEECH_FRAME);
      const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
      (probability >= SPEECH_BEGINS ? this.speech : this.others).push(power);
    });
  }

  get aboveNoise(): number | null {
    const { speech, others } = this;
    // Less than a tenth of a second says nothing about a background.
    if (!speech.length || others.length < 3) return null;
    const mean = speech.reduce((sum, value) => sum + value, 0) / speech.length;
    const median = others.sort((one, other) => one - other)[others.length >> 1]!;
    return 10 * Math.log10((mean + 1e-10) / (median + 1e-10));
  }
}

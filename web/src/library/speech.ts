/** Voice activity: silero's network, which says for each frame how likely it holds speech. */

import { InferenceSession, Tensor } from "onnxruntime-web/wasm";

import { useRuntime } from "./model.js";

/** What the network takes: 96 ms at 16 kHz, one after the other. */
export const SPEECH_RATE = 16_000;
export const SPEECH_FRAME = 1536;
/** From this probability on a frame counts as speech. */
export const SPEECH_PROBABILITY = 0.5;

const STATE = [2, 1, 64];

/** Listens to a stream at 16 kHz. */
export class SpeechDetector {
  private readonly rate = new Tensor("int64", [BigInt(SPEECH_RATE)]);
  private state: { h: Tensor; c: Tensor } = silence();
  private rest = new Float32Array(0);

  private constructor(private readonly session: InferenceSession) {}

  /** Make a detector of silero's ONNX file, version 4. */
  static async create(network: Uint8Array, runtime?: Uint8Array): Promise<SpeechDetector> {
    useRuntime(runtime);
    return new SpeechDetector(await InferenceSession.create(network, { executionProviders: ["wasm"] }));
  }

  /** Begin another stream. */
  reset(): void {
    this.state = silence();
    this.rest = new Float32Array(0);
  }

  /** Take the next samples; give the probability of speech of each frame that they complete. */
  async push(samples: Float32Array): Promise<number[]> {
    const joined = new Float32Array(this.rest.length + samples.length);
    joined.set(this.rest);
    joined.set(samples, this.rest.length);
    const probabilities = [];
    let place = 0;
    for (; place + SPEECH_FRAME <= joined.length; place += SPEECH_FRAME) {
      const input = new Tensor("float32", joined.slice(place, place + SPEECH_FRAME), [1, SPEECH_FRAME]);
      const { output, hn, cn } = await this.session.run({ input, sr: this.rate, ...this.state });
      this.state = { h: hn as Tensor, c: cn as Tensor };
      probabilities.push((output!.data as Float32Array)[0]!);
    }
    this.rest = joined.slice(place);
    return probabilities;
  }
}

function silence(): { h: Tensor; c: Tensor } {
  const zeros = () => new Tensor("float32", new Float32Array(128), STATE);
  return { h: zeros(), c: zeros() };
}

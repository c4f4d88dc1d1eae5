/** A speaker model in the browser: its waveform graph on onnxruntime-web, with its calibration. */

import { InferenceSession, Tensor } from "onnxruntime-web/wasm";

import { readCalibration, type QualityFusion } from "./calibration.js";
import { audibleSeconds, bandwidth, clippedShare } from "./levels.js";
import { readOpenSet, type OpenSet } from "./open-set.js";
import { resample } from "./resample.js";
import { useRuntime } from "./runtime.js";
import { identify, verify, type Identification, type Speaker, type Utterance, type Verification } from "./scoring.js";
import { keepSpeech, SpeechDetector, type KeptSpeech } from "./speech.js";
import { cut, mixDown, significant, warnings, type Chunk, type Measured } from "./waveform.js";

/** What a client of the graph needs to know, as `bccmt export web` writes it to config.json. */
export interface ModelConfig {
  readonly name: string;
  readonly sample_rate: number;
  readonly embedding_size: number;
  readonly min_seconds: number;
  readonly max_chunk_seconds: number;
  /** Equal if embeddings are comparable; the same as in the Python package. */
  readonly fingerprint: string;
  /** What a picture of the attention needs; null or absent where the model has none. */
  readonly attention?: AttentionConfig | null;
}

/** Layout of a model's attention. */
export interface AttentionConfig {
  /** The longest stretch to attend to. */
  readonly seconds: number;
  /** Number of the block, from 1. */
  readonly block: number;
  /** Centre of each mel band in Hz. */
  readonly frequencies: readonly number[];
  /** Names of the tokens, which come before the frames; empty for a map from frames to frames. */
  readonly tokens: readonly string[];
  /** Feature frames per frame of the map, where tokens attend to it. */
  readonly time_stride: number;
}

/** An array of numbers with its shape. */
export interface Numbers {
  readonly values: Float32Array;
  readonly shape: readonly number[];
}

/** Attention of a model over a recording. */
export interface Attention {
  /** Length of what was attended to: the speech of the recording, or its first `AttentionConfig.seconds`. */
  readonly seconds: number;
  /** (frames, mels), log-mel. */
  readonly features: Numbers;
  /** (heads, query frames, key frames), or (heads, tokens, tokens and frames); each row sums to one. */
  readonly weights: Numbers;
}

/** What a model is made of. */
export interface ModelParts {
  readonly config: ModelConfig;
  /** The ONNX file: input `waveform`, output `embedding`. */
  readonly graph: Uint8Array;
  /** Content of a calibration.json; null or absent: scores without probabilities. */
  readonly calibration?: unknown;
  /** Content of an open_set.json; null or absent: identification is stricter than necessary. */
  readonly openSet?: unknown;
  /** Silero's network; absent: recordings are embedded whole. */
  readonly speech?: Uint8Array;
  /** The runtime's .wasm file. Absent: onnxruntime-web finds it itself, see its `env.wasm.wasmPaths`. */
  readonly runtime?: Uint8Array;
}

/** A loaded model. Get one from `createModel` or `openModel`. */
export class SpeakerModel {
  constructor(
    readonly config: ModelConfig,
    readonly calibration: QualityFusion | null,
    private readonly session: InferenceSession,
    readonly detector: SpeechDetector | null = null,
    readonly openSet: OpenSet | null = null,
  ) {}

  /** The score from which two recordings of median quality are taken for one speaker; null without a calibration. */
  get threshold(): number | null {
    return this.calibration?.at().threshold ?? null;
  }

  /**
   * Embed a recording: only its speech if the model came with a detector, or all of it.
   *
   * @param samples one channel, or several of one length; full scale is 1.
   * @param rate their sample rate in Hz.
   * @param vad false: embed all of it, like `bccmt --no-vad`.
   */
  async embed(samples: Float32Array | readonly Float32Array[], rate: number, vad = this.detector !== null): Promise<Utterance> {
    const channels = samples instanceof Float32Array ? [samples] : samples;
    this.check(channels, rate);
    const { sample_rate: wanted, embedding_size: size } = this.config;
    const { chunks, aboveNoise } = await this.read(channels, rate, vad);
    const total = new Float64Array(size);
    const measured: Measured[] = [];
    let weights = 0;
    let silent: Float32Array | undefined;
    for (const { wav, ...chunk } of chunks) {
      measured.push({ ...chunk, bandwidth: bandwidth(wav, wanted) });
      if (chunk.audibleSeconds) {
        const vector = await this.run(wav);
        vector.forEach((value, index) => (total[index]! += wav.length * value));
        weights += wav.length;
      } else {
        silent ??= await this.run(wav);
      }
    }
    const embedding = weights ? Float32Array.from(total, (value) => value / weights) : silent!;
    if (!embedding.every(Number.isFinite)) {
      throw new Error("its embedding is NaN or infinite: its samples are far beyond full scale, or the model is damaged");
    }
    const sum = (key: "seconds" | "audibleSeconds") => measured.reduce((value, chunk) => value + chunk[key], 0);
    const told = warnings(measured, vad);
    const band = Math.max(...measured.map((chunk) => chunk.bandwidth));
    const lengths = { seconds: sum("seconds"), speechSeconds: sum("audibleSeconds") };
    return { embedding, ...lengths, bandwidth: band, aboveNoise, warnings: told };
  }

  /** Compute the model's attention over the speech of a recording, or all of it, as `bccmt attention` plots it. */
  async attend(samples: Float32Array | readonly Float32Array[], rate: number, vad = this.detector !== null): Promise<Attention> {
    const { attention, sample_rate: wanted } = this.config;
    if (!attention) throw new Error("this model has no attention to show");
    const channels = samples instanceof Float32Array ? [samples] : samples;
    this.check(channels, rate);
    const { chunks } = await this.read(channels, rate, vad);
    const wav = chunks[0]!.wav.subarray(0, Math.round(attention.seconds * wanted));
    const given = await this.session.run(waveform(wav), ["features", "attention"]);
    const [features, weights] = [given.features!, given.attention!].map(({ data, dims }): Numbers => {
      return { values: (data as Float32Array).slice(), shape: dims.slice(1) };
    }) as [Numbers, Numbers];
    return { seconds: wav.length / wanted, features, weights };
  }

  /** Verify whether two groups of utterances come from one speaker. */
  verify(enrolment: readonly Utterance[], test: readonly Utterance[], threshold?: number): Verification {
    return verify(enrolment, test, this.calibration, threshold);
  }

  /** Identify the enrolled speaker of an utterance, if any; see the function `identify`. */
  identify(speakers: readonly Speaker[], probe: Utterance, threshold?: number, error?: number): Identification {
    return identify(speakers, probe, this.calibration, this.openSet, threshold, error);
  }

  private check(channels: readonly Float32Array[], rate: number): void {
    const { min_seconds: shortest } = this.config;
    if (!channels.length || channels.some((channel) => channel.length !== channels[0]!.length)) {
      throw new Error("a recording needs one channel, or several of one length");
    }
    if (!(rate >= 1000 && rate <= 768_000 && Number.isInteger(rate))) {
      throw new Error(`the sample rate is ${rate} Hz, expected a whole number from 1000 to 768000`);
    }
    const seconds = channels[0]!.length / rate;
    if (seconds < shortest) {
      throw new Error(`${significant(seconds, 4)} s is too short, this model takes ${shortest} s or more`);
    }
    if (!channels.every((channel) => channel.every(Number.isFinite))) {
      throw new Error("holds NaN or infinite samples");
    }
  }

  /** Mix, resample and cut a recording, and keep its speech. */
  private async read(channels: readonly Float32Array[], rate: number, vad: boolean): Promise<KeptSpeech> {
    const { sample_rate: wanted, max_chunk_seconds: longest } = this.config;
    const chunks = cut(channels, Math.floor(longest * rate), !vad).map((part): Chunk => {
      const { mono, cancelled } = mixDown(part);
      const wav = resample(mono, rate, wanted);
      const measures = { audibleSeconds: audibleSeconds(wav, wanted), clippedShare: clippedShare(part) };
      return { wav, seconds: mono.length / rate, ...measures, cancelled, hum: 0 };
    });
    if (!vad) return { chunks, aboveNoise: null };
    if (!this.detector) throw new Error("this model came without a detector of speech");
    return keepSpeech(chunks, wanted, Math.floor(longest * wanted), this.detector);
  }

  private async run(wav: Float32Array): Promise<Float32Array> {
    const { embedding } = await this.session.run(waveform(wav), ["embedding"]);
    return (embedding!.data as Float32Array).slice();
  }
}

/** Input of the graph. */
function waveform(wav: Float32Array): InferenceSession.FeedsType {
  return { waveform: new Tensor("float32", wav, [1, wav.length]) };
}

/** Create a model from its parts. */
export async function createModel({ config, graph, calibration, openSet, speech, runtime }: ModelParts): Promise<SpeakerModel> {
  useRuntime(runtime);
  const session = await InferenceSession.create(graph, { executionProviders: ["wasm"] });
  if (!session.inputNames.includes("waveform") || !session.outputNames.includes("embedding")) {
    throw new Error("the model takes no waveform, or gives no embedding");
  }
  const detector = speech ? await SpeechDetector.create(speech) : null;
  const fitted = calibration == null ? null : readCalibration(calibration);
  return new SpeakerModel(config, fitted, session, detector, openSet == null ? null : readOpenSet(openSet));
}

/**
 * Open the model in a folder that `bccmt export web` wrote.
 *
 * @param address of the folder, such as "/model/".
 */
export async function openModel(address: string | URL): Promise<SpeakerModel> {
  const folder = new URL(address, globalThis.location?.href);
  const get = async (name: string) => {
    const response = await fetch(new URL(name, folder));
    if (!response.ok) throw new Error(`${name} cannot be loaded: ${response.status} ${response.statusText}`);
    return response;
  };
  const config = await (await get("config.json")).json();
  const fitted = (name: string | null | undefined) => (name ? get(name).then((response) => response.json()) : null);
  const [graph, speech, calibration, openSet] = await Promise.all([
    get(config.packed.model.file).then(unzip),
    get(config.packed.speech.file).then(unzip),
    fitted(config.calibration),
    fitted(config.open_set),
  ]);
  return createModel({ config, graph, speech, calibration, openSet });
}

/** Read a gzip file, even if the server has unpacked it already. */
async function unzip(response: Response): Promise<Uint8Array> {
  const packed = await response.blob();
  const [first, second] = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return new Uint8Array(await packed.arrayBuffer());
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

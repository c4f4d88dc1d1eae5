/** Messages between the page and its engine, a worker. */

import type { ModelConfig, Utterance } from "../library/index.js";
import type { PackedFile } from "./packed.js";

/** Content of config.json beside the page. */
export interface PageConfig extends ModelConfig {
  readonly packed: Readonly<Record<"runtime" | "speech" | "model", PackedFile>>;
  /** Name of the calibration's file, or null. */
  readonly calibration: string | null;
  /** Name of the file with the thresholds of identification, or null. */
  readonly open_set: string | null;
}

/** A recording that was analysed. */
export interface Clip {
  readonly utterance: Utterance;
  /** One channel, at the model's sample rate. */
  readonly samples: Float32Array;
}

/** What is heard while listening. */
export interface Heard {
  readonly seconds: number;
  readonly speechSeconds: number;
  /** Of the latest block, in dB relative to full scale. */
  readonly level: number;
}

export type Order =
  | { readonly order: "load"; readonly base: string; readonly config: PageConfig; readonly calibration: unknown }
  | { readonly order: "analyse"; readonly channels: readonly Float32Array[]; readonly rate: number }
  | { readonly order: "attend"; readonly samples: Float32Array }
  | { readonly order: "listen"; readonly rate: number; readonly live: boolean }
  | { readonly order: "hear"; readonly block: Float32Array }
  | { readonly order: "finish" };

export type Numbered = Order & { readonly number: number };

export type Answer =
  | { readonly number: number; readonly result: unknown }
  | { readonly number: number; readonly error: string; readonly kind: string }
  | { readonly progress: number }
  | { readonly heard: Heard }
  /** The recording so far, while listening. */
  | { readonly soFar: Utterance };

/** Waveforms: mixed to one channel, measured, and cut into chunks, as in the Python package. */

import { NARROW_HZ } from "./levels.js";

/** Channels whose average has less than this share of their mean energy cancel each other. */
const CANCELLED_SHARE = 0.1;
/** More than this share of the samples in flat tops is clipping. */
const CLIPPED_SHARE = 1e-3;
/** Below this share of audible frames an embedding describes the silence more than the voice. */
const MOSTLY_SILENT = 0.2;

/** A stretch of a recording, or of its speech, in one channel. */
export interface Chunk {
  readonly wav: Float32Array;
  /** Length of the recording that it stands for. */
  readonly seconds: number;
  readonly audibleSeconds: number;
  readonly clippedShare: number;
  readonly cancelled: boolean;
  /** Mains frequency in Hz of the hum that was filtered out; 0: none. */
  readonly hum: number;
}

/** What was measured in a chunk. */
export interface Measured extends Omit<Chunk, "wav"> {
  readonly bandwidth: number;
}

/** Average channels, or take the loudest if they cancel each other, as when one is inverted. */
export function mixDown(channels: readonly Float32Array[]): { mono: Float32Array; cancelled: boolean } {
  if (channels.length === 1) return { mono: channels[0]!, cancelled: false };
  const mono = new Float32Array(channels[0]!.length);
  for (const channel of channels) channel.forEach((value, index) => (mono[index]! += value / channels.length));
  const energies = channels.map(energy);
  const total = energies.reduce((sum, value) => sum + value, 0);
  const cancelled = energy(mono) < (CANCELLED_SHARE / channels.length) * total;
  return { mono: cancelled ? channels[energies.indexOf(Math.max(...energies))]! : mono, cancelled };
}

/**
 * Cut channels into the fewest chunks of at most `longest` samples: if `equal`, of one length to within a sample; else
 * all but the last have `longest`.
 */
export function cut(channels: readonly Float32Array[], longest: number, equal = true): Float32Array[][] {
  const length = channels[0]!.length;
  const count = Math.max(1, Math.ceil(length / longest));
  return Array.from({ length: count }, (_, number) => {
    const [begin, end] = [number, number + 1].map((edge) =>
      equal ? Math.floor((length * edge) / count) : Math.min(length, longest * edge),
    );
    return channels.map((channel) => channel.subarray(begin, end));
  });
}

/** Return warnings about what was measured in a recording's chunks; `vad`: they hold only its speech. */
export function warnings(chunks: readonly Measured[], vad: boolean): string[] {
  const sum = (value: (chunk: Measured) => number) => chunks.reduce((total, chunk) => total + value(chunk), 0);
  const seconds = sum((chunk) => chunk.seconds);
  const audible = sum((chunk) => chunk.audibleSeconds);
  const clipped = sum((chunk) => chunk.clippedShare * chunk.seconds) / seconds;
  const found = [];
  if (audible === 0) {
    found.push(vad ? `no speech in its ${significant(seconds, 4)} s` : "silent, nothing in it stands out of its noise");
  } else if (audible < MOSTLY_SILENT * seconds && vad) {
    found.push(`little speech, ${significant(audible, 3)} s of speech in ${significant(seconds, 4)} s`);
  } else if (audible < MOSTLY_SILENT * seconds) {
    const heard = `${significant(audible, 3)} of ${significant(seconds, 4)} s`;
    found.push(`mostly silent, ${heard} are audible: cut the silence off`);
  }
  if (clipped > CLIPPED_SHARE) {
    found.push(`clipped, ${significant(100 * clipped, 3)} % of its samples lie in flat tops`);
  }
  const band = Math.max(...chunks.map((chunk) => chunk.bandwidth));
  if (audible && band <= NARROW_HZ) {
    found.push(`narrow band (telephone), nothing above ${significant(band / 1000, 3)} kHz`);
  }
  const hum = Math.max(...chunks.map((chunk) => chunk.hum));
  if (hum) found.push(`a hum of ${hum} Hz was filtered out`);
  if (chunks.some((chunk) => chunk.cancelled)) {
    found.push("its channels cancel each other, as if one were inverted: one of them is used");
  }
  return found;
}

/** A number with so many significant digits, without trailing zeros. */
export function significant(value: number, digits: number): string {
  return String(Number(value.toPrecision(digits)));
}

function energy(wav: Float32Array): number {
  let sum = 0;
  for (const value of wav) sum += value * value;
  return sum;
}

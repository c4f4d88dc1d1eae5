/** What a recording has lost, measured without a reference, as in Python: audible seconds, clipped tops, bandwidth. */

import { hann, powerSpectra } from "./fourier.js";

const FRAME_SECONDS = 0.02;
/** A frame is audible down to this far below the loud frames (95th percentile). */
const AUDIBLE_DB = 40;
/** Loud and quiet frames of a steady noise differ by less than this; over fewer frames a voice can be as steady. */
const STEADY_DB = 3;
const STEADY_FRAMES = 25;
/** Share of the loudest sample: an offset leaves that much behind. */
const ROUNDING = 1e-6;
/** Consecutive samples at the extreme value that make a flat top, and values below it that rule out few bits. */
const FLAT_SAMPLES = 3;
const STEPS = 16;
/** A band is in use if its loud frames are at most this far below those of the loudest band. */
const BAND_HZ = 250;
const BAND_FRAME = 512;
const BAND_DB = 55;
/** Bandwidth up to which a recording is as narrow as a telephone's. */
export const NARROW_HZ = 5000;

/** How much of a waveform is audible, whatever its level, in seconds; 0 is silence, or nothing but a steady noise. */
export function audibleSeconds(wav: Float32Array, rate: number): number {
  const size = Math.max(1, Math.min(Math.round(rate * FRAME_SECONDS), wav.length));
  const count = Math.floor(wav.length / size);
  const levels = Array.from({ length: count }, (_, frame) => deviation(wav.subarray(frame * size, (frame + 1) * size)));
  const loudest = wav.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
  const heard = levels.filter((level) => level > ROUNDING * loudest).sort((one, other) => one - other);
  if (!heard.length) return 0;
  const [quiet, loud] = [percentile(heard, 5), percentile(heard, 95)];
  if (heard.length >= STEADY_FRAMES && loud < quiet * 10 ** (STEADY_DB / 20)) return 0;
  const audible = heard.filter((level) => level > loud * 10 ** (-AUDIBLE_DB / 20)).length;
  return ((audible / count) * wav.length) / rate;
}

/** Share of the samples in flat tops of any channel, as left by clipping at any level. */
export function clippedShare(channels: readonly Float32Array[]): number {
  const flat = new Uint8Array(channels[0]!.length);
  for (const channel of channels) {
    for (const sign of [1, -1]) {
      const extreme = sign * channel.reduce((peak, value) => Math.max(peak, sign * value), 0);
      const tops = runsOf(extreme, channel);
      // Counting steps takes longer and is seldom needed.
      if (tops.length && stepsBelow(channel, extreme) >= STEPS) for (const [begin, end] of tops) flat.fill(1, begin, end);
    }
  }
  return flat.reduce((sum, value) => sum + value, 0) / flat.length;
}

/** The frequency in Hz up to which a recording holds sound; half the rate if it is too short or silent. */
export function bandwidth(wav: Float32Array, rate: number): number {
  const count = Math.floor(wav.length / BAND_FRAME);
  const bands = Math.floor(rate / 2 / BAND_HZ);
  if (!count || !bands || !wav.some((value) => value !== 0)) return rate / 2;
  const edges = Array.from({ length: bands }, (_, band) => roundHalfEven((band * BAND_HZ * BAND_FRAME) / rate));
  edges.push(BAND_FRAME / 2 + 1);
  const powers: number[][] = Array.from({ length: bands }, () => []);
  const window = hann(BAND_FRAME);
  const framed = (frame: number) => window.map((value, index) => value * (wav[frame * BAND_FRAME + index] ?? 0));
  for (let frame = 0; frame < count; frame += 2) {
    for (const spectrum of powerSpectra(framed(frame), framed(frame + 1)).slice(0, count - frame)) {
      for (let band = 0; band < bands; band++) {
        let sum = 0;
        for (let bin = edges[band]!; bin < edges[band + 1]!; bin++) sum += spectrum[bin]!;
        powers[band]!.push(sum);
      }
    }
  }
  const loud = powers.map((band) => percentile(band.sort((one, other) => one - other), 95));
  const limit = Math.max(...loud) * 10 ** (-BAND_DB / 10);
  return BAND_HZ * (1 + loud.findLastIndex((value) => value >= limit));
}

/** Percentile of sorted values, linearly interpolated. */
function percentile(sorted: readonly number[], percent: number): number {
  const place = ((sorted.length - 1) * percent) / 100;
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
}

function deviation(wav: Float32Array): number {
  let mean = 0;
  for (const value of wav) mean += value / wav.length;
  let sum = 0;
  for (const value of wav) sum += (value - mean) ** 2;
  return Math.sqrt(sum / wav.length);
}

/** Begin and end of each run of `FLAT_SAMPLES` or more samples at the wanted value. */
function runsOf(wanted: number, channel: Float32Array): [number, number][] {
  const found: [number, number][] = [];
  for (let begin = channel.indexOf(wanted), end; begin >= 0; begin = channel.indexOf(wanted, end)) {
    for (end = begin + 1; channel[end] === wanted; ) end++;
    if (end - begin >= FLAT_SAMPLES) found.push([begin, end]);
  }
  return found;
}

/** Number of values that a channel takes between its middle and an extreme, counted up to `STEPS`. */
function stepsBelow(channel: Float32Array, extreme: number): number {
  const sorted = Float32Array.from(channel).sort();
  const half = sorted.length >> 1;
  const middle = sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  const seen = new Set<number>();
  for (const value of channel) {
    if (extreme > middle ? value > middle : value < middle) seen.add(value);
    if (seen.size >= STEPS) break;
  }
  return seen.size;
}

/** Round as NumPy does, halves to even. */
function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return value % 1 === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

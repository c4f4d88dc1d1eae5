/** Mains hum in a recording: found by its steady lines and filtered out, as in the Python package. */

import { hann, powerSpectra, transform } from "./fourier.js";

const MAINS = [50, 60];
const HARMONICS = 10;
/** In dB: the lowest line of a hum is at least this far above what is beside it, at most this far below the whole. */
const PROMINENT_DB = 25;
const LOUD_DB = -20;
/** Its other lines are filtered from this height on. */
const LINE_DB = 10;
const NOTCH_HZ = 4;
const REFLECTED_SECONDS = 0.6;

/** Filter a loud hum out of a recording, and leave others unchanged; `mains` is 50 or 60 Hz, or 0 without hum. */
export function removeHum(wav: Float32Array, rate: number): { wav: Float32Array; mains: number } {
  if (wav.length < 1.5 * rate) return { wav, mains: 0 };
  const power = medianPower(wav, rate);
  const whole = power.reduce((sum, value) => sum + value, 0);
  if (!whole) return { wav, mains: 0 };
  for (const mains of MAINS) {
    const lines = Array.from({ length: HARMONICS }, (_, number) => mains * (number + 1)).filter((line) => line + 9 < power.length);
    if (!lines.length) continue;
    const peaks = lines.map((line) => Math.max(...power.subarray(line - 1, line + 2)));
    const heights = lines.map((line, index) => {
      const beside = [...power.subarray(line - 8, line - 3), ...power.subarray(line + 4, line + 9)].sort((a, b) => a - b);
      return peaks[index]! / Math.max((beside[4]! + beside[5]!) / 2, 1e-12 * whole);
    });
    // The window spreads a line over three bins, which sum to 1.5 times the highest.
    if (heights[0]! < 10 ** (PROMINENT_DB / 10) || 1.5 * peaks[0]! < whole * 10 ** (LOUD_DB / 10)) continue;
    const found = lines.filter((_, index) => heights[index]! > 10 ** (LINE_DB / 10));
    return { wav: notch(wav, found, rate), mains };
  }
  return { wav, mains: 0 };
}

/** Power at each Hz that is always there: the median over frames of 1 s. */
function medianPower(wav: Float32Array, rate: number): Float64Array {
  const window = hann(rate);
  const frames: Float64Array[] = [];
  for (let begin = 0; begin + rate <= wav.length; begin += Math.floor(rate / 2)) {
    frames.push(window.map((value, index) => value * wav[begin + index]!));
  }
  const powers: Float64Array[] = [];
  for (let index = 0; index < frames.length; index += 2) {
    const pair = powerSpectra(frames[index]!, frames[index + 1] ?? new Float64Array(rate));
    powers.push(...pair.slice(0, frames.length - index));
  }
  const middle = (frames.length - 1) >> 1;
  const column = new Float64Array(frames.length);
  return powers[0]!.map((_, bin) => column.map((_, index) => powers[index]![bin]!).sort()[middle]!);
}

/** Filter lines out by second-order notches, forwards and backwards, on the spectrum. */
function notch(wav: Float32Array, lines: readonly number[], rate: number): Float32Array {
  const size = Math.round(REFLECTED_SECONDS * rate);
  const [first, last] = [wav[0]!, wav.at(-1)!];
  const length = wav.length + 2 * size;
  const total = 2 ** Math.ceil(Math.log2(length));
  const longer = new Float64Array(total);
  for (let index = 0; index < length; index++) {
    const place = index - size;
    if (place < 0) longer[index] = 2 * first - wav[-place]!;
    else if (place < wav.length) longer[index] = wav[place]!;
    else longer[index] = 2 * last - wav[2 * wav.length - 2 - place]!;
  }
  const spectrum = transform({ re: longer, im: new Float64Array(total) });
  for (let bin = 0; bin < total; bin++) {
    let gain = 1;
    const [x, y] = [Math.cos((2 * Math.PI * bin) / total), -Math.sin((2 * Math.PI * bin) / total)];
    const [xx, yy] = [x * x - y * y, 2 * x * y];
    for (const line of lines) {
      const turn = Math.cos((2 * Math.PI * line) / rate);
      const scale = 1 / (1 + Math.tan((Math.PI * NOTCH_HZ) / rate));
      const above = scale ** 2 * ((1 - 2 * turn * x + xx) ** 2 + (yy - 2 * turn * y) ** 2);
      const below = (1 - 2 * scale * turn * x + (2 * scale - 1) * xx) ** 2 + ((2 * scale - 1) * yy - 2 * scale * turn * y) ** 2;
      gain *= above / below;
    }
    spectrum.re[bin]! *= gain;
    spectrum.im[bin]! *= gain;
  }
  return Float32Array.from(transform(spectrum, true).re.subarray(size, size + wav.length));
}

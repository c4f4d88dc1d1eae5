/** Resampling by a polyphase filter, that of SciPy's `resample_poly`, for whole waveforms and streams. */

/** Zero crossings of the filter on each side, and the shape of its Kaiser window. */
const HALF_WIDTH = 10;
const KAISER_BETA = 5;

/** Resamples a stream block by block; joined, the blocks equal the resampled whole. */
export class Resampler {
  private readonly up: number;
  private readonly down: number;
  private readonly half: number;
  private readonly filter: Float64Array | null;
  /** Samples still needed, from number `first` of the stream on. */
  private kept = new Float32Array(0);
  private first = 0;
  private received = 0;
  private given = 0;

  constructor(rate: number, wanted: number) {
    const factor = greatestCommonDivisor(rate, wanted);
    this.up = wanted / factor;
    this.down = rate / factor;
    this.half = HALF_WIDTH * Math.max(this.up, this.down);
    this.filter = rate === wanted ? null : lowPass(this.half, 1 / Math.max(this.up, this.down), this.up);
  }

  /** Take a block and return what can be computed without the next one. */
  push(block: Float32Array): Float32Array {
    if (this.filter === null) return block;
    const joined = new Float32Array(this.kept.length + block.length);
    joined.set(this.kept);
    joined.set(block, this.kept.length);
    this.kept = joined;
    this.received += block.length;
    const ready = this.compute(Math.max(this.given, Math.ceil((this.received * this.up - this.half) / this.down)));
    const needed = Math.max(this.first, Math.min(this.received, Math.ceil((this.given * this.down - this.half) / this.up)));
    this.kept = this.kept.slice(needed - this.first);
    this.first = needed;
    return ready;
  }

  /** End the stream and return the rest, as if zeros followed. */
  finish(): Float32Array {
    return this.filter === null ? new Float32Array(0) : this.compute(Math.ceil((this.received * this.up) / this.down));
  }

  /** Compute samples up to number `stop`. Sample n is the sum over k of input k times filter at n down - k up. */
  private compute(stop: number): Float32Array {
    const { up, down, half, first } = this;
    const filter = this.filter!;
    const result = new Float32Array(stop - this.given);
    for (let index = 0; index < result.length; index++) {
      const centre = (this.given + index) * down;
      const begin = Math.max(first, Math.ceil((centre - half) / up));
      const end = Math.min(this.received - 1, Math.floor((centre + half) / up));
      let sum = 0;
      for (let k = begin; k <= end; k++) sum += this.kept[k - first]! * filter[centre - k * up + half]!;
      result[index] = sum;
    }
    this.given = stop;
    return result;
  }
}

/** Resample a whole waveform. */
export function resample(wav: Float32Array, rate: number, wanted: number): Float32Array {
  return rate === wanted ? wav : concatenate(streamed(new Resampler(rate, wanted), wav));
}

/** Join blocks end to end. */
export function concatenate(blocks: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let place = 0;
  for (const block of blocks) {
    joined.set(block, place);
    place += block.length;
  }
  return joined;
}

function streamed(resampler: Resampler, wav: Float32Array): Float32Array[] {
  return [resampler.push(wav), resampler.finish()];
}

/** Design a low-pass filter with a Kaiser window: 2 half + 1 taps that sum to `gain`. */
function lowPass(half: number, cutoff: number, gain: number): Float64Array {
  const taps = new Float64Array(2 * half + 1);
  let sum = 0;
  for (let index = 0; index < taps.length; index++) {
    const x = index - half;
    const angle = Math.PI * cutoff * x;
    const sinc = x === 0 ? 1 : Math.sin(angle) / angle;
    const window = besselI0(KAISER_BETA * Math.sqrt(Math.max(0, 1 - (x / half) ** 2))) / besselI0(KAISER_BETA);
    taps[index] = sinc * window;
    sum += taps[index]!;
  }
  return taps.map((tap) => (tap * gain) / sum);
}

/** Modified Bessel function of the first kind and order 0, by its series. */
function besselI0(x: number): number {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b ? greatestCommonDivisor(b, a % b) : a;
}

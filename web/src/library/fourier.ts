/** Fourier transforms of any length, fast if all its factors are small. */

/** A complex signal or spectrum. */
export interface Complex {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

/** Transform, or back if `inverse`: Stockham's form of Cooley and Tukey's algorithm, for factors of any size. */
export function transform({ re, im }: Complex, inverse = false): Complex {
  const size = re.length;
  // The inverse is the forward transform with real and imaginary parts swapped.
  let from: Complex = inverse ? { re: im.slice(), im: re.slice() } : { re: re.slice(), im: im.slice() };
  let to: Complex = { re: new Float64Array(size), im: new Float64Array(size) };
  // Samples size / done apart are transformed: `from` holds their spectra of `done` bins, one after the other.
  let done = 1;
  for (const factor of factors(size)) {
    join(from, to, done, factor);
    done *= factor;
    [from, to] = [to, from];
  }
  if (!inverse) return from;
  const back = { re: from.im, im: from.re };
  for (const part of [back.re, back.im]) for (let index = 0; index < size; index++) part[index]! /= size;
  return back;
}

/** Join spectra of `done` bins, `factor` at a time, into longer ones. */
function join(from: Complex, to: Complex, done: number, factor: number): void {
  const size = from.re.length;
  const spectra = size / done / factor;
  const { cos, sin } = roots(size);
  const [x, y] = [new Float64Array(factor), new Float64Array(factor)];
  for (let bin = 0; bin < done; bin++) {
    for (let spectrum = 0; spectrum < spectra; spectrum++) {
      for (let part = 0; part < factor; part++) {
        const place = (spectrum + spectra * part) * done + bin;
        const turn = part * bin * spectra;
        const [re, im, c, s] = [from.re[place]!, from.im[place]!, cos[turn]!, sin[turn]!];
        x[part] = re * c + im * s;
        y[part] = im * c - re * s;
      }
      const place = spectrum * done * factor + bin;
      if (factor === 2) {
        to.re[place] = x[0]! + x[1]!;
        to.im[place] = y[0]! + y[1]!;
        to.re[place + done] = x[0]! - x[1]!;
        to.im[place + done] = y[0]! - y[1]!;
      } else if (factor === 4) {
        const [a, b, c, d] = [x[0]! + x[2]!, x[0]! - x[2]!, x[1]! + x[3]!, x[1]! - x[3]!];
        const [e, f, g, h] = [y[0]! + y[2]!, y[0]! - y[2]!, y[1]! + y[3]!, y[1]! - y[3]!];
        to.re[place] = a + c;
        to.im[place] = e + g;
        to.re[place + done] = b + h;
        to.im[place + done] = f - d;
        to.re[place + 2 * done] = a - c;
        to.im[place + 2 * done] = e - g;
        to.re[place + 3 * done] = b - h;
        to.im[place + 3 * done] = f + d;
      } else {
        for (let bin = 0; bin < factor; bin++) {
          let [re, im] = [0, 0];
          for (let part = 0; part < factor; part++) {
            const turn = ((part * bin) % factor) * (size / factor);
            re += x[part]! * cos[turn]! + y[part]! * sin[turn]!;
            im += y[part]! * cos[turn]! - x[part]! * sin[turn]!;
          }
          to.re[place + bin * done] = re;
          to.im[place + bin * done] = im;
        }
      }
    }
  }
}

/** Power spectra of two real signals of equal length, up to half the rate, from one transform. */
export function powerSpectra(one: ArrayLike<number>, other: ArrayLike<number>): [Float64Array, Float64Array] {
  const size = one.length;
  const { re, im } = transform({ re: Float64Array.from(one), im: Float64Array.from(other) });
  const [first, second] = [0, 0].map(() => new Float64Array(Math.floor(size / 2) + 1)) as [Float64Array, Float64Array];
  for (let bin = 0; bin < first.length; bin++) {
    const mirror = (size - bin) % size;
    const [a, b, c, d] = [re[bin]!, im[bin]!, re[mirror]!, im[mirror]!];
    first[bin] = ((a + c) ** 2 + (b - d) ** 2) / 4;
    second[bin] = ((b + d) ** 2 + (c - a) ** 2) / 4;
  }
  return [first, second];
}

/** The periodic Hann window. */
export function hann(size: number): Float64Array {
  return Float64Array.from({ length: size }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / size));
}

let kept: { readonly cos: Float64Array; readonly sin: Float64Array } = { cos: new Float64Array(0), sin: new Float64Array(0) };

function roots(size: number): typeof kept {
  if (kept.cos.length !== size) {
    const angle = (index: number) => (2 * Math.PI * index) / size;
    kept = {
      cos: Float64Array.from({ length: size }, (_, index) => Math.cos(angle(index))),
      sin: Float64Array.from({ length: size }, (_, index) => Math.sin(angle(index))),
    };
  }
  return kept;
}

/** The factors of a size, with 4 in place of two factors of 2. */
function factors(size: number): number[] {
  const found = [];
  let rest = size;
  for (let factor = 4; rest > 1; factor = factor === 4 ? 2 : factor === 2 ? 3 : factor + 2) {
    if (factor * factor > rest && factor > 4) factor = rest;
    for (; rest % factor === 0; rest /= factor) found.push(factor);
  }
  return found;
}

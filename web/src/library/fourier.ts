/** Fourier transforms of any length, quick where that has small factors alone. */

/** A complex signal or spectrum. */
export interface Complex {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

/** Transform; `inverse`: back again. Stockham's form of Cooley and Tukey's algorithm, for factors of any size. */
export function transform({ re, im }: Complex, inverse = false): Complex {
  const size = re.length;
  const { cos, sin } = roots(size);
  const sign = inverse ? 1 : -1;
  let [from, to]: [Complex, Complex] = [{ re: re.slice(), im: im.slice() }, zeros(size)];
  // What lies `done` apart has been transformed: `from` holds, one behind the other, spectra of that length.
  let done = 1;
  for (const factor of factors(size)) {
    const spectra = size / done / factor;
    for (let bin = 0; bin < done * factor; bin++) {
      const old = bin % done;
      for (let spectrum = 0; spectrum < spectra; spectrum++) {
        let [real, imaginary] = [0, 0];
        for (let part = 0, turn = 0; part < factor; part++, turn = (turn + bin * spectra) % size) {
          const place = (spectrum + spectra * part) * done + old;
          const [x, y, c, s] = [from.re[place]!, from.im[place]!, cos[turn]!, sign * sin[turn]!];
          real += x * c - y * s;
          imaginary += x * s + y * c;
        }
        const place = spectrum * done * factor + bin;
        to.re[place] = real;
        to.im[place] = imaginary;
      }
    }
    done *= factor;
    [from, to] = [to, from];
  }
  if (inverse) for (const part of [from.re, from.im]) part.forEach((value, index) => (part[index] = value / size));
  return from;
}

/** Power of two real signals of one length in each bin up to half the rate, by one transform. */
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

function zeros(size: number): Complex {
  return { re: new Float64Array(size), im: new Float64Array(size) };
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

function factors(size: number): number[] {
  const found = [];
  for (let factor = 2, rest = size; rest > 1; ) {
    if (factor * factor > rest) factor = rest;
    if (rest % factor) factor++;
    else (found.push(factor), (rest /= factor));
  }
  return found;
}

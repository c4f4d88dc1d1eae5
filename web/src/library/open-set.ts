/** Open-set identification: what the best of many names must reach to be accepted, like Python's `OpenSet`. */

const FORMAT = { format: "speechbrain_bccmt open set", version: 1 };

/** Log-likelihood ratios that the best name must reach, by error rate and number of names. */
export class OpenSet {
  /**
   * @param errors shares of strangers taken for some name, descending.
   * @param names numbers of enrolled names, ascending.
   * @param thresholds a row for each error rate, a ratio for each number of names.
   * @param margin by how much the best name's ratio must exceed the next one's.
   */
  constructor(
    readonly errors: readonly number[],
    readonly names: readonly number[],
    readonly thresholds: readonly (readonly number[])[],
    readonly margin: number,
  ) {
    const falls = errors.length > 0 && errors.every((error, index) => error > 0 && error < (errors[index - 1] ?? 1));
    if (!falls) throw new Error(`the error rates of the open set are ${errors}, expected falling ones below 1`);
    const rises = names.length > 0 && names.every((count, index) => count >= 1 && count > (names[index - 1] ?? 0));
    if (!rises) throw new Error(`the numbers of names of the open set are ${names}, expected rising ones from 1 on`);
    if (thresholds.length !== errors.length || thresholds.some((row) => row.length !== names.length)) {
      throw new Error(`the thresholds of the open set are no table of ${errors.length} by ${names.length}`);
    }
    if (!(margin >= 0)) throw new Error(`the margin of the open set is ${margin}, expected 0 or more`);
  }

  /** Thresholds that need no fit, stricter than necessary: exact ratios reach x at most 1 / x of the time. */
  static bound(): OpenSet {
    const [errors, names] = [[0.5, 0.001], [1, 1000]];
    return new OpenSet(errors, names, errors.map((error) => names.map((count) => Math.log(count / error))), 0);
  }

  /** The ratio that the best of so many names must reach; beyond the fitted numbers it rises by their mean slope. */
  threshold(names: number, error: number): number {
    const least = this.errors.at(-1)!;
    if (!(error >= least && error < 1)) {
      throw new Error(`an error rate of ${error} cannot be promised: expected one from ${least} to below 1`);
    }
    const known = this.names.map(Math.log);
    const at = Math.log(Math.max(1, names));
    const last = known.at(-1)!;
    const column = this.thresholds.map((row) => {
      if (at <= last || known.length < 2) return interpolate(at, known, row);
      return row.at(-1)! + ((row.at(-1)! - row[0]!) / (last - known[0]!)) * (at - last);
    });
    return interpolate(Math.log(error), this.errors.map(Math.log).reverse(), column.reverse());
  }

  /** Whether the best name is accepted among so many, given the ratios of the best names, best first. */
  accepts(ratios: readonly number[], names: number, error: number): boolean {
    const [best, next] = ratios;
    if (best === undefined || best < this.threshold(names, error)) return false;
    return next === undefined || best - next >= this.margin;
  }
}

/** Read an open_set.json, or throw an error that says what is wrong with it. */
export function readOpenSet(content: unknown): OpenSet {
  const values = (content ?? {}) as Record<string, unknown>;
  if (values.format !== FORMAT.format || values.version !== FORMAT.version) {
    throw new Error(`the thresholds of identification are no ${FORMAT.format} of version ${FORMAT.version}`);
  }
  const { errors, names, thresholds, margin } = values;
  const numbers = (value: unknown): value is number[] => Array.isArray(value) && value.every(Number.isFinite);
  if (!numbers(errors) || !numbers(names) || !Array.isArray(thresholds) || !thresholds.every(numbers)) {
    throw new Error("the thresholds of identification hold no numbers");
  }
  return new OpenSet(errors, names, thresholds, Number(margin));
}

/** Linear interpolation at x between points with ascending x, constant beyond them. */
function interpolate(x: number, xs: readonly number[], ys: readonly number[]): number {
  const after = xs.findIndex((one) => one > x);
  if (after === 0) return ys[0]!;
  if (after < 0) return ys.at(-1)!;
  const share = (x - xs[after - 1]!) / (xs[after]! - xs[after - 1]!);
  return ys[after - 1]! + share * (ys[after]! - ys[after - 1]!);
}

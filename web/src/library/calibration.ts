/** Calibration: from a score and the quality of both sides to a log-likelihood ratio, a probability and a threshold. */

const FUSION = { format: "speechbrain_bccmt quality fusion", version: 2 };
const PLAIN = { format: "speechbrain_bccmt calibration", version: 1 };

/** Measures of a side: `log_duration` of its speech in seconds, `log_utterances`, `narrow`, its narrow-band share. */
export type Quality = Readonly<Record<string, number>>;

/** A map from scores to log-likelihood ratios at one quality, like Python's `Calibration`. */
export class Calibration {
  constructor(
    readonly scale: number,
    readonly offset: number,
    readonly pTarget: number,
    readonly cMiss: number,
    readonly cFalseAlarm: number,
  ) {
    if (!(scale > 0)) throw new Error(`the calibration's scale is ${scale}, expected a positive one`);
    if (!(pTarget > 0 && pTarget < 1)) throw new Error(`the calibration's p_target is ${pTarget}, expected a prior`);
    if (!(cMiss > 0 && cFalseAlarm > 0)) throw new Error("the calibration's costs are not positive");
  }

  /** The log-likelihood ratio from which both sides are taken for one speaker. */
  get llrThreshold(): number {
    return Math.log(this.cFalseAlarm) - Math.log(this.cMiss) - logOdds(this.pTarget);
  }

  /** The score from which both sides are taken for one speaker. */
  get threshold(): number {
    return this.scoreAt(this.llrThreshold);
  }

  /** The score at a log-likelihood ratio. */
  scoreAt(llr: number): number {
    return (llr - this.offset) / this.scale;
  }

  /** Natural logarithm of the likelihood ratio of "same" to "different". */
  llr(score: number): number {
    return this.scale * score + this.offset;
  }

  /** Probability that both sides are one speaker, at the calibration's prior. */
  probability(score: number): number {
    return 1 / (1 + Math.exp(-this.llr(score) - logOdds(this.pTarget)));
  }
}

/** A calibration that allows for both sides' quality, like Python's `QualityFusion`; a plain one has no measures. */
export class QualityFusion {
  constructor(
    readonly measures: readonly string[],
    readonly lower: readonly number[],
    readonly higher: readonly number[],
    readonly ranges: readonly (readonly [number, number, number])[],
    readonly calibration: Calibration,
  ) {}

  /** The calibration for two sides of known quality; a side left out counts as the median of the fitting data. */
  at(enrolment?: Quality, test?: Quality): Calibration {
    const { scale, pTarget, cMiss, cFalseAlarm } = this.calibration;
    let offset = this.calibration.offset;
    this.measures.forEach((name, index) => {
      const [lowest, median, highest] = this.ranges[index]!;
      const values = [enrolment, test].map((side) => {
        const value = side === undefined ? median : side[name];
        if (value === undefined || !Number.isFinite(value)) throw new Error(`a side lacks the measure ${name}`);
        return Math.min(highest, Math.max(lowest, value));
      });
      offset += this.lower[index]! * Math.min(...values) + this.higher[index]! * Math.max(...values);
    });
    return new Calibration(scale, offset, pTarget, cMiss, cFalseAlarm);
  }
}

/** Read a calibration.json of either kind, or throw an error that says what is wrong with it. */
export function readCalibration(content: unknown): QualityFusion {
  const values = (content ?? {}) as Record<string, unknown>;
  const number = (key: string): number => finite(values[key], key);
  const plain = values.format === PLAIN.format;
  const { format, version } = plain ? PLAIN : FUSION;
  if (values.format !== format) throw new Error("the calibration is none of speechbrain_bccmt");
  if (values.version !== version) {
    throw new Error(`the calibration is of version ${values.version}, this page reads version ${version}`);
  }
  const calibration = new Calibration(
    number("scale"),
    number("offset"),
    number("p_target"),
    number("c_miss"),
    number("c_fa"),
  );
  if (plain) return new QualityFusion([], [], [], [], calibration);
  const measures = list(values.measures, "measures").map(String);
  const [lower, higher] = (["lower", "higher"] as const).map((key) =>
    list(values[key], key).map((weight) => finite(weight, key)),
  ) as [number[], number[]];
  const ranges = list(values.ranges, "ranges").map((row) => {
    const triple = list(row, "ranges").map((value) => finite(value, "ranges"));
    if (triple.length !== 3 || triple[0]! > triple[1]! || triple[1]! > triple[2]!) {
      throw new Error("the calibration's ranges are not lowest, median and highest");
    }
    return triple as [number, number, number];
  });
  if ([lower, higher, ranges].some((part) => part.length !== measures.length)) {
    throw new Error("the calibration's weights do not fit its measures");
  }
  return new QualityFusion(measures, lower, higher, ranges, calibration);
}

function logOdds(probability: number): number {
  return Math.log(probability) - Math.log(1 - probability);
}

function finite(value: unknown, key: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new Error(`the calibration's ${key} is ${JSON.stringify(value)}, expected a finite number`);
  }
  return value;
}

function list(value: unknown, key: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`the calibration's ${key} is no list`);
  return value;
}

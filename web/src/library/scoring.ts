/** Scores between embedded utterances: verification of one speaker, identification among many. */

import type { QualityFusion, Quality } from "./calibration.js";
import { NARROW_HZ } from "./levels.js";
import { OpenSet } from "./open-set.js";

/** Share of strangers that may be given a name, unless another is asked for. */
const ERROR = 0.01;

/** A recording's embedding, and what is to be known of the recording. */
export interface Utterance {
  /** As the network gives it, not of unit length. */
  readonly embedding: Float32Array;
  /** Length of the recording. */
  readonly seconds: number;
  /** How much of it is speech, or without voice activity detection audible; 0: it is nobody's voice. */
  readonly speechSeconds: number;
  /** Up to which frequency the recording holds sound, in Hz; null where it is not known. */
  readonly bandwidth?: number | null;
  /** By how many dB speech is above what else is in the recording; null where one is missing, or was not looked for. */
  readonly aboveNoise?: number | null;
  /** Of no or little speech, clipping, a narrow band, hum, and channels that cancel each other. */
  readonly warnings: readonly string[];
}

/** Outcome of a verification. */
export interface Verification {
  /** Cosine of the two sides, from -1 to 1. */
  readonly score: number;
  /** True: same speaker. A silent side is nobody's voice. Null where there is no threshold. */
  readonly same: boolean | null;
  /** That both sides are one speaker, at the calibration's prior; null without a calibration, or if a side is silent. */
  readonly probability: number | null;
  /** Natural logarithm of the likelihood ratio; null in the same cases. */
  readonly llr: number | null;
  /** The score from which on `same` is true, at the quality of these recordings. */
  readonly threshold: number | null;
}

/** An enrolled speaker: a name, and one utterance or more. */
export interface Speaker {
  readonly name: string;
  readonly utterances: readonly Utterance[];
}

/** Who is talking: null if unknown, and all speakers by score, the highest first. */
export interface Identification {
  readonly speaker: string | null;
  readonly threshold: number | null;
  readonly candidates: readonly { readonly name: string; readonly score: number }[];
}

/** Verify that two groups of utterances are of one speaker; `threshold` stands in for the calibration's own. */
export function verify(
  enrolment: readonly Utterance[],
  test: readonly Utterance[],
  calibration: QualityFusion | null,
  threshold?: number,
): Verification {
  if (!enrolment.length || !test.length) throw new Error("a side of the verification has no recording");
  // What is silent has no part in a side that has more.
  [enrolment, test] = [audible(enrolment), audible(test)];
  const score = cosine(meanDirection(enrolment), meanDirection(test));
  const heard = [enrolment, test].every(([first]) => first!.speechSeconds > 0);
  const fitted = heard ? calibration?.at(quality(enrolment), quality(test)) : calibration?.at();
  const limit = threshold ?? fitted?.threshold ?? null;
  const known = heard && fitted !== undefined;
  return {
    score,
    same: heard ? (limit === null ? null : score >= limit) : false,
    probability: known ? fitted.probability(score) : null,
    llr: known ? fitted.llr(score) : null,
    threshold: limit,
  };
}

/**
 * Identify the enrolled speaker of an utterance, or none of them.
 *
 * @param openSet what the best of many names must reach, as a log-likelihood ratio; null: a bound that needs no fit.
 * @param threshold one score for any number of names, in place of the open set's.
 * @param error share of strangers that may be given a name.
 */
export function identify(
  speakers: readonly Speaker[],
  probe: Utterance,
  calibration: QualityFusion | null,
  openSet: OpenSet | null = null,
  threshold?: number,
  error = ERROR,
): Identification {
  const known = openSet ?? OpenSet.bound();
  const candidates = speakers
    .map(({ name, utterances }) => ({ name, utterances, score: cosine(meanDirection(utterances), meanDirection([probe])) }))
    .sort((one, other) => other.score - one.score);
  const [best] = candidates;
  const ranking = candidates.map(({ name, score }) => ({ name, score }));
  const answer = (accepted: boolean, limit: number | null): Identification => {
    return { speaker: accepted ? best!.name : null, threshold: limit, candidates: ranking };
  };
  const heard = probe.speechSeconds > 0;
  if (threshold !== undefined) return answer(heard && best !== undefined && best.score >= threshold, threshold);
  if (!calibration) return answer(false, null);
  const least = calibration.at().llrThreshold;
  const limit = Math.max(least, known.threshold(candidates.length, error));
  // A side without speech has no quality: it counts as the median one, and belongs to nobody.
  const sides = candidates.slice(0, 2).map(({ utterances, score }) => {
    const spoken = utterances.some((utterance) => utterance.speechSeconds > 0);
    const at = calibration.at(spoken ? quality(utterances) : undefined, heard ? quality([probe]) : undefined);
    return { at, spoken, ratio: at.llr(score) };
  });
  const [first] = sides;
  if (!first) return answer(false, calibration.at().scoreAt(limit));
  // Of two equally good names the second may have the higher ratio, for having less speech: then neither is accepted.
  const ratios = sides.map(({ ratio }) => ratio);
  const accepted = heard && first.spoken && first.ratio >= least && known.accepts(ratios, candidates.length, error);
  return answer(accepted, first.at.scoreAt(limit));
}

/** What has speech of a side; all of one that has none. */
function audible(side: readonly Utterance[]): readonly Utterance[] {
  const heard = side.filter((utterance) => utterance.speechSeconds > 0);
  return heard.length ? heard : side;
}

/** The measures of a side that a calibration may ask for. */
function quality(side: readonly Utterance[]): Quality {
  const seconds = side.reduce((sum, utterance) => sum + utterance.speechSeconds, 0);
  const bands = side.map((utterance) => utterance.bandwidth ?? null).filter((band) => band !== null);
  const narrow = bands.filter((band) => band <= NARROW_HZ).length / (bands.length || 1);
  return { log_duration: Math.log(seconds), log_utterances: Math.log(side.length), narrow };
}

/** Average embeddings, each scaled to unit length. */
function meanDirection(utterances: readonly Utterance[]): Float64Array {
  const mean = new Float64Array(utterances[0]!.embedding.length);
  for (const { embedding } of utterances) {
    if (embedding.length !== mean.length) throw new Error("embeddings of different models cannot be compared");
    const length = norm(embedding);
    if (!(length > 0 && length < Infinity)) throw new Error("an embedding is zero, NaN or infinite");
    embedding.forEach((value, index) => (mean[index]! += value / length / utterances.length));
  }
  return mean;
}

function cosine(one: Float64Array, other: Float64Array): number {
  if (one.length !== other.length) throw new Error("embeddings of different models cannot be compared");
  const product = one.reduce((sum, value, index) => sum + value * other[index]!, 0);
  // Utterances that cancel out point nowhere, and score 0. Rounding may leave [-1, 1] by an ulp or two.
  return Math.min(1, Math.max(-1, product / (norm(one) * norm(other) || 1)));
}

function norm(vector: Float32Array | Float64Array): number {
  let sum = 0;
  for (const value of vector) sum += value * value;
  return Math.sqrt(sum);
}

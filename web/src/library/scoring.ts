/** Scores between embedded utterances: verification of one speaker, identification among many. */

import type { QualityFusion, Quality } from "./calibration.js";
import { NARROW_HZ } from "./levels.js";
import { OpenSet } from "./open-set.js";

/** Default share of strangers that may be given a name. */
const ERROR = 0.01;

/** A recording's embedding, and what is known about the recording. */
export interface Utterance {
  /** As the network returns it, not of unit length. */
  readonly embedding: Float32Array;
  /** Length of the recording. */
  readonly seconds: number;
  /** How much of it is speech, or audible if voice activity detection is off; 0: it is nobody's voice. */
  readonly speechSeconds: number;
  /** Frequency up to which the recording holds sound, in Hz; null if unknown. */
  readonly bandwidth?: number | null;
  /** Level of speech above the rest of the recording, in dB; null if one is missing or was not looked for. */
  readonly aboveNoise?: number | null;
  /** About little or no speech, clipping, a narrow band, hum, and channels that cancel each other. */
  readonly warnings: readonly string[];
}

/** Outcome of a verification. */
export interface Verification {
  /** Cosine of the two sides, from -1 to 1. */
  readonly score: number;
  /** True: same speaker. A silent side is nobody's voice. Null without a threshold. */
  readonly same: boolean | null;
  /** Probability that both are one speaker, at the calibration's prior; null without one, or if a side is silent. */
  readonly probability: number | null;
  /** Natural logarithm of the likelihood ratio; null in the same cases. */
  readonly llr: number | null;
  /** The score from which `same` is true, at the quality of these recordings. */
  readonly threshold: number | null;
}

/** An enrolled speaker: a name, and one or more utterances. */
export interface Speaker {
  readonly name: string;
  readonly utterances: readonly Utterance[];
}

/** The speaker, null if unknown, and all candidates by score, highest first. */
export interface Identification {
  readonly speaker: string | null;
  readonly threshold: number | null;
  readonly candidates: readonly { readonly name: string; readonly score: number }[];
}

/** Verify whether two groups of utterances come from one speaker; `threshold` replaces the calibration's own. */
export function verify(
  enrolment: readonly Utterance[],
  test: readonly Utterance[],
  calibration: QualityFusion | null,
  threshold?: number,
): Verification {
  if (!enrolment.length || !test.length) throw new Error("a side of the verification has no recording");
  // Silent utterances are left out of a side that has others.
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
 * Identify the enrolled speaker of an utterance, if any.
 *
 * @param openSet what the best of many names must reach, as a log-likelihood ratio; null: a bound that needs no fit.
 * @param threshold one score for any number of names, instead of the open set's.
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
  const direction = meanDirection([probe]);
  const candidates = speakers
    .map(({ name, utterances }) => ({ name, utterances, score: cosine(meanDirection(utterances), direction) }))
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
  // A side without speech has no quality: it counts as median, and belongs to nobody.
  const sides = candidates.slice(0, 2).map(({ utterances, score }) => {
    const spoken = utterances.some((utterance) => utterance.speechSeconds > 0);
    const at = calibration.at(spoken ? quality(utterances) : undefined, heard ? quality([probe]) : undefined);
    return { at, spoken, ratio: at.llr(score) };
  });
  const [first] = sides;
  if (!first) return answer(false, calibration.at().scoreAt(limit));
  // Of two equally good names the second may have the higher ratio, with less speech: then neither is accepted.
  const ratios = sides.map(({ ratio }) => ratio);
  const accepted = heard && first.spoken && first.ratio >= least && known.accepts(ratios, candidates.length, error);
  return answer(accepted, first.at.scoreAt(limit));
}

/** The utterances of a side that have speech; all of them if none has. */
function audible(side: readonly Utterance[]): readonly Utterance[] {
  const heard = side.filter((utterance) => utterance.speechSeconds > 0);
  return heard.length ? heard : side;
}

/** The measures of a side that a calibration may use. */
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
  // Utterances that cancel out point nowhere, and score 0. Rounding may overshoot [-1, 1] by an ulp or two.
  return Math.min(1, Math.max(-1, product / (norm(one) * norm(other) || 1)));
}

function norm(vector: Float32Array | Float64Array): number {
  let sum = 0;
  for (const value of vector) sum += value * value;
  return Math.sqrt(sum);
}

import assert from "node:assert/strict";
import { test } from "node:test";

import { readCalibration } from "../src/library/calibration.js";
import { concatenate, resample, Resampler } from "../src/library/resample.js";
import { identify, verify, type Utterance } from "../src/library/scoring.js";
import { audibleSeconds, bandwidth, clippedShare } from "../src/library/levels.js";
import { cut, mixDown } from "../src/library/waveform.js";

const PLAIN = { format: "speechbrain_bccmt calibration", version: 1, scale: 20, offset: -6, p_target: 0.5, c_miss: 1, c_fa: 1 };
const FUSION = {
  ...PLAIN,
  format: "speechbrain_bccmt quality fusion",
  version: 2,
  measures: ["log_duration"],
  lower: [1],
  higher: [0.5],
  ranges: [[0, 1, 3]],
};

const utterance = (embedding: number[], seconds = 1): Utterance => ({
  embedding: Float32Array.from(embedding),
  seconds,
  audibleSeconds: seconds,
  warnings: [],
});

test("the threshold is where the probability is one half, for equal priors", () => {
  const calibration = readCalibration(PLAIN).at();
  assert.equal(calibration.threshold, 0.3);
  assert.equal(calibration.probability(0.3), 0.5);
});

test("quality counts within the range that was fitted, and sides may change places", () => {
  const fusion = readCalibration(FUSION);
  const offset = (one: number, other: number) => fusion.at({ log_duration: one }, { log_duration: other }).offset;
  assert.equal(offset(1, 2), -6 + 1 + 1);
  assert.equal(offset(2, 1), offset(1, 2));
  assert.equal(offset(-5, 9), -6 + 0 + 1.5);
  assert.equal(fusion.at().offset, -6 + 1.5);
});

test("a damaged calibration is refused", () => {
  const damaged: [object | null, RegExp][] = [
    [null, /none of speechbrain_bccmt/],
    [{ ...FUSION, version: 3 }, /version 3/],
    [{ ...FUSION, scale: "20" }, /scale is "20"/],
    [{ ...FUSION, scale: -1 }, /positive/],
    [{ ...FUSION, p_target: 1 }, /p_target/],
    [{ ...FUSION, lower: [] }, /do not fit/],
    [{ ...FUSION, ranges: [[2, 1, 3]] }, /lowest, median and highest/],
    [{ ...FUSION, higher: [null] }, /finite number/],
  ];
  for (const [content, message] of damaged) assert.throws(() => readCalibration(content), message);
});

test("all utterances of a side count alike, whatever the length of their embeddings", () => {
  const outcome = verify([utterance([2, 0]), utterance([0, 1])], [utterance([1, 1])], null);
  assert.ok(Math.abs(outcome.score - 1) < 1e-6);
  assert.deepEqual([outcome.same, outcome.probability, outcome.threshold], [null, null, null]);
});

test("a silent side is nobody's voice", () => {
  const outcome = verify([utterance([1, 0])], [utterance([1, 0], 0)], readCalibration(FUSION));
  assert.equal(outcome.same, false);
  assert.equal(outcome.probability, null);
  const found = identify([{ name: "Ada", utterances: [utterance([1, 0])] }], utterance([1, 0], 0), readCalibration(FUSION));
  assert.equal(found.speaker, null);
});

test("embeddings of different sizes are not compared", () => {
  assert.throws(() => verify([utterance([1, 0])], [utterance([1, 0, 0])], null), /different models/);
  assert.throws(() => verify([utterance([0, 0])], [utterance([1, 0])], null), /zero/);
  assert.throws(() => verify([], [utterance([1, 0])], null), /no recording/);
});

test("a stream is resampled to what the whole is, however it is cut", () => {
  const wav = Float32Array.from({ length: 12_345 }, (_, index) => Math.sin(index * 0.05) + Math.cos(index * 0.3));
  for (const [rate, wanted] of [[48_000, 16_000], [44_100, 16_000], [8000, 16_000], [16_000, 16_000]] as const) {
    const whole = resample(wav, rate, wanted);
    assert.equal(whole.length, Math.ceil((wav.length * wanted) / rate));
    const resampler = new Resampler(rate, wanted);
    const parts = [];
    for (let place = 0, size = 1; place < wav.length; place += size, size = (size * 7) % 997) {
      parts.push(resampler.push(wav.subarray(place, place + size)));
    }
    parts.push(resampler.finish());
    assert.deepEqual(concatenate(parts), whole);
  }
});

test("channels that cancel each other give the louder one", () => {
  const one = Float32Array.of(0.5, 0.25);
  const other = one.map((value) => -0.9 * value);
  assert.deepEqual(mixDown([one, other]), { mono: one, cancelled: true });
  assert.equal(mixDown([one, one]).cancelled, false);
});

test("an offset is not audible, and a recording is cut into the fewest equal chunks", () => {
  assert.equal(audibleSeconds(new Float32Array(16_000).fill(0.5), 16_000), 0);
  const chunks = cut([new Float32Array(70_001)], 30_000).map(([channel]) => channel!.length);
  assert.deepEqual(chunks, [23_333, 23_334, 23_334]);
});

test("level is no measure of silence or clipping, and a band is measured", () => {
  const tone = Float32Array.from({ length: 16_000 }, (_, index) => (0.1 + index / 20_000) * Math.sin(index / 10));
  for (const gain of [1, 1e-3, 5]) {
    const copy = tone.map((value) => gain * value);
    assert.equal(audibleSeconds(copy, 16_000), 1);
    assert.equal(clippedShare([copy]), 0);
    assert.ok(clippedShare([copy.map((value) => Math.min(value, 0.5 * gain))]) > 0.05);
  }
  assert.equal(bandwidth(tone, 16_000), 500);
  assert.equal(bandwidth(new Float32Array(16_000), 16_000), 8000);
});

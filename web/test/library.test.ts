import assert from "node:assert/strict";
import { test } from "node:test";

import { readCalibration } from "../src/library/calibration.js";
import { concatenate, resample, Resampler } from "../src/library/resample.js";
import { identify, verify, type Utterance } from "../src/library/scoring.js";
import { audibleSeconds, bandwidth, clippedShare } from "../src/library/levels.js";
import { powerSpectra, transform } from "../src/library/fourier.js";
import { speechStretches } from "../src/library/speech.js";
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
  speechSeconds: seconds,
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

test("speech ends by a pause, begins with a margin, and neighbours share what is between them", () => {
  const frames = (...parts: [number, number][]) => parts.flatMap(([probability, count]) => new Array<number>(count).fill(probability));
  assert.deepEqual(speechStretches(frames([0, 40], [0.9, 20], [0.4, 60], [0, 30]), 76_800), [[14_080, 67_840]]);
  const near = speechStretches(frames([0.9, 10], [0, 26], [0.9, 10]), 23_500);
  assert.deepEqual(near, [[0, 11_520], [12_032, 23_500]]);
  assert.deepEqual(speechStretches(frames([0, 10], [0.9, 3], [0, 40]), 27_136), []);
  assert.deepEqual(speechStretches([], 0), []);
});

test("transforms of any length are Fourier's, and turn back", () => {
  for (const size of [1, 7, 64, 60, 75]) {
    const signal = (seed: number) => Float64Array.from({ length: size }, (_, index) => Math.sin(seed + index * index));
    const [re, im] = [signal(1), signal(2)];
    const found = transform({ re, im });
    for (let bin = 0; bin < size; bin++) {
      let sum = 0;
      re.forEach((value, index) => {
        const angle = (-2 * Math.PI * bin * index) / size;
        sum += value * Math.cos(angle) - im[index]! * Math.sin(angle);
      });
      assert.ok(Math.abs(found.re[bin]! - sum) < 1e-9);
    }
    transform(found, true).im.forEach((value, index) => assert.ok(Math.abs(value - im[index]!) < 1e-12));
    const [power] = powerSpectra(re, im);
    const alone = transform({ re, im: new Float64Array(size) });
    power.forEach((value, bin) => assert.ok(Math.abs(value - alone.re[bin]! ** 2 - alone.im[bin]! ** 2) < 1e-9));
  }
});

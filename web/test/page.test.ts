import assert from "node:assert/strict";
import { test } from "node:test";

import { attentionMap, magma, spectrogram, tokenRows } from "../src/page/attention.js";
import { checkName } from "../src/page/names.js";
import { readExport } from "../src/page/prints.js";
import { sampleRate, toWav } from "../src/page/recordings.js";
import { percent } from "../src/page/results.js";

test("names are stored in one form, and what cannot be seen is refused", () => {
  assert.equal(checkName(" Jose\u0301 "), "José");
  assert.equal(checkName("👩\u200d🚀"), "👩\u200d🚀");
  for (const name of ["", "  ", "a\nb", "a\u202eb", "\u0000", "x".repeat(201), "Unknown"]) {
    assert.throws(() => checkName(name), Error, JSON.stringify(name));
  }
  assert.equal(checkName("🚀".repeat(200)).length, 400);
});

test("the sample rate is read from headers", async () => {
  const wav = new Uint8Array(await toWav(new Float32Array(4), 22_050).arrayBuffer());
  assert.equal(sampleRate(wav), 22_050);
  // A chunk of odd length before the format.
  const listed = new Uint8Array([...wav.slice(0, 12), ...ascii("LIST"), 3, 0, 0, 0, 1, 2, 3, 0, ...wav.slice(12)]);
  assert.equal(sampleRate(listed), 22_050);
  const ogg = [...ascii("OggS"), ...new Array<number>(22).fill(0), 1, 19];
  assert.equal(sampleRate(new Uint8Array([...ogg, ...ascii("OpusHead")])), 48_000);
  const vorbis = [...ogg, 1, ...ascii("vorbis"), 0, 0, 0, 0, 1, 0x44, 0xac, 0, 0];
  assert.equal(sampleRate(new Uint8Array(vorbis)), 44_100);
  const flac = [...ascii("fLaC"), ...new Array<number>(14).fill(0), 0x03, 0xe8, 0x00, 0xf0];
  assert.equal(sampleRate(new Uint8Array(flac)), 16_000);
  assert.equal(sampleRate(new Uint8Array([0xff, 0xf3, 0x58, 0xc4])), 16_000);
  assert.equal(sampleRate(new Uint8Array([...ascii("ID3"), 4, 0, 0, 0, 0, 0, 2, 9, 9, 0xff, 0xfb, 0x90, 0x64])), 44_100);
  assert.equal(sampleRate(new Uint8Array([0xff, 0xf1, 0x60, 0x40])), 16_000);
  const description = [...ascii("stsd"), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 90, ...ascii("mp4a"), ...new Array<number>(24).fill(0)];
  const m4a = [0, 0, 0, 24, ...ascii("ftypM4A "), 0, 0, ...description, 0xac, 0x44, 0, 0, 0, 0, 0, 0];
  assert.equal(sampleRate(new Uint8Array(m4a)), 44_100);
  for (const other of [[], [1, 2, 3], ascii("RIFF1234WAVE"), ascii("no recording at all")]) {
    assert.equal(sampleRate(new Uint8Array(other)), null);
  }
});

test("an exported file is read back, and a damaged one is refused whole", () => {
  const row = { embedding: [1, 0], seconds: 2, speech_seconds: 1 };
  const content = { format: "speechbrain_bccmt voiceprints", version: 1, model: "a", speakers: [{ name: "Ada", utterances: [row] }] };
  const read = (changed: object, speakers: object[] = content.speakers) =>
    readExport(JSON.stringify({ ...content, speakers, ...changed }), "a", 2);
  assert.equal(read({})[0]!.utterances[0]!.speechSeconds, 1);
  const of = (bandwidth: unknown) => read({}, [{ name: "Ada", utterances: [{ ...row, bandwidth }] }])[0]!.utterances[0]!.bandwidth;
  assert.deepEqual([4000, null, undefined].map(of), [4000, null, null]);
  assert.throws(() => readExport("{", "a", 2), /no voiceprints/);
  assert.throws(() => read({ format: "x" }), /no voiceprints/);
  assert.throws(() => read({ version: 2 }), /newer page/);
  assert.throws(() => read({ model: "b" }), /another model/);
  for (const wrong of [{ embedding: [1] }, { embedding: [0, 0] }, { embedding: [1, null, 2] }, { seconds: -1 }, { seconds: "2" }, { bandwidth: 0 }]) {
    const speakers = [...content.speakers, { name: "Bela", utterances: [{ ...row, ...wrong }] }];
    assert.throws(() => read({}, speakers), /damaged/, JSON.stringify(wrong));
  }
  assert.throws(() => read({}, [{ name: "a\nb", utterances: [row] }]), /damaged/);
});

test("a probability is never shown as a certainty", () => {
  assert.deepEqual([0.99999, 0.849, 0.05, 0.0001].map(percent), ["above 99.9 %", "84.9 %", "5 %", "below 0.1 %"]);
});

test("a map of attention is the mean of its heads, up to its brightest weights", () => {
  const values = Float32Array.of(0.5, 0.5, 1, 0, 0.1, 0.9, 0.4, 0.6);
  const { raster, top } = attentionMap({ values, shape: [2, 2, 2] });
  const mean = [0.3, 0.7, 0.7, 0.3];
  assert.ok(Math.abs(top - 0.7) < 1e-6);
  raster.shares.forEach((share, index) => assert.ok(Math.abs(share - mean[index]! / 0.7) < 1e-6));
  const rows = tokenRows({ values: Float32Array.from({ length: 20 }, (_, index) => index), shape: [2, 2, 5] }, 1);
  assert.deepEqual(rows.map((row) => [...row]), [[7, 8, 9], [17, 18, 19]]);
});

test("a spectrogram has its low bands below, and the loudest is the brightest", () => {
  const { rows, columns, shares } = spectrogram({ values: Float32Array.of(-9, 0, 1, -9, 2, 5), shape: [2, 3] });
  assert.deepEqual([rows, columns], [3, 2]);
  assert.equal(shares.indexOf(1), 1);
  assert.deepEqual([magma(-1), magma(0.5), magma(2)], [[0, 0, 4], [183, 55, 121], [252, 253, 191]]);
});

function ascii(text: string): number[] {
  return [...text].map((letter) => letter.charCodeAt(0));
}

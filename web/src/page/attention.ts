/** A model's attention, as `bccmt attention` plots it: the spectrogram, and below it what attends to which moment. */

import type { Attention, AttentionConfig, Numbers } from "../library/index.js";
import { element } from "./results.js";

/** Evenly spaced colours of matplotlib's map "magma" (by Smith and van der Walt, CC0). */
const MAGMA =
  "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf"
    .split(" ")
    .map((colour) => [0, 2, 4].map((place) => Number.parseInt(colour.slice(place, place + 2), 16)));
const TICKS_HZ = [250, 500, 1000, 2000, 4000, 8000];
/** A single strong weight would darken all others. */
const TOP_PERCENT = 99.5;
/** The faintest part of a spectrogram gets the darkest colour. */
const FAINT_PERCENT = 5;
const WIDEST = 640;
/** Height of a line of text. */
const LINE = 14;
const [LEFT, RIGHT, TOP, GAP, BOTTOM] = [56, 12, 8, 14, 40];
const [SPECTROGRAM, MAP, STRIP] = [110, 300, 44];

/** An image (rows, columns) of shares from 0 to 1. */
export interface Raster {
  readonly rows: number;
  readonly columns: number;
  readonly shares: Float32Array;
}

/** Draw the attention over a recording, with a caption; `width` is the room on the page, in CSS pixels. */
export function drawAttention(attention: Attention, config: AttentionConfig, width: number): HTMLElement[] {
  const { weights, seconds } = attention;
  const [heads] = weights.shape as [number];
  const strips = config.tokens.length * heads;
  const height = TOP + SPECTROGRAM + GAP + (strips ? strips * STRIP : MAP) + BOTTOM;
  const canvas = element("canvas", [], "picture");
  canvas.width = Math.min(WIDEST, Math.max(280, width)) * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  canvas.style.aspectRatio = `${canvas.width / devicePixelRatio} / ${height}`;
  // A canvas has to be on the page to know its colours.
  document.body.append(canvas);
  const plot = new Plot(canvas, seconds);
  plot.image(spectrogram(attention.features), TOP, SPECTROGRAM);
  plot.frequencies(config.frequencies, TOP, SPECTROGRAM);
  let caption: string;
  const below = TOP + SPECTROGRAM + GAP;
  if (strips) {
    const rows = config.tokens.flatMap((token, index) => tokenRows(weights, index).map((row, head) => ({ token, row, head })));
    const step = (config.time_stride * seconds) / attention.features.shape[0]!;
    rows.forEach(({ row }, index) => plot.strip(row, below + index * STRIP, STRIP - 6, step));
    plot.time(height);
    const names = rows.map(({ token, row, head }) => {
      const left = Math.max(0, 1 - row.reduce((sum, value) => sum + value, 0));
      return `${token} token, head ${head + 1}: up to ${percentOf(Math.max(...row))} on a frame, ${percentOf(left)} on tokens`;
    });
    caption = `Block ${config.block}, the weight of each moment. From the top: ${names.join("; ")}.`;
  } else {
    const { raster, top } = attentionMap(weights);
    plot.image(raster, below, MAP);
    plot.seconds(below, MAP);
    plot.time(height);
    caption =
      `Block ${config.block}, the mean of its ${heads} heads. Each row is a moment of the speech, and the moments ` +
      `it attends to are bright; the brightest have a weight of ${top.toPrecision(2)} or more.`;
  }
  canvas.remove();
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Spectrogram of ${seconds.toFixed(1)} s of speech, and the attention in it`);
  return [canvas, element("p", caption, "hint")];
}

/** Image of log-mel features, low bands at the bottom, from the faint values to the loudest. */
export function spectrogram({ values, shape: [frames, mels] }: Numbers): Raster {
  const low = percentile(values, FAINT_PERCENT);
  const high = Math.max(values.reduce((loudest, value) => Math.max(loudest, value), -Infinity), low + 1e-6);
  const shares = new Float32Array(values.length);
  for (let frame = 0; frame < frames!; frame++) {
    for (let band = 0; band < mels!; band++) {
      shares[(mels! - 1 - band) * frames! + frame] = (values[frame * mels! + band]! - low) / (high - low);
    }
  }
  return { rows: mels!, columns: frames!, shares };
}

/** Mean over heads of (heads, query frames, key frames), up to the weight of the brightest colour. */
export function attentionMap({ values, shape: [heads, rows, columns] }: Numbers): { raster: Raster; top: number } {
  const size = rows! * columns!;
  const mean = new Float32Array(size);
  values.forEach((value, index) => (mean[index % size]! += value / heads!));
  const top = percentile(mean, TOP_PERCENT);
  return { raster: { rows: rows!, columns: columns!, shares: mean.map((value) => value / top) }, top };
}

/** A token's weight on each frame: a row for each head, from (heads, tokens, tokens and frames). */
export function tokenRows({ values, shape: [heads, tokens, columns] }: Numbers, token: number): Float32Array[] {
  return Array.from({ length: heads! }, (_, head) => {
    const begin = (head * tokens! + token) * columns!;
    return values.slice(begin + tokens!, begin + columns!);
  });
}

/** The colour of a share, as red, green and blue up to 255. */
export function magma(share: number): number[] {
  const place = Math.min(1, Math.max(0, share)) * (MAGMA.length - 1);
  const below = Math.min(MAGMA.length - 2, Math.floor(place));
  return [0, 1, 2].map((part) => {
    const [one, other] = [MAGMA[below]![part]!, MAGMA[below + 1]![part]!];
    return Math.round(one + (other - one) * (place - below));
  });
}

/** Percentile of the values, linearly interpolated. */
function percentile(values: Float32Array, percent: number): number {
  const sorted = values.slice().sort();
  const place = ((sorted.length - 1) * percent) / 100;
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
}

function percentOf(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** A plot over seconds on a canvas. */
class Plot {
  private readonly context: CanvasRenderingContext2D;
  private readonly width: number;
  private readonly text: string;
  private readonly accent: string;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly length: number,
  ) {
    this.context = canvas.getContext("2d")!;
    this.context.scale(devicePixelRatio, devicePixelRatio);
    this.width = canvas.width / devicePixelRatio - LEFT - RIGHT;
    const style = getComputedStyle(canvas);
    [this.text, this.accent] = [style.color, style.outlineColor];
    this.context.font = `12px ${style.fontFamily}`;
    this.context.fillStyle = this.context.strokeStyle = this.text;
  }

  image({ rows, columns, shares }: Raster, top: number, height: number): void {
    const pixels = new ImageData(columns, rows);
    shares.forEach((share, index) => pixels.data.set([...magma(share), 255], 4 * index));
    const small = new OffscreenCanvas(columns, rows);
    small.getContext("2d")!.putImageData(pixels, 0, 0);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, LEFT, top, this.width, height);
  }

  /** Label the bands of a spectrogram; the middle of band k lies at k + 0.5. */
  frequencies(centres: readonly number[], top: number, height: number): void {
    let last = Infinity;
    for (const hz of TICKS_HZ) {
      const above = centres.findIndex((centre) => centre >= hz);
      if (above < 0 || hz < centres[0]!) continue;
      const [low, high] = [centres[Math.max(0, above - 1)]!, centres[above]!];
      const band = above - (high > low ? (high - hz) / (high - low) : 0) + 0.5;
      const y = top + height * (1 - band / centres.length);
      if (last - y < LINE) continue;
      this.label(hz < 1000 ? `${hz}` : `${hz / 1000}k`, y);
      last = y;
    }
    this.title("Hz", top + height / 2);
  }

  /** Label the rows of a map, whose time runs downwards. */
  seconds(top: number, height: number): void {
    for (const tick of this.ticks()) this.label(`${tick}`, top + (height * tick) / this.length);
    this.title("attending, s", top + height / 2);
  }

  /** Label the time below everything. */
  time(height: number): void {
    this.context.textAlign = "center";
    this.context.textBaseline = "alphabetic";
    for (const tick of this.ticks()) this.context.fillText(`${tick}`, LEFT + (this.width * tick) / this.length, height - BOTTOM + 16);
    this.context.fillText("attended, s", LEFT + this.width / 2, height - 6);
  }

  /** Draw a row of weights, `step` seconds apart, scaled to its highest. */
  strip(row: Float32Array, top: number, height: number, step: number): void {
    const highest = row.reduce((value, other) => Math.max(value, other), 1e-12);
    const x = (index: number) => LEFT + Math.min(1, Math.max(0, (index * step) / this.length)) * this.width;
    this.context.fillStyle = this.accent;
    this.context.beginPath();
    this.context.moveTo(LEFT, top + height);
    row.forEach((value, index) => this.context.lineTo(x(index), top + height * (1 - value / highest)));
    this.context.lineTo(x(row.length - 1), top + height);
    this.context.fill();
    this.context.fillStyle = this.text;
    this.context.setLineDash([2, 3]);
    // Equal weights, as in mean pooling.
    const even = top + height * (1 - 1 / row.length / highest);
    this.context.beginPath();
    this.context.moveTo(LEFT, even);
    this.context.lineTo(LEFT + this.width, even);
    this.context.stroke();
    this.context.setLineDash([]);
  }

  private ticks(): number[] {
    const step = [0.1, 0.2, 0.5, 1, 2].find((size) => this.length / size <= 6) ?? 5;
    return Array.from({ length: Math.floor(this.length / step) + 1 }, (_, index) => Number((index * step).toFixed(1)));
  }

  private label(text: string, y: number): void {
    this.context.textAlign = "right";
    this.context.textBaseline = "middle";
    this.context.fillText(text, LEFT - 6, y);
  }

  private title(text: string, y: number): void {
    this.context.save();
    this.context.translate(12, y);
    this.context.rotate(-Math.PI / 2);
    this.context.textAlign = "center";
    this.context.textBaseline = "middle";
    this.context.fillText(text, 0, 0);
    this.context.restore();
  }
}

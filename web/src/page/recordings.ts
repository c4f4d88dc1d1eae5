/** Recordings from files, decoded by the browser at their own sample rate, which their headers give. */

/** A decoded recording. */
export interface Decoded {
  readonly channels: Float32Array[];
  readonly rate: number;
}

/** The rate at which Opus is decoded, and the one tried if a header gives none. */
const USUAL_RATE = 48_000;
const AAC_RATES = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
/** "stsd" as a number. */
const STSD = 0x73747364;

/** Decode a file at its own rate if that is known. */
export async function decode(file: File): Promise<Decoded> {
  if (!file.size) throw new Error("the file is empty");
  const content = await file.arrayBuffer();
  const told = sampleRate(new Uint8Array(content)) ?? USUAL_RATE;
  // Browsers limit the rates, and resample whatever is decoded in a context of another rate.
  for (const rate of new Set([told, USUAL_RATE])) {
    let context: OfflineAudioContext;
    try {
      context = new OfflineAudioContext(1, 1, rate);
    } catch {
      continue;
    }
    let decoded: AudioBuffer;
    try {
      decoded = await context.decodeAudioData(content);
    } catch {
      throw new Error("this browser cannot read it: it is no recording, damaged, or of an unknown format");
    }
    const channels = Array.from({ length: decoded.numberOfChannels }, (_, number) => decoded.getChannelData(number));
    return { channels, rate: decoded.sampleRate };
  }
  throw new Error("this browser cannot decode recordings");
}

/** Read the sample rate from the header of a wav, flac, ogg, mp3, aac or m4a file. */
export function sampleRate(bytes: Uint8Array): number | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (place: number, length: number) => String.fromCharCode(...bytes.subarray(place, place + length));
  try {
    if (["RIFF", "RF64"].includes(text(0, 4)) && text(8, 4) === "WAVE") {
      let place = 12;
      while (text(place, 4) !== "fmt ") place += 8 + view.getUint32(place + 4, true) + (view.getUint32(place + 4, true) % 2);
      return view.getUint32(place + 12, true);
    }
    if (text(0, 4) === "fLaC") return view.getUint32(18) >>> 12;
    if (text(0, 4) === "OggS") {
      const packet = 27 + view.getUint8(26);
      if (text(packet, 8) === "OpusHead") return USUAL_RATE;
      if (text(packet + 1, 6) === "vorbis") return view.getUint32(packet + 12, true);
      if (text(packet + 1, 4) === "FLAC") return view.getUint32(packet + 27) >>> 12;
      return null;
    }
    if (text(4, 4) === "ftyp") return mp4Rate(view, text);
    return mpegRate(view, text(0, 3) === "ID3" ? id3Size(bytes) : 0);
  } catch {
    return null; // truncated within its header
  }
}

function id3Size(bytes: Uint8Array): number {
  return 10 + bytes.subarray(6, 10).reduce((size, byte) => size * 128 + byte, 0);
}

/** The rate of a frame of MPEG audio: mp3, or aac without a container, whose layer is 0. */
function mpegRate(view: DataView, place: number): number | null {
  const header = view.getUint32(place);
  const [version, layer, index] = [(header >>> 19) & 3, (header >>> 17) & 3, (header >>> 10) & 3];
  if (header >>> 20 === 0xfff && layer === 0) return AAC_RATES[(header >>> 10) & 15] ?? null;
  if (header >>> 21 !== 0x7ff || version === 1 || layer === 0 || index === 3) return null;
  return [44_100, 48_000, 32_000][index]! / ({ 3: 1, 2: 2, 0: 4 } as Record<number, number>)[version]!;
}

/** The rate of the first aac track, from its table of sample descriptions. */
function mp4Rate(view: DataView, text: (place: number, length: number) => string): number | null {
  for (let place = 8; place < view.byteLength - 46; place++) {
    if (view.getUint32(place) === STSD && text(place + 16, 4) === "mp4a") return view.getUint16(place + 44) || null;
  }
  return null;
}

/** Write samples as a 32-bit float wav file. */
export function toWav(samples: Float32Array, rate: number): Blob {
  const header = new DataView(new ArrayBuffer(44));
  const text = (place: number, word: string) => [...word].forEach((letter, index) => header.setUint8(place + index, letter.charCodeAt(0)));
  const size = 4 * samples.length;
  text(0, "RIFF");
  header.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 3, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 4 * rate, true);
  header.setUint16(32, 4, true);
  header.setUint16(34, 32, true);
  text(36, "data");
  header.setUint32(40, size, true);
  return new Blob([header, samples as Float32Array<ArrayBuffer>], { type: "audio/wav" });
}

/** The large files of the page: loaded once, unpacked, checked against their digest, and kept for later visits. */

import { decompress } from "brotli/decompress.js";

/** A packed file beside the page, and what it unpacks to. */
export interface PackedFile {
  /** Its name; the ending `.brotli` or `.gzip` says how it is packed. */
  readonly file: string;
  /** Its size, and the size of what it unpacks to. */
  readonly packed_bytes: number;
  readonly bytes: number;
  /** SHA-256 of what it unpacks to. */
  readonly sha256: string;
}

/** A file that could not be loaded: no network, or not on the server. */
export class LoadError extends Error {}

/** A file that is not the one the page was made with. */
export class DamageError extends Error {}

/**
 * Load files, from the cache if they are there.
 *
 * @param base address of the page.
 * @param files what to load, by use.
 * @param progress called with the share loaded, from 0 to 1.
 */
export async function loadPacked<Name extends string>(
  base: string,
  files: Readonly<Record<Name, PackedFile>>,
  progress: (share: number) => void,
): Promise<Record<Name, Uint8Array>> {
  const cache = await openCache(base);
  const entries = Object.entries(files) as [Name, PackedFile][];
  const total = entries.reduce((sum, [, file]) => sum + file.packed_bytes, 0);
  const loaded = new Map<Name, number>();
  const report = (name: Name, bytes: number) => {
    loaded.set(name, bytes);
    progress([...loaded.values()].reduce((sum, value) => sum + value, 0) / total);
  };
  // Wait for all of them: if one fails, the others need no second download.
  const settled = await Promise.allSettled(
    entries.map(async ([name, file]): Promise<[Name, Uint8Array]> => {
      const key = keyOf(base, file);
      const kept = await cache?.match(key);
      if (kept) {
        const content = new Uint8Array(await kept.arrayBuffer());
        if (await isWhole(content, file)) {
          report(name, file.packed_bytes);
          return [name, content];
        }
        await cache?.delete(key);
      }
      const packed = await fetchAll(new URL(file.file, base), (bytes) => report(name, bytes));
      const content = await unpack(packed, file);
      // A full disk only costs the next visit a download.
      await cache?.put(key, new Response(content as Uint8Array<ArrayBuffer>)).catch(() => undefined);
      return [name, content];
    }),
  );
  const contents = settled.map((one) => {
    if (one.status === "rejected") throw one.reason;
    return one.value;
  });
  await forgetOthers(cache, entries.map(([, file]) => keyOf(base, file)));
  return Object.fromEntries(contents) as Record<Name, Uint8Array>;
}

async function openCache(base: string): Promise<Cache | undefined> {
  try {
    return await caches.open(`bccmt packed ${base}`);
  } catch {
    return undefined; // no secure context, or storage is forbidden
  }
}

function keyOf(base: string, file: PackedFile): string {
  return new URL(`unpacked/${file.sha256}`, base).href;
}

async function forgetOthers(cache: Cache | undefined, keys: readonly string[]): Promise<void> {
  for (const request of (await cache?.keys()) ?? []) {
    if (!keys.includes(request.url)) await cache!.delete(request);
  }
}

async function fetchAll(address: URL, progress: (bytes: number) => void): Promise<Uint8Array> {
  const name = address.pathname.split("/").pop();
  try {
    // The browser's own cache would store it twice, and keep a damaged copy for long.
    const response = await fetch(address, { cache: "no-store" });
    if (!response.ok) throw new LoadError(`The server has no ${name} (${response.status}).`);
    const reader = response.body!.getReader();
    const blocks: Uint8Array[] = [];
    let size = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      blocks.push(part.value);
      progress((size += part.value.length));
    }
    const content = new Uint8Array(size);
    blocks.reduce((place, block) => (content.set(block, place), place + block.length), 0);
    return content;
  } catch (error) {
    if (error instanceof LoadError) throw error;
    throw new LoadError(`The network was lost while ${name} was loading.`);
  }
}

async function unpack(packed: Uint8Array, file: PackedFile): Promise<Uint8Array> {
  let content = packed;
  // If the server has unpacked it already, it has its full size.
  if (packed.length !== file.bytes) {
    try {
      content = file.file.endsWith(".brotli") ? decompress(packed, file.bytes) : await gunzip(packed);
    } catch {
      content = new Uint8Array(0);
    }
  }
  if (!(await isWhole(content, file))) {
    throw new DamageError(`${file.file} is damaged: it is not the file that this page was made with.`);
  }
  return content;
}

async function gunzip(packed: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([packed as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function isWhole(content: Uint8Array, file: PackedFile): Promise<boolean> {
  if (content.length !== file.bytes) return false;
  if (!globalThis.crypto?.subtle) return true; // no secure context: the size has to do
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content as Uint8Array<ArrayBuffer>));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}

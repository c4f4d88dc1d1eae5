/** Voiceprints in this browser: enrolled speakers by name, in IndexedDB. They are not sent anywhere. */

import type { Speaker, Utterance } from "../library/index.js";
import { checkName } from "./names.js";

const DATABASE = "bccmt-voiceprints";
const STORE = "utterances";
const FORMAT = "speechbrain_bccmt voiceprints";
const VERSION = 1;

/** Why prints cannot be read or stored, in words for the user. */
export class PrintsError extends Error {}

/** An utterance as it is stored. */
interface Row {
  readonly id?: number;
  readonly model: string;
  readonly name: string;
  readonly embedding: Float32Array;
  readonly seconds: number;
  readonly speechSeconds: number;
  readonly bandwidth?: number | null;
  readonly enrolled: string;
}

/** Prints of one model; those of other models are kept and left alone. */
export class Prints {
  private constructor(
    private readonly database: IDBDatabase,
    private readonly model: string,
    private readonly size: number,
    private readonly channel: BroadcastChannel,
  ) {}

  /**
   * Open the prints.
   *
   * @param model fingerprint of the model.
   * @param size of its embeddings.
   * @param onChange called when another tab has written.
   */
  static async open(model: string, size: number, onChange: () => void): Promise<Prints> {
    let request: IDBOpenDBRequest;
    try {
      request = indexedDB.open(DATABASE, VERSION);
    } catch (error) {
      throw explain(error as DOMException);
    }
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
      store.createIndex("speaker", ["model", "name"]);
      store.createIndex("model", "model");
    };
    const database = await done(request);
    // Another tab may have a newer page, which changes the store.
    database.onversionchange = () => database.close();
    const channel = new BroadcastChannel(DATABASE);
    channel.onmessage = onChange;
    return new Prints(database, model, size, channel);
  }

  /** All speakers of this model, by name. */
  async speakers(): Promise<Speaker[]> {
    const rows = await done<Row[]>(this.store("readonly").index("model").getAll(this.model));
    const speakers = new Map<string, Utterance[]>();
    for (const row of rows) {
      speakers.set(row.name, [...(speakers.get(row.name) ?? []), { ...row, warnings: [] }]);
    }
    return [...speakers]
      .map(([name, utterances]) => ({ name, utterances }))
      .sort((one, other) => one.name.localeCompare(other.name));
  }

  /** How many utterances of other models there are. */
  async others(): Promise<number> {
    const store = this.store("readonly");
    return (await done(store.count())) - (await done(store.index("model").count(this.model)));
  }

  /** Add utterances to speakers, all or none, except those a name already has; return how many are new. */
  async add(speakers: readonly Speaker[]): Promise<number> {
    // An enrolled voice should be kept; a browser may ask the user, or refuse, and deletes it only on a full disk.
    navigator.storage?.persist?.().catch(() => undefined);
    const store = this.store("readwrite");
    const finished = completion(store.transaction);
    finished.catch(() => undefined); // awaited below; until then a failure must not count as unhandled
    let added = 0;
    for (const { name, utterances } of speakers) {
      const have = await done<Row[]>(store.index("speaker").getAll([this.model, name]));
      for (const { embedding, seconds, speechSeconds, bandwidth } of utterances) {
        if (have.some((row) => row.embedding.every((value, index) => value === embedding[index]))) continue;
        const enrolled = new Date().toISOString();
        const row: Row = { model: this.model, name, embedding, seconds, speechSeconds, bandwidth: bandwidth ?? null, enrolled };
        have.push(row);
        store.add(row);
        added++;
      }
    }
    await finished;
    this.channel.postMessage(null);
    return added;
  }

  /** Delete a speaker, or everything, other models included, if no name is given. */
  async remove(name?: string): Promise<void> {
    const store = this.store("readwrite");
    const finished = completion(store.transaction);
    if (name === undefined) {
      store.clear();
    } else {
      const keys = await done(store.index("speaker").getAllKeys([this.model, name]));
      keys.forEach((key) => store.delete(key));
    }
    await finished;
    this.channel.postMessage(null);
  }

  /** All speakers of this model as JSON, to keep or to move to another browser. */
  async export(): Promise<string> {
    const speakers = (await this.speakers()).map(({ name, utterances }) => ({
      name,
      utterances: utterances.map(({ embedding, seconds, speechSeconds, bandwidth }) => ({
        embedding: [...embedding],
        seconds,
        speech_seconds: speechSeconds,
        bandwidth: bandwidth ?? null,
      })),
    }));
    return JSON.stringify({ format: FORMAT, version: VERSION, model: this.model, speakers });
  }

  /** Add what `export` wrote, all or nothing; return how many utterances are new. */
  async import(text: string): Promise<number> {
    return this.add(readExport(text, this.model, this.size));
  }

  private store(mode: IDBTransactionMode): IDBObjectStore {
    try {
      return this.database.transaction(STORE, mode, { durability: "strict" }).objectStore(STORE);
    } catch {
      throw new PrintsError("The voiceprints were changed by a newer page in another tab. Load this page again.");
    }
  }
}

/** Read an exported file of voiceprints, or throw a PrintsError. */
export function readExport(text: string, model: string, size: number): Speaker[] {
  let content: { format?: unknown; version?: unknown; model?: unknown; speakers?: unknown };
  try {
    content = JSON.parse(text);
  } catch {
    content = {};
  }
  if (content?.format !== FORMAT || !Array.isArray(content.speakers)) {
    throw new PrintsError("This file holds no voiceprints that this page has exported.");
  }
  if (content.version !== VERSION) throw new PrintsError("These voiceprints are of a newer page. Load this page again.");
  if (content.model !== model) {
    throw new PrintsError("These voiceprints are of another model: embeddings of different models cannot be compared.");
  }
  try {
    return content.speakers.map(({ name, utterances }) => ({
      name: checkName(name),
      utterances: utterances.map((utterance: Record<string, unknown>): Utterance => {
        const embedding = Float32Array.from(utterance.embedding as number[]);
        const numbers = [utterance.seconds, utterance.speech_seconds] as number[];
        const usable = embedding.length === size && embedding.some(Boolean) && embedding.every(Number.isFinite);
        if (!usable || !numbers.every((value) => Number.isFinite(value) && value >= 0)) throw new Error();
        const [seconds, speechSeconds] = numbers as [number, number];
        const bandwidth = (utterance.bandwidth ?? null) as number | null;
        if (bandwidth !== null && !(Number.isFinite(bandwidth) && bandwidth > 0)) throw new Error();
        return { embedding, seconds, speechSeconds, bandwidth, warnings: [] };
      }),
    }));
  } catch {
    throw new PrintsError("This file of voiceprints is damaged. Nothing was added.");
  }
}

function done<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(explain(request.error));
  });
}

function completion(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(explain(transaction.error));
  });
}

function explain(error: DOMException | null): PrintsError {
  if (error?.name === "QuotaExceededError") {
    return new PrintsError(
      "There is no room left for voiceprints in this browser. Nothing was stored, and what was enrolled before is kept. " +
        "Free some space on the device, and try again.",
    );
  }
  return new PrintsError(
    `The voiceprints cannot be reached (${error?.message || "unknown reason"}). A private window may forbid to store them.`,
  );
}

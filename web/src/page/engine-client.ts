/** The page's side of the engine. */

import type { Attention, Utterance } from "../library/index.js";
import type { Answer, Clip, Heard, Order, PageConfig } from "./protocol.js";

/** An error that the engine reports; `kind` is "load", "damage", "no speech" or empty. */
export class EngineError extends Error {
  constructor(
    message: string,
    readonly kind: string,
  ) {
    super(message);
  }
}

/** Starts the engine and sends it orders. */
export class Engine {
  private readonly worker = new Worker("engine.js", { type: "module" });
  private readonly waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
  private count = 0;
  private failed: Error | null = null;

  onProgress: (share: number) => void = () => undefined;
  onHeard: (heard: Heard) => void = () => undefined;
  onSoFar: (utterance: Utterance) => void = () => undefined;

  constructor() {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => this.take(data));
    this.worker.addEventListener("error", () => this.fail(new EngineError("The engine of the page stopped.", "load")));
  }

  load(config: PageConfig, calibration: unknown): Promise<null> {
    return this.send({ order: "load", base: new URL(".", location.href).href, config, calibration });
  }

  /** Embed a decoded file. */
  analyse(channels: readonly Float32Array[], rate: number): Promise<Clip> {
    return this.send({ order: "analyse", channels, rate });
  }

  /** Compute the model's attention over samples at its rate. */
  attend(samples: Float32Array): Promise<Attention> {
    return this.send({ order: "attend", samples });
  }

  /** Start listening to a stream; `live`: keep reporting the utterance so far. */
  listen(rate: number, live: boolean): Promise<null> {
    return this.send({ order: "listen", rate, live });
  }

  hear(block: Float32Array): void {
    this.send({ order: "hear", block }).catch((error: Error) => console.error(error));
  }

  finish(): Promise<Clip> {
    return this.send({ order: "finish" });
  }

  /** Stop the engine for good. */
  close(): void {
    this.worker.terminate();
  }

  private send<Result>(order: Order): Promise<Result> {
    const number = this.count++;
    if (this.failed) return Promise.reject(this.failed);
    return new Promise<Result>((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ ...order, number });
    });
  }

  private take(answer: Answer): void {
    if ("progress" in answer) return this.onProgress(answer.progress);
    if ("heard" in answer) return this.onHeard(answer.heard);
    if ("soFar" in answer) return this.onSoFar(answer.soFar);
    const waiting = this.waiting.get(answer.number);
    this.waiting.delete(answer.number);
    if ("error" in answer) waiting?.reject(new EngineError(answer.error, answer.kind));
    else waiting?.resolve(answer.result as never);
  }

  private fail(error: Error): void {
    this.failed = error;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

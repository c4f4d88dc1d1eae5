/** The engine: a worker that holds the model and the listener, which keeps the page responsive. */

import { createModel, resample, type SpeakerModel } from "../library/index.js";
import { mixDown } from "../library/waveform.js";
import { Listener, NoSpeechError } from "./listener.js";
import { DamageError, LoadError, loadPacked } from "./packed.js";
import type { Answer, Clip, Numbered, Order } from "./protocol.js";

let model: SpeakerModel;
let listener: Listener;
// Orders are carried out one after the other: the runtime takes one at a time, and blocks must keep their order.
let queue: Promise<void> = Promise.resolve();

self.addEventListener("message", ({ data }: MessageEvent<Numbered>) => {
  queue = queue.then(async () => {
    try {
      tell({ number: data.number, result: await carryOut(data) });
    } catch (error) {
      tell({ number: data.number, error: (error as Error).message, kind: kindOf(error) });
    }
  });
});

async function carryOut(order: Order): Promise<unknown> {
  switch (order.order) {
    case "load":
      return load(order);
    case "analyse":
      return analyse(order.channels, order.rate);
    case "attend":
      return model.attend(order.samples, model.config.sample_rate);
    case "listen":
      listener = new Listener(model, order.rate, order.live);
      return null;
    case "hear": {
      tell({ heard: await listener.hear(order.block) });
      const soFar = await listener.soFar();
      if (soFar) tell({ soFar });
      return null;
    }
    case "finish":
      return listener.finish();
  }
}

async function load({ base, config, calibration }: Extract<Order, { order: "load" }>): Promise<null> {
  const files = await loadPacked(base, config.packed, (progress) => tell({ progress }));
  try {
    const { model: graph, speech, runtime } = files;
    model = await createModel({ config, calibration, graph, speech, runtime });
  } catch (error) {
    throw new DamageError(`The model cannot be used: ${(error as Error).message}`);
  }
  return null;
}

/** Embed a decoded file. */
async function analyse(channels: readonly Float32Array[], rate: number): Promise<Clip> {
  const utterance = await model.embed(channels, rate);
  return { utterance, samples: resample(mixDown(channels).mono, rate, model.config.sample_rate) };
}

function kindOf(error: unknown): string {
  if (error instanceof LoadError) return "load";
  if (error instanceof DamageError) return "damage";
  return error instanceof NoSpeechError ? "no speech" : "";
}

function tell(answer: Answer): void {
  self.postMessage(answer);
}

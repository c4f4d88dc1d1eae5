/** Runs in the audio thread: gathers the microphone's samples into blocks of about 50 ms. */

declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, processor: unknown): void;

const BLOCK = 2048;

class Recorder extends AudioWorkletProcessor {
  private block = new Float32Array(BLOCK);
  private filled = 0;
  private stopped = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.port.postMessage(this.block.slice(0, this.filled));
      this.port.postMessage(null);
      this.stopped = true;
    };
  }

  process([input]: Float32Array[][]): boolean {
    const samples = input?.[0];
    for (let taken = 0; samples && taken < samples.length && !this.stopped; ) {
      const part = samples.subarray(taken, taken + BLOCK - this.filled);
      this.block.set(part, this.filled);
      this.filled += part.length;
      taken += part.length;
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block);
        this.block = new Float32Array(BLOCK);
        this.filled = 0;
      }
    }
    return !this.stopped;
  }
}

registerProcessor("recorder", Recorder);

/** Listens to the microphone: reports the speech so far, and at the end the utterance. */

import { Resampler, type SpeakerModel, type Utterance } from "../library/index.js";
import { concatenate } from "../library/resample.js";
import { levelGain, SPEECH_BEGINS, SPEECH_FRAME, SPEECH_RATE, type SpeechStream } from "../library/speech.js";
import type { Clip, Heard } from "./protocol.js";

/** While listening: seconds of new speech after which to embed again, and the most seconds to embed. */
const LIVE_STEP = 1;
const LIVE_LONGEST = 10;

/** No speech was found in a recording from the microphone. */
export class NoSpeechError extends Error {}

/** Listens to one stream. */
export class Listener {
  private readonly toModel: Resampler;
  private readonly toSpeech: Resampler;
  private readonly speech: SpeechStream;
  private readonly blocks: Float32Array[] = [];
  private speechFrames = 0;
  private embeddedSpeech = 0;
  private length = 0;
  /** The gain that brings the loudest part so far to the working level of voice activity detection. */
  private gain = Infinity;

  constructor(
    private readonly model: SpeakerModel,
    rate: number,
    private readonly live: boolean,
  ) {
    this.toModel = new Resampler(rate, model.config.sample_rate);
    this.toSpeech = new Resampler(rate, SPEECH_RATE);
    this.speech = model.detector!.listen();
  }

  /** Take the next samples, one channel at the stream's rate. */
  async hear(block: Float32Array): Promise<Heard> {
    this.keep(this.toModel.push(block));
    const heard = this.toSpeech.push(block);
    this.gain = Math.min(this.gain, levelGain(heard, SPEECH_RATE) || Infinity);
    const gain = Number.isFinite(this.gain) ? this.gain : 0;
    const probabilities = await this.speech.push(heard.map((value) => value * gain));
    this.speechFrames += probabilities.filter((probability) => probability >= SPEECH_BEGINS).length;
    const power = block.reduce((sum, value) => sum + value * value, 0) / (block.length || 1);
    return {
      seconds: this.length / this.model.config.sample_rate,
      speechSeconds: this.speechSeconds,
      level: 10 * Math.log10(power + 1e-10),
    };
  }

  /** Embed the latest seconds if there is enough new speech; else return null. */
  async soFar(): Promise<Utterance | null> {
    if (!this.live || this.speechSeconds < this.embeddedSpeech + LIVE_STEP) return null;
    this.embeddedSpeech = this.speechSeconds;
    const { sample_rate: rate } = this.model.config;
    return this.model.embed(concatenate(this.blocks).slice(-LIVE_LONGEST * rate), rate);
  }

  /** End the stream and embed it. */
  async finish(): Promise<Clip> {
    this.keep(this.toModel.finish());
    const samples = concatenate(this.blocks);
    const { sample_rate: rate, min_seconds: shortest } = this.model.config;
    if (samples.length < shortest * rate) throw new NoSpeechError("no speech");
    const utterance = await this.model.embed(samples, rate);
    if (!utterance.speechSeconds) throw new NoSpeechError("no speech");
    return { utterance, samples };
  }

  /** Less than is kept at the end, which includes pauses and margins. */
  private get speechSeconds(): number {
    return (this.speechFrames * SPEECH_FRAME) / SPEECH_RATE;
  }

  private keep(block: Float32Array): void {
    this.blocks.push(block);
    this.length += block.length;
  }
}

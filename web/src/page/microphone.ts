/** The microphone: opened when the user records, closed when they stop. */

/** The microphone cannot be used; the message says why, and what to do. */
export class MicrophoneError extends Error {}

const REASONS: Readonly<Record<string, string>> = {
  NotAllowedError:
    "The microphone was refused. Allow it for this page, by the sign beside the address or in the browser's settings, " +
    "and press Record again. Recordings can be chosen as files without it.",
  NotFoundError: "There is no microphone. Plug one in and press Record again, or choose a recording as a file.",
  NotReadableError: "The microphone is in use by another program. Close that, and press Record again.",
};

/** Without any audio device some browsers wait for one forever. */
const PATIENCE_MS = 5000;

/** A running recording. */
export interface Recording {
  readonly rate: number;
  /** Begin to hand over samples. */
  start(onBlock: (block: Float32Array) => void): void;
  /** Hand over the last samples, and close the microphone. */
  stop(): Promise<void>;
}

/** Open the microphone with nothing on that changes the voice: neither noise suppression nor gain control. */
export async function openMicrophone(onLost: () => void): Promise<Recording> {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new MicrophoneError(
      "This page may not use the microphone, since it did not come by https or from this machine. " +
        "Recordings can be chosen as files.",
    );
  }
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    const { name, message } = error as DOMException;
    throw new MicrophoneError(REASONS[name] ?? `The microphone cannot be used: ${message}.`);
  }
  const context = new AudioContext();
  const close = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  try {
    await context.audioWorklet.addModule("recorder.js");
    await Promise.race([context.resume(), givingUp()]);
  } catch (error) {
    await close();
    throw new MicrophoneError(`The microphone cannot be used: ${(error as Error).message}.`);
  }
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  stream.getAudioTracks()[0]?.addEventListener("ended", onLost);
  return {
    rate: context.sampleRate,
    start(onBlock) {
      recorder.port.onmessage = ({ data }: MessageEvent<Float32Array | null>) => data && onBlock(data);
      context.createMediaStreamSource(stream).connect(recorder);
    },
    async stop() {
      const { onmessage } = recorder.port;
      await new Promise<void>((resolve) => {
        recorder.port.onmessage = (event) => (event.data === null ? resolve() : onmessage?.call(recorder.port, event));
        recorder.port.postMessage("stop");
      });
      await close();
    },
  };
}

function givingUp(): Promise<never> {
  const problem = new Error("the browser's sound does not start, perhaps since no speaker or headphone is connected");
  return new Promise((_, reject) => setTimeout(() => reject(problem), PATIENCE_MS));
}

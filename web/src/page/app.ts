/** The page: enrol, verify and identify speakers by recording or by file. */

// Not from the library's index, which brings the runtime: that runs only in the engine.
import { readCalibration, type QualityFusion } from "../library/calibration.js";
import { readOpenSet, type OpenSet } from "../library/open-set.js";
import { identify, verify, type Identification, type Speaker, type Utterance } from "../library/scoring.js";
import { drawAttention } from "./attention.js";
import { Engine, EngineError } from "./engine-client.js";
import { MicrophoneError, openMicrophone, type Recording } from "./microphone.js";
import { checkName } from "./names.js";
import { People, speechOf, summary } from "./people.js";
import { Prints } from "./prints.js";
import type { Clip, PageConfig } from "./protocol.js";
import { decode, toWav } from "./recordings.js";
import { cautions, describeSoFar, describeVerification, element, identified, message, verified } from "./results.js";
import { attempt, get, onFiles, sentence, setBusy, show } from "./screen.js";

type Task = "enrol" | "verify" | "identify";

const EXPLANATIONS: Readonly<Record<Task, string>> = {
  enrol: "Let the speaker talk for ten seconds or more, ideally over several recordings.",
  verify: "Let the speaker talk for three seconds or more. The result so far is shown meanwhile.",
  identify: "Let the speaker talk for three seconds or more. Everyone enrolled is compared.",
};
/** Seconds of speech that fill the progress bar, and below which a recording is not enrolled. */
const ENOUGH_SPEECH: Readonly<Record<Task, number>> = { enrol: 10, verify: 3, identify: 3 };
const LEAST_SPEECH = 0.5;
/** A recording stops by itself after this many seconds. */
const LONGEST = 60;

const nameField = get<HTMLInputElement>("name");
const whoField = get<HTMLSelectElement>("who");
const thresholdField = get<HTMLInputElement>("threshold");
const recordButton = get<HTMLButtonElement>("record");
const status = get("status");

let engine: Engine;
let config: PageConfig;
let calibration: QualityFusion | null = null;
let openSet: OpenSet | null = null;
let people: People;
let recording: Recording | null = null;
/** Samples of the last recording. */
let heard: Float32Array | null = null;

/** Load everything and say so; on failure, say why and offer to try again. */
async function start(): Promise<void> {
  get("again").hidden = true;
  const loading = get<HTMLProgressElement>("loading");
  loading.hidden = false;
  loading.value = 0;
  status.textContent = "Loading the model …";
  engine = new Engine();
  engine.onProgress = (share) => (loading.value = share);
  try {
    config = await fetchJson("config.json");
    const content: unknown = config.calibration === null ? null : await fetchJson(config.calibration);
    calibration = content === null ? null : readCalibration(content);
    openSet = config.open_set === null ? null : readOpenSet(await fetchJson(config.open_set));
    await engine.load(config, content);
    const prints = await Prints.open(config.fingerprint, config.embedding_size, () => void people.refresh());
    people = new People(prints);
    await people.refresh();
    people.listen();
  } catch (error) {
    status.textContent = `${sentence(error)} ${advice(error)}`;
    get("again").hidden = false;
    engine.close();
    return;
  } finally {
    loading.hidden = true;
  }
  get("main").hidden = false;
  status.textContent = `Ready, with the model ${config.name}.`;
  showTask();
  await keepForOffline();
}

async function fetchJson<Content>(name: string): Promise<Content> {
  let response: Response;
  try {
    response = await fetch(name, { cache: "no-cache" });
  } catch {
    throw new EngineError("The network was lost while the page was loading.", "load");
  }
  if (!response.ok) throw new EngineError(`The server has no ${name} (${response.status}).`, "load");
  try {
    return await response.json();
  } catch {
    throw new EngineError(`${name} is damaged: it is no JSON.`, "damage");
  }
}

function advice(error: unknown): string {
  const kind = error instanceof EngineError ? error.kind : "";
  if (kind === "load") return "Nothing is lost: try again when there is a network.";
  if (kind === "damage") return "Try again; if that does not help, the page has to be exported again.";
  return "";
}

async function keepForOffline(): Promise<void> {
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
    status.textContent = `Ready, with the model ${config.name}. From now on the page works without a network.`;
  } catch {
    // Private windows and plain http have no service worker; everything else works.
  }
}

// Tasks

function task(): Task {
  return document.querySelector<HTMLInputElement>("[name=task]:checked")!.value as Task;
}

function showTask(): void {
  get("explanation").textContent = EXPLANATIONS[task()];
  document.querySelectorAll<HTMLElement>("[data-task]").forEach((field) => (field.hidden = !field.dataset.task!.split(" ").includes(task())));
}

/** Heading for when the task fails. */
function failure(): string {
  return task() === "enrol" ? "Not enrolled" : "No decision";
}

/** Return what is missing before a clip can be used, or null. */
function obstacle(): string | null {
  if (task() === "enrol") {
    try {
      checkName(nameField.value);
      return null;
    } catch (error) {
      nameField.focus();
      return (error as Error).message;
    }
  }
  if (!thresholdField.validity.valid) {
    thresholdField.focus();
    return "The threshold is a score from -1 to 1. Leave it empty for the model's own.";
  }
  return people.speakers.length ? null : "Nobody is enrolled yet. Enrol a speaker first.";
}

/** The user's own threshold, if they entered one. */
function threshold(): number | undefined {
  return thresholdField.value === "" ? undefined : thresholdField.valueAsNumber;
}

/** Identify the speaker among those enrolled. */
function find(utterance: Utterance): Identification {
  return identify(people.speakers, utterance, calibration, openSet, threshold());
}

async function use(clips: readonly { clip: Clip; title: string }[]): Promise<void> {
  const last = clips.at(-1);
  if (!last) return;
  play(last.clip);
  if (task() === "enrol") return enrol(clips);
  if (task() === "identify") {
    return show(...clips.map(({ clip, title }) => identified(find(clip.utterance), clip, title)));
  }
  const { name, utterances } = chosen();
  const outcome = verify(utterances, clips.map(({ clip }) => clip.utterance), calibration, threshold());
  show(verified(name, outcome, together(clips.map(({ clip }) => clip)), calibration?.calibration.pTarget));
}

async function enrol(clips: readonly { clip: Clip; title: string }[]): Promise<void> {
  const name = checkName(nameField.value);
  const short = clips.find(({ clip }) => clip.utterance.speechSeconds < LEAST_SPEECH);
  if (short) {
    const where = short.title ? `“${short.title}”` : "The recording";
    const heard = `${where} has too little speech, ${short.clip.utterance.speechSeconds.toFixed(1)} s.`;
    return show(message("Not enrolled", `${heard} Speak for a few seconds. Nothing was stored.`, "bad"));
  }
  const added = await people.prints.add([{ name, utterances: clips.map(({ clip }) => clip.utterance) }]);
  await people.refresh();
  const speaker = people.find(name)!;
  const again = clips.length > added ? " It was already enrolled, and counts once." : "";
  const more = speechOf(speaker) < ENOUGH_SPEECH.enrol ? " More speech makes decisions more reliable." : "";
  show(
    element(
      "article",
      [
        element("h2", `✓ ${name} is enrolled`),
        element("p", `${summary(speaker)}.${again}${more}`),
        ...clips.flatMap(({ clip }) => cautions(clip)).map((text) => element("p", `⚠ ${text}`)),
      ],
      "good",
    ),
  );
}

/** Merge several clips of one side. */
function together(clips: readonly Clip[]): Clip {
  const [first] = clips as readonly [Clip];
  if (clips.length === 1) return first;
  const sum = (value: (clip: Clip) => number) => clips.reduce((total, clip) => total + value(clip), 0);
  const utterance = {
    ...first.utterance,
    seconds: sum((clip) => clip.utterance.seconds),
    speechSeconds: sum((clip) => clip.utterance.speechSeconds),
    aboveNoise: null,
    warnings: [...new Set(clips.flatMap((clip) => clip.utterance.warnings))],
  };
  return { ...first, utterance };
}

function chosen(): Speaker {
  return people.find(whoField.value) ?? people.speakers[0]!;
}

// Voice

async function record(): Promise<void> {
  const missing = obstacle();
  if (missing) return show(message("Not yet", missing));
  const asked = task();
  setBusy(true);
  try {
    recording = await openMicrophone(() => void stop());
    await engine.listen(recording.rate, asked !== "enrol");
  } catch (error) {
    await recording?.stop();
    recording = null;
    setBusy(false);
    const heading = error instanceof MicrophoneError ? "No microphone" : "Not recorded";
    return show(message(heading, sentence(error), "bad"));
  }
  show();
  get("listening").hidden = false;
  get("clip").hidden = get("attention").hidden = true;
  get("live").textContent = "";
  // A speaker's earlier recordings count as well.
  const before = asked === "enrol" ? speechOf(people.find(checkName(nameField.value))) : 0;
  const progress = get<HTMLProgressElement>("speech");
  progress.max = ENOUGH_SPEECH[asked];
  const meter = (level: number, speech: number) => {
    get<HTMLMeterElement>("level").value = level;
    progress.value = speech;
    get("seconds").textContent = `${speech.toFixed(1)} s`;
  };
  meter(get<HTMLMeterElement>("level").min, before);
  engine.onHeard = ({ seconds, speechSeconds, level }) => {
    meter(level, before + speechSeconds);
    if (seconds > LONGEST) void stop();
  };
  engine.onSoFar = (utterance) => (get("live").textContent = describeSoFar(utterance, guess(asked, utterance)));
  recordButton.textContent = "Stop";
  recordButton.classList.add("on");
  recordButton.disabled = false;
  recordButton.focus();
  recording.start((block) => engine.hear(block));
}

/** Describe the result so far. */
function guess(asked: Task, utterance: Utterance): string {
  if (asked === "identify") {
    const { speaker, candidates } = find(utterance);
    return `${speaker ?? "unknown"}; the nearest is ${candidates[0]!.name} at ${candidates[0]!.score.toFixed(3)}`;
  }
  const { name, utterances } = chosen();
  return describeVerification(name, verify(utterances, [utterance], calibration, threshold()), calibration?.calibration.pTarget);
}

async function stop(): Promise<void> {
  const stopping = recording;
  if (!stopping) return;
  recording = null;
  recordButton.disabled = true;
  await stopping.stop();
  get("listening").hidden = true;
  recordButton.textContent = "Record";
  recordButton.classList.remove("on");
  await attempt(failure(), async () => use([{ clip: await engine.finish(), title: "" }]));
  setBusy(false);
  recordButton.focus();
}

async function takeFiles(files: readonly File[]): Promise<void> {
  const missing = obstacle();
  if (missing) return show(message("Not yet", missing));
  if (recordButton.disabled || recording || !files.length) return;
  setBusy(true);
  show(message("Listening …", files.map(({ name }) => name).join(", ")));
  await attempt(failure(), async () => {
    const clips = [];
    for (const file of files) {
      try {
        const { channels, rate } = await decode(file);
        clips.push({ clip: await engine.analyse(channels, rate), title: file.name });
      } catch (error) {
        throw new Error(`“${file.name}” cannot be used: ${(error as Error).message}.`);
      }
    }
    await use(clips);
  });
  setBusy(false);
}

function play({ samples }: Clip): void {
  const clip = get<HTMLAudioElement>("clip");
  URL.revokeObjectURL(clip.src);
  clip.src = URL.createObjectURL(toWav(samples, config.sample_rate));
  clip.hidden = false;
  heard = samples;
  get("attention").hidden = !config.attention;
  get("picture").replaceChildren();
  if (get<HTMLDetailsElement>("attention").open) void picture();
}

/** Draw what the model attends to in the last recording, once. */
async function picture(): Promise<void> {
  const place = get("picture");
  const samples = heard;
  if (!samples || !config.attention || place.childElementCount) return;
  place.replaceChildren(element("p", "Drawing …", "hint"));
  try {
    const attention = await engine.attend(samples);
    // Another recording may have replaced it meanwhile.
    if (samples === heard) place.replaceChildren(...drawAttention(attention, config.attention, place.clientWidth));
  } catch (error) {
    place.replaceChildren(element("p", sentence(error)));
  }
}

// Wiring

get("again").addEventListener("click", () => void start());
get("task").addEventListener("change", (event) => {
  if ((event.target as HTMLElement).matches("[name=task]")) {
    showTask();
    show();
  }
});
get("task").addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  get("picture").replaceChildren();
  if (get<HTMLDetailsElement>("attention").open) void picture();
});
get("attention").addEventListener("toggle", () => void picture());
recordButton.addEventListener("click", () => void (recording ? stop() : record()));
onFiles("files", takeFiles);

// Anywhere on the page: a browser would open a file dropped elsewhere, and leave the page.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    get("drop").classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  if (!get("main").hidden) void takeFiles([...(event.dataTransfer?.files ?? [])]);
});

await start();

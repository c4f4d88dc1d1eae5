/** What the page says about a clip: decisions, rankings and warnings, as elements, so that no name is read as HTML. */

import type { Identification, Utterance, Verification } from "../library/index.js";
import type { Clip } from "./protocol.js";

/** In dB: a clip whose speech is less than this above the background is called noisy. */
const NOISY = 15;
/** Seconds of speech below which a decision is called uncertain. */
const SHORT = 1;
const SHOWN = 5;

/** Create an element from text or children. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  content: string | (Node | string)[] = [],
  className = "",
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  made.append(...(typeof content === "string" ? [content] : content));
  made.className = className;
  return made;
}

/** A message, such as an error, as its own result. */
export function message(heading: string, text: string, className = ""): HTMLElement {
  return element("article", [element("h2", heading), element("p", text)], className);
}

/** The decision on one speaker. */
export function verified(name: string, outcome: Verification, clip: Clip, prior: number | undefined): HTMLElement {
  const heading = outcome.same === null ? "No decision" : outcome.same ? "✓ Same speaker" : "✗ Different speakers";
  return element(
    "article",
    [
      element("h2", heading),
      element("p", describeVerification(name, outcome, prior)),
      ...notes(clip),
    ],
    outcome.same === null ? "" : outcome.same ? "good" : "bad",
  );
}

/** The identified speaker, with the ranking. */
export function identified(found: Identification, clip: Clip, title: string): HTMLElement {
  const heading = found.speaker ? `✓ ${found.speaker}` : found.threshold === null ? "No decision" : "✗ Unknown speaker";
  const limit = found.threshold === null ? "The model ships no threshold." : `Threshold ${found.threshold.toFixed(3)}.`;
  const rows = found.candidates
    .slice(0, SHOWN)
    .map(({ name, score }) => element("tr", [element("td", name), element("td", score.toFixed(3))]));
  const head = element("tr", ["Speaker", "Score"].map((text) => element("th", text)));
  head.querySelectorAll("th").forEach((cell) => (cell.scope = "col"));
  return element(
    "article",
    [
      element("h2", heading),
      element("p", title ? `${title}. ${limit}` : limit),
      element("table", [element("thead", [head]), element("tbody", rows)]),
      ...notes(clip),
    ],
    found.speaker ? "good" : "bad",
  );
}

/** One line on a verification. */
export function describeVerification(name: string, outcome: Verification, prior: number | undefined): string {
  const score = `Score ${outcome.score.toFixed(3)}`;
  if (outcome.threshold === null) return `${score}. The model ships no decision threshold.`;
  const limit = `${score}, threshold ${outcome.threshold.toFixed(3)}`;
  if (outcome.probability === null || prior === undefined) return `${limit}.`;
  return `${limit}. Probability that this is ${name}: ${percent(outcome.probability)} (${percent(prior)} before listening).`;
}

/** One line on an utterance that is still growing. */
export function describeSoFar(utterance: Utterance, text: string): string {
  return `After ${utterance.seconds.toFixed(0)} s: ${text}`;
}

/** A share as a percentage, never shown as a certainty. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value > 99.9) return "above 99.9 %";
  if (value < 0.1) return "below 0.1 %";
  return `${Number(value.toFixed(1))} %`;
}

/** What was heard, and what makes it uncertain. */
function notes(clip: Clip): HTMLElement[] {
  const { seconds, speechSeconds, aboveNoise } = clip.utterance;
  const heard = `${seconds.toFixed(1)} s, ${speechSeconds.toFixed(1)} s of it speech`;
  const noise = aboveNoise == null ? "" : `, ${Math.round(aboveNoise)} dB above the background`;
  return [element("p", `${heard}${noise}.`, "hint"), ...cautions(clip).map((text) => element("p", `⚠ ${text}`))];
}

/** Sentences on what makes a clip uncertain. */
export function cautions({ utterance }: Clip): string[] {
  const { speechSeconds, aboveNoise } = utterance;
  const found = utterance.warnings.map((text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`);
  if (speechSeconds < SHORT && speechSeconds > 0) {
    found.push("It has hardly any speech: the decision is uncertain.");
  }
  if (aboveNoise != null && aboveNoise < NOISY) found.push("It is noisy: a quieter place makes decisions more reliable.");
  return found;
}

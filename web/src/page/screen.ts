/** The elements of the page, and how results and errors are shown on it. */

import { EngineError } from "./engine-client.js";
import { message } from "./results.js";

/** The element with an id. */
export const get = <Kind extends HTMLElement>(id: string) => document.getElementById(id) as Kind;

/** Show results in place of the earlier ones. */
export function show(...articles: HTMLElement[]): void {
  get("result").replaceChildren(...articles);
}

/** An error as a sentence. */
export function sentence(error: unknown): string {
  if (error instanceof EngineError && error.kind === "no speech") {
    return "No speech was heard. Speak louder or nearer to the microphone, and check that it is the right one.";
  }
  const text = (error as Error).message;
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(capital) ? capital : `${capital}.`;
}

/** Do work that may fail; if it does, show the reason under a heading. */
export async function attempt(heading: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    show(message(heading, sentence(error), "bad"));
  }
}

/** Disable the controls while something is in progress. */
export function setBusy(value: boolean): void {
  for (const control of document.querySelectorAll<HTMLInputElement>("main button, main input, main select")) {
    if (!control.closest("dialog")) control.disabled = value;
  }
  get("result").setAttribute("aria-busy", String(value));
}

/** Hand over the files of an input and empty it, so that the same file can be chosen again. */
export function onFiles(id: string, take: (files: readonly File[]) => Promise<void>): void {
  const input = get<HTMLInputElement>(id);
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    input.value = "";
    void take(files);
  });
}

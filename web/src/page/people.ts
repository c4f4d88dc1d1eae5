/** The enrolled speakers: the list, its actions, and the fields that offer its names. */

import type { Speaker } from "../library/index.js";
import type { Prints } from "./prints.js";
import { element, message } from "./results.js";
import { attempt, get, onFiles, show } from "./screen.js";

/** The enrolled speakers, on the page and in the browser's storage. */
export class People {
  speakers: readonly Speaker[] = [];

  constructor(readonly prints: Prints) {}

  /** Listen to the buttons under the list. */
  listen(): void {
    onFiles("import", (files) => this.import(files));
    get("export").addEventListener("click", () => void this.export());
    get("clear").addEventListener("click", () => void this.remove());
  }

  /** Read and show the speakers. */
  async refresh(): Promise<void> {
    this.speakers = await this.prints.speakers();
    const who = get<HTMLSelectElement>("who");
    const selected = who.value;
    who.replaceChildren(...this.speakers.map(({ name }) => element("option", name)));
    if (this.find(selected)) who.value = selected;
    get("names").replaceChildren(...this.speakers.map(({ name }) => Object.assign(element("option"), { value: name })));
    const rows = this.speakers.map((speaker) => this.row(speaker));
    get("speakers").replaceChildren(...(rows.length ? rows : [element("li", "Nobody yet.", "hint")]));
    const others = await this.prints.others();
    get("others").hidden = !others;
    get("others").textContent = `${count(others, "recording")} enrolled with another model cannot be used with this one.`;
  }

  find(name: string): Speaker | undefined {
    return this.speakers.find((speaker) => speaker.name === name);
  }

  private row(speaker: Speaker): HTMLElement {
    const button = element("button", "Delete");
    button.type = "button";
    button.setAttribute("aria-label", `Delete ${speaker.name}`);
    button.addEventListener("click", () => void this.remove(speaker.name));
    return element("li", [element("span", [speaker.name, element("small", summary(speaker))]), button]);
  }

  /** Delete one speaker, or everybody if no name is given, once the user confirms. */
  private async remove(name?: string): Promise<void> {
    const dialog = get<HTMLDialogElement>("confirm");
    const whom = name ?? "everybody, including those enrolled with other models";
    get("question").textContent = `Delete the voiceprints of ${whom}? This cannot be undone.`;
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "yes") return;
    await this.change(async () => {
      await this.prints.remove(name);
      return message("Deleted", `${name ?? "Everybody"} is no longer enrolled.`);
    });
  }

  private async export(): Promise<void> {
    await this.change(async () => {
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([await this.prints.export()], { type: "application/json" }));
      link.download = "voiceprints.json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      return message("Exported", "The voiceprints are in your downloads. Keep the file as you would a password.");
    });
  }

  private async import([file]: readonly File[]): Promise<void> {
    if (!file) return;
    await this.change(async () => {
      const added = await this.prints.import(await file.text());
      return message("Imported", `${count(added, "new recording")}.`);
    });
  }

  /** Change the prints, show them, and say what was done. */
  private async change(work: () => Promise<HTMLElement>): Promise<void> {
    await attempt("Not done", async () => {
      const done = await work();
      await this.refresh();
      show(done);
    });
    get("result").focus();
  }
}

/** How much speech of a speaker is enrolled, in words. */
export function summary(speaker: Speaker): string {
  return `${count(speaker.utterances.length, "recording")}, ${speechOf(speaker).toFixed(1)} s of speech`;
}

/** Seconds of speech enrolled for a speaker. */
export function speechOf(speaker: Speaker | undefined): number {
  return speaker?.utterances.reduce((sum, { speechSeconds }) => sum + speechSeconds, 0) ?? 0;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

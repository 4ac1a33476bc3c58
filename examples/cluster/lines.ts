import { appendFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Appends numbered lines to a log in each folder, `rate` per second and log, until it is stopped. */
export const writeLines = (folders: readonly string[], rate: number) => {
  const began = performance.now();
  let written = 0;
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * rate);
    for (const [log, folder] of folders.entries()) {
      let text = '';
      for (let n = written; n < due; n++) text += `${log} ${n} a line of some length, as logs have them\n`;
      appendFileSync(join(folder, 'app.log'), text);
    }
    written = due;
  }, 100);
  return {
    /** Lines so far, in each log. */
    written: () => written,
    stop: () => clearInterval(timer),
  };
};

export interface Balance {
  readonly written: number;
  readonly collected: number;
  readonly lost: number;
  readonly duplicates: number;
}

/** Compares what was written to so many logs with what is in the files of these folders. */
export const balanceOf = (logs: number, lines: number, folders: readonly string[]): Balance => {
  const seen = new Set<string>();
  let collected = 0;
  for (const folder of folders) {
    for (const name of readdirSync(folder).filter(name => !name.startsWith('.'))) {
      // What is behind the last newline is being written.
      for (const line of readFileSync(join(folder, name), 'latin1').split('\n').slice(0, -1)) {
        seen.add(/^\d+ \d+/.exec(line)?.[0] ?? line);
        collected++;
      }
    }
  }
  const written = logs * lines;
  return { written, collected, lost: written - seen.size, duplicates: collected - seen.size };
};

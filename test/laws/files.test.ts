import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { event } from '../../src/core/event.ts';
import { fileRollSink } from '../../src/sinks/file-roll.ts';
import { sinkLaws, type SinkTuning } from '../../src/testing/index.ts';

/** A file per batch, in a directory that goes away while the destination is to fail. */
const fileRoll = (tuning: SinkTuning) => {
  const home = mkdtempSync(join(tmpdir(), 'millrace-laws-'));
  const directory = join(home, 'here');
  const away = join(home, 'away');
  mkdirSync(directory);
  let up = true;
  const number = (name: string) => Number(name.slice(name.indexOf('-') + 1));
  return {
    sink: fileRollSink({ directory, rollSize: 1, ...tuning }),
    written() {
      const place = up ? directory : away;
      const names = readdirSync(place).sort((a, b) => number(a) - number(b));
      const lines = names.flatMap(name => readFileSync(join(place, name), 'utf8').split('\n').slice(0, -1));
      return lines.map(line => ({ body: event(line).body }));
    },
    switch(state: boolean) {
      if (state === up) return;
      up = state;
      renameSync(up ? away : directory, up ? directory : away);
    },
    close: () => rmSync(home, { recursive: true }),
  };
};

// More runs than usual: a file is written so quickly that a full window is rarely seen.
const spec = { name: 'file_roll', make: fileRoll, clock: 'real', bodies: 'lines', headers: false, runs: 50 } as const;

describe('file_roll', () => {
  for (const law of sinkLaws(spec)) test.concurrent(law.name, () => law.run());
});

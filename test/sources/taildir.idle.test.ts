/** What tailing does with files that have long been silent. */
import { appendFileSync, writeFileSync } from 'node:fs';
import { expect, it, vi } from 'vitest';
import { FakeClock } from '../../src/testing/index.ts';
import { at, Tail } from './tailing/tail.ts';

const opened = vi.hoisted((): string[] => []);

vi.mock(import('node:fs/promises'), async original => {
  const fs = await original();
  const open: typeof fs.open = (path, ...rest) => {
    opened.push(String(path));
    return fs.open(path, ...rest);
  };
  return { ...fs, open };
});

it('files that were read to their end are not opened again for having been silent for idleTimeout', async () => {
  const names = Array.from({ length: 20 }, (_, i) => at(`${i}.log`));
  for (const name of names) writeFileSync(name, name === at('0.log') ? `${name}\nno newline` : `${name}\n`);
  const clock = new FakeClock();
  const tail = new Tail({ maxOpenFiles: 3, idleTimeout: 1000 }, undefined, clock);
  const last = async (count: number, ms: number) => {
    while (tail.events.length < count) await clock.advance(ms);
    return tail.lines.at(-1);
  };
  await last(20, 0);
  opened.length = 0;
  expect(await last(21, 500)).toBe('no newline');
  appendFileSync(at('3.log'), 'later\n');
  expect(await last(22, 500)).toBe('later');
  const logs = opened.filter(path => path.endsWith('.log'));
  // The one with half a line, and the one that has grown; one of the three that were open may have lost its place to them.
  expect(logs).toContain(at('0.log'));
  expect(logs.length).toBeLessThanOrEqual(5);
});

/** T21: tailing when the system tells nothing of what happens in a directory, or says that it cannot. */
import { appendFileSync, copyFileSync, renameSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { at, dir, Tail } from './tailing/tail.ts';

const watching = vi.hoisted(() => ({ error: undefined as string | undefined }));

vi.mock('../../src/sources/tailing/watch.ts', () => ({
  watchDirectory: (_directory: string, _hint: unknown, onError: (cause: Error) => void) => {
    if (watching.error !== undefined) onError(Object.assign(new Error(watching.error), { code: watching.error }));
    return Promise.resolve({ close: () => Promise.resolve() });
  },
}));

const filegroups = () => ({ f: `${dir}/app\\.log.*` });
const text = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name} ${i}\n`).join('');

describe.each(['', 'ENOSPC', 'EMFILE'])('T21 tailing without hints %s', error => {
  beforeEach(() => {
    watching.error = error === '' ? undefined : error;
  });

  it('finds everything by looking, and says once why', async () => {
    const file = at('app.log');
    writeFileSync(file, text('a', 5));
    const tail = new Tail({ filegroups: filegroups(), pollInterval: 5 });
    await tail.until(5);
    appendFileSync(file, text('b', 5));
    await tail.until(10);
    renameSync(file, at('app.log.1'));
    writeFileSync(file, text('c', 5));
    await tail.until(15);
    copyFileSync(file, at('app.log.2'));
    truncateSync(file);
    appendFileSync(file, text('d', 7));
    await tail.until(22);
    writeFileSync(file, text('e', 7));
    await tail.until(29);
    unlinkSync(file);
    writeFileSync(file, text('f', 7));
    await tail.until(36);
    const lines = await tail.stop();
    expect(lines).toEqual(
      Object.entries({ a: 5, b: 5, c: 5, d: 7, e: 7, f: 7 }).flatMap(([name, count]) =>
        text(name, count).trimEnd().split('\n'),
      ),
    );
    expect(tail.said(/does not tell about changes .*Instead of that it is looked at every 5 ms/)).toBe(
      error === '' ? 0 : 1,
    );
  });
});

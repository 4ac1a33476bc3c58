import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDirectory, lockHolder } from '../../src/core/lock.ts';

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'millrace-lock-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

/** A process that takes the lock and keeps it. */
const holder = async () => {
  const script = `import('./src/core/lock.ts').then(m => m.lockDirectory(${JSON.stringify(dir)})).then(() => { console.log('has it'); setInterval(() => {}, 1000); })`;
  const child = spawn(process.execPath, ['--import', 'tsx', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
};

describe('the lock of a directory', () => {
  it('is held by one at a time', async () => {
    const unlock = await lockDirectory(dir);
    await expect(lockDirectory(dir)).rejects.toMatchObject({ code: 'MR_LOCKED', retriable: true });
    await unlock();
    expect(fs.readdirSync(dir)).toEqual([]);
    await (
      await lockDirectory(dir)
    )();
    expect(fs.readdirSync(dir)).toEqual([]);
  });

  // A pid says nothing there: only what is written into the file does.
  describe.each([
    ['another machine, or of another start of this one', { boot: 'another' }],
    ['another container', { space: 'pid:[1]' }],
  ])('that a process of %s has', (_, other) => {
    const path = () => join(dir, 'LOCK');
    beforeEach(async () => {
      const unlock = await lockDirectory(dir);
      const self = JSON.parse(fs.readFileSync(path(), 'utf8')) as object;
      await unlock();
      fs.writeFileSync(path(), JSON.stringify({ ...self, pid: 7, host: 'far', ...other }));
    });

    it('is respected as long as it gives signs of life', async () => {
      const old = new Date(Date.now() - 60_000);
      fs.utimesSync(path(), old, old);
      const signs = setInterval(() => fs.utimesSync(path(), new Date(), new Date()), 20);
      // However long ago the last one was when somebody came to look.
      fs.utimesSync(path(), new Date(), new Date());
      const taken = lockDirectory(dir);
      await expect(taken).rejects.toMatchObject({ code: 'MR_LOCKED', retriable: true });
      await expect(taken).rejects.toThrow('process 7 on far');
      clearInterval(signs);
      expect(fs.readdirSync(dir)).toEqual(['LOCK']);
      expect(await lockHolder(dir)).toBe(7);
    });

    it.each([
      ['at once, when the last sign was long ago', 60_000, {}],
      ['after a while without any', 0, { silence: 50 }],
    ])('is taken over, and that is reported, %s', async (_, ago, options) => {
      const then = new Date(Date.now() - ago);
      fs.utimesSync(path(), then, then);
      const reports: string[] = [];
      const unlock = await lockDirectory(dir, { ...options, report: problem => void reports.push(problem.message) });
      expect(reports).toEqual([expect.stringMatching(/locked by process 7 on far.*taken over/)]);
      expect(await lockHolder(dir)).toBe(process.pid);
      await unlock();
      expect(fs.readdirSync(dir)).toEqual([]);
    });
  });

  it('gives signs of life, and tells when another one has it nevertheless', async () => {
    const path = join(dir, 'LOCK');
    let told!: (message: string) => void;
    const report = new Promise<string>(resolve => (told = resolve));
    const unlock = await lockDirectory(dir, { report: ({ message }) => told(message) });
    const first = fs.statSync(path).mtimeMs;
    while (fs.statSync(path).mtimeMs === first) await new Promise(resolve => setTimeout(resolve, 20));
    fs.renameSync(path, join(dir, 'aside'));
    fs.writeFileSync(path, 'theirs');
    expect(await report).toMatch(/LOCK was removed, or taken over by another process/);
    await unlock();
    expect(fs.readFileSync(path, 'utf8')).toBe('theirs');
  });

  it('ends with its process, however that ends', async () => {
    const child = await holder();
    await expect(lockDirectory(dir)).rejects.toThrow(`process ${child.pid}`);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(fs.existsSync(join(dir, 'LOCK'))).toBe(true);
    await (
      await lockDirectory(dir)
    )();
  });

  it('leaves nothing behind of processes that were killed while they took it', async () => {
    for (let i = 0; i < 3; i++) fs.writeFileSync(join(dir, `LOCK.${randomUUID()}`), i === 0 ? '' : 'half of it');
    fs.writeFileSync(join(dir, 'LOCK.mine'), 'of somebody else');
    const unlock = await lockDirectory(dir);
    expect(fs.readdirSync(dir).sort()).toEqual(['LOCK', 'LOCK.mine']);
    await unlock();
    expect(fs.readdirSync(dir)).toEqual(['LOCK.mine']);
  });

  it('is refused to one that was overtaken while it took it', async () => {
    const unlock = await lockDirectory(dir);
    const self = JSON.parse(fs.readFileSync(join(dir, 'LOCK'), 'utf8')) as object;
    await unlock();
    fs.writeFileSync(join(dir, 'LOCK'), JSON.stringify({ ...self, pid: 7, host: 'far', boot: 'another' }));
    const late = expect(lockDirectory(dir, { silence: 300 })).rejects.toMatchObject({ code: 'MR_LOCKED' });
    const drafts = () => fs.readdirSync(dir).filter(name => name !== 'LOCK');
    while (drafts().length === 0) await new Promise(setImmediate);
    // As the one does that was faster.
    fs.rmSync(join(dir, drafts()[0]!));
    await late;
    expect(fs.readdirSync(dir)).toEqual(['LOCK']);
  });

  it('is not kept by a process that has the same number by chance', async () => {
    const unlock = await lockDirectory(dir);
    const self = JSON.parse(fs.readFileSync(join(dir, 'LOCK'), 'utf8')) as object;
    await unlock();
    for (const other of [{ began: '1' }, { pid: 2 ** 22 + 1 }]) {
      fs.writeFileSync(join(dir, 'LOCK'), JSON.stringify({ ...self, ...other }));
      await (
        await lockDirectory(dir)
      )();
    }
    for (const text of ['', '{"pid":', '[]', 'null']) {
      fs.writeFileSync(join(dir, 'LOCK'), text);
      await (
        await lockDirectory(dir)
      )();
    }
    // The socket alone may not be seen, from another network namespace: then the file counts.
    fs.writeFileSync(join(dir, 'LOCK'), JSON.stringify(self));
    await expect(lockDirectory(dir)).rejects.toMatchObject({ code: 'MR_LOCKED' });
  });
});

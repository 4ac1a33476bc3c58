import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDirectory } from '../../src/core/lock.ts';

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

  it('is not kept by a process that has the same number by chance, nor by one of before the machine started', async () => {
    const unlock = await lockDirectory(dir);
    const self = JSON.parse(fs.readFileSync(join(dir, 'LOCK'), 'utf8')) as object;
    await unlock();
    for (const other of [{ began: '1' }, { boot: 'another' }, { pid: 2 ** 22 + 1 }]) {
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

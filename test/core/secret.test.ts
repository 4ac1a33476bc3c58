import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { secretAt, secretText } from '../../src/core/secret.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-secret-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

it('is read from a file, each time that it is asked for', async () => {
  const path = join(directory, 'pw');
  await writeFile(path, 'old\r\n');
  expect(secretAt(`file:${path}`)).toEqual(Buffer.from('old\r\n'));
  expect(secretText(`file:${path}`)).toBe('old');
  await writeFile(path, ' new pw ');
  expect(secretText(`file:${path}`)).toBe(' new pw ');
});

it('is read from the environment', () => {
  vi.stubEnv('MILLRACE_PW', 'pw');
  expect(secretText('env:MILLRACE_PW')).toBe('pw');
  vi.stubEnv('MILLRACE_PW', '');
  expect(secretText('env:MILLRACE_PW')).toBe('');
});

it('is what was given, if that is of no such form', () => {
  expect(secretText('pw:file:x')).toBe('pw:file:x');
  expect(secretAt('pw')).toBeUndefined();
});

it('is missed where it is not', () => {
  expect(() => secretText('env:MILLRACE_NO_SUCH')).toThrow('there is no environment variable MILLRACE_NO_SUCH');
  expect(() => secretText(`file:${directory}/none`)).toThrow('ENOENT');
});

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { built } from '../built.ts';

beforeAll(built);

test('the laws run under node:test, in ten lines', () => {
  const dir = mkdtempSync(join(import.meta.dirname, 'node-test-'));
  try {
    const file = join(dir, 'mine.test.mjs');
    writeFileSync(
      file,
      [
        `import test from 'node:test';`,
        `import { memoryChannel } from 'millrace';`,
        `import { channelLaws } from 'millrace/testing';`,
        ``,
        `const make = limits => memoryChannel.create({ ...limits, byteCapacityBufferPercentage: 0 });`,
        `for (const law of channelLaws({ name: 'mine', make })) test(law.name, () => law.run({ runs: 50 }));`,
      ].join('\n'),
    );
    const out = execFileSync(process.execPath, ['--test', '--test-reporter=tap', file], { encoding: 'utf8' });
    expect(out).toMatch(/# Subtest: C1 a channel never holds more than its capacity/);
    expect(out).toMatch(/^# pass 14$/m);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

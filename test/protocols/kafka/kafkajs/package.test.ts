import { afterEach, expect, it, vi } from 'vitest';

// As if packages were not installed, or others.
const instead = new Map<string, () => unknown>();
vi.mock('node:module', async original => {
  const real = await original<typeof import('node:module')>();
  const createRequire = (from: string) => {
    const require = real.createRequire(from);
    return (name: string): unknown => (instead.get(name) ?? (() => require(name) as unknown))();
  };
  return Object.fromEntries([...Object.entries(real), ['createRequire', createRequire]]);
});
const { kafkajs } = await import('../../../../src/protocols/kafka/kafkajs.ts');
const { quietLog } = await import('../../../../src/core/scope.ts');

const absent = () => {
  throw Object.assign(new Error('Cannot find module'), { code: 'MODULE_NOT_FOUND' });
};
const settings = { brokers: ['127.0.0.1:1'], log: quietLog };
afterEach(() => instead.clear());

it('says how to install kafkajs', async () => {
  instead.set('kafkajs/package.json', absent);
  await expect(kafkajs(settings)).rejects.toMatchObject({
    code: 'MR_PEER_MISSING',
    message: expect.stringContaining('npm install kafkajs@2.2.4') as string,
  });
});

it('wants exactly the version that it knows', async () => {
  instead.set('kafkajs/package.json', () => ({ version: '2.3.0' }));
  await expect(kafkajs(settings)).rejects.toMatchObject({
    code: 'MR_PEER_MISSING',
    message: expect.stringContaining('2.3.0') as string,
  });
});

it.each([
  ['snappy', 'snappy'],
  ['lz4', 'lz4-napi'],
] as const)('says before anything is sent what %s needs: %s', async (compression, name) => {
  const client = await kafkajs(settings);
  instead.set(name, absent);
  expect(() => client.producer({ compression })).toThrow(
    expect.objectContaining({
      code: 'MR_PEER_MISSING',
      message: expect.stringContaining(`npm install ${name}@`) as string,
    }) as Error,
  );
  client.producer({ compression: 'gzip' });
});

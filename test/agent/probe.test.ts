import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { check } from '../../src/agent/plan.ts';
import { probe } from '../../src/agent/probe.ts';
import type { Registry } from '../../src/agent/registry.ts';
import type { Finding, ProbeContext } from '../../src/core/component.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { fakes } from './fakes.ts';

const folder = await mkdtemp(join(tmpdir(), 'probe-'));
afterAll(() => rm(folder, { recursive: true }));

type Probe = (options: Readonly<Record<string, unknown>>, context: ProbeContext) => Promise<readonly Finding[]>;

/** What comes out of an agent whose netcat source, memory channel and null sink try something. */
const found = async (
  { source, channel, sink }: { source?: Probe; channel?: Probe; sink?: Probe },
  { more = [], all = false, timeout }: { more?: readonly string[]; all?: boolean; timeout?: number } = {},
) => {
  const file = join(folder, 'flume.conf');
  const text = [
    'a1.sources = r1',
    'a1.channels = c1 c2',
    'a1.sinks = k1',
    'a1.sources.r1.type = netcat',
    'a1.sources.r1.port = 44444',
    'a1.sources.r1.channels = c1 c2',
    'a1.channels.c1.type = memory',
    'a1.channels.c2.type = memory',
    'a1.sinks.k1.type = null',
    'a1.sinks.k1.channel = c1',
    ...more,
  ].join('\n');
  await writeFile(file, text);
  const withProbe =
    <C extends object>(load: (() => Promise<C>) | undefined, own: Probe | undefined) =>
    async () =>
      // A function with properties of its own stays what it is.
      Object.assign(Object.create((await load!()) as object) as C, own && { probe: own });
  const registry: Registry = {
    source: { ...fakes.source, netcat: withProbe(fakes.source['netcat'], source) },
    channel: { ...fakes.channel, memory: withProbe(fakes.channel['memory'], channel) },
    sink: { ...fakes.sink, null: withProbe(fakes.sink['null'], sink) },
  };
  const { plans } = await check({
    files: [file],
    ...(!all && { agent: 'a1' }),
    registry,
    lookups: { env: {}, system: {} },
  });
  const problems = await probe(plans, timeout === undefined ? {} : { timeout });
  return problems.map(({ severity, code, message, place, advice }) => ({
    text: `${place?.line}: ${severity}: ${message}`,
    code,
    advice,
  }));
};

test('what a component finds has its place: the option, or else the type', async () => {
  const source: Probe = options =>
    Promise.resolve([
      { severity: 'error', message: `nobody is at ${String(options['port'])}`, option: 'port', code: 'MR_IO' },
      { severity: 'warning', message: 'it is slow', option: 'bind', advice: 'Wait.' },
      { severity: 'note', message: 'all else is well' },
    ]);
  expect(await found({ source })).toEqual([
    { text: '4: warning: a1.sources.r1.bind: it is slow', code: 'MR_CONFIG', advice: 'Wait.' },
    { text: '4: note: a1.sources.r1: all else is well', code: 'MR_CONFIG', advice: undefined },
    { text: '5: error: a1.sources.r1.port: nobody is at 44444', code: 'MR_IO', advice: undefined },
  ]);
});

test('a channel knows who uses it', async () => {
  const channel: Probe = (_, { fed, drained }) =>
    Promise.resolve([{ severity: 'note', message: `${fed ? 'fed' : ''} ${drained ? 'drained' : ''}` }]);
  expect((await found({ channel })).map(({ text }) => text)).toEqual([
    '7: note: a1.channels.c1: fed drained',
    '8: note: a1.channels.c2: fed ',
  ]);
});

test('what it did not expect is an error, and so is silence; the others are heard', async () => {
  let aborted = false;
  const answers = await found(
    {
      source: () => Promise.reject(new MillraceError('MR_PEER_MISSING', 'a package is missing.')),
      channel: () => Promise.reject(new TypeError('a mistake')),
      sink: (_, { signal }) =>
        new Promise(() => {
          signal.addEventListener('abort', () => (aborted = true));
        }),
    },
    { timeout: 50 },
  );
  expect(answers.map(({ text, code }) => `${code} ${text}`)).toEqual([
    'MR_PEER_MISSING 4: error: a1.sources.r1: a package is missing.',
    'MR_CONFIG 7: error: a1.channels.c1: a mistake',
    'MR_CONFIG 8: error: a1.channels.c2: a mistake',
    'MR_IO 9: error: a1.sinks.k1: there was no answer within 0.05 s',
  ]);
  expect(aborted).toBe(true);
});

test('all agents that were checked are tried; with errors none is', async () => {
  let tried = 0;
  const sink: Probe = () => {
    tried++;
    return Promise.resolve([]);
  };
  const other = [
    'b1.channels = c1',
    'b1.sinks = k1',
    'b1.channels.c1.type = memory',
    'b1.sinks.k1.type = null',
    'b1.sinks.k1.channel = c1',
  ];
  await found({ sink }, { more: other });
  expect(tried).toBe(1);
  await found({ sink }, { more: other, all: true });
  expect(tried).toBe(3);
  await found({ sink }, { more: ['a1.sources.r1.port = x'] });
  expect(tried).toBe(3);
});

import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { connected, startAgent, type Agent } from '../../src/agent/agent.ts';
import { check } from '../../src/agent/plan.ts';
import { builtIn } from '../../src/agent/registry.ts';
import { printProblems } from '../../src/agent/report.ts';
import { recordingLog } from '../../src/testing/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'agent-'));
const agents: Agent[] = [];
afterEach(() => {
  for (const agent of agents.splice(0)) agent.abort();
});
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

const start = async (configuration: string) => {
  const file = join(folder, 'flume.conf');
  writeFileSync(file, configuration);
  const { plan, problems } = await check({
    files: [file],
    agent: 'a1',
    registry: builtIn,
    lookups: { env: {}, system: {} },
  });
  if (plan === undefined) throw new Error(printProblems(problems));
  const log = recordingLog();
  const agent = startAgent(plan, { log });
  agents.push(agent);
  const counters = (key: string) => agent.metrics.snapshot()[key] ?? {};
  return { agent, log, counters, books: () => [...agent.ledgers.values()] };
};

const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise(resolve => setTimeout(resolve, 5));
};

const seq = (name: string, events: number, channels: string) => `
a1.sources.${name}.type = seq
a1.sources.${name}.totalEvents = ${events}
a1.sources.${name}.batchSize = 10
a1.sources.${name}.channels = ${channels}`;

const memory = (name: string) => `
a1.channels.${name}.type = memory
a1.channels.${name}.capacity = 50
a1.channels.${name}.transactionCapacity = 10`;

const discard = (name: string, channel: string) => `
a1.sinks.${name}.type = null
a1.sinks.${name}.batchSize = 10
a1.sinks.${name}.channel = ${channel}`;

const tailIntoFiles = (dir: string, channelDir = dir) => `
a1.sources = r1
a1.channels = c1
a1.sources.r1.type = taildir
a1.sources.r1.filegroups = f1
a1.sources.r1.filegroups.f1 = ${dir}/app.log
a1.sources.r1.positionFile = ${dir}/positions.json
a1.sources.r1.channels = c1
a1.channels.c1.type = file
a1.channels.c1.checkpointDir = ${channelDir}/checkpoint
a1.channels.c1.dataDirs = ${channelDir}/data`;

describe('agent', () => {
  it('runs several sources and competing sinks on one channel, and drains on stop', async () => {
    const { agent, counters, books } = await start(
      `a1.sources = r1 r2\na1.channels = c1\na1.sinks = k1 k2\n${seq('r1', 1000, 'c1')}${seq('r2', 500, 'c1')}${memory('c1')}${discard('k1', 'c1')}${discard('k2', 'c1')}`,
    );
    await until(() => books()[0]!.delivered === 1500);
    expect(counters('SINK.k1')['EventDrainSuccessCount']! + counters('SINK.k2')['EventDrainSuccessCount']!).toBe(1500);
    await agent.stop({ timeout: 60_000 });
    expect(books()[0]!.snapshot()).toMatchObject({ accepted: 1500, delivered: 1500, held: 0, copied: 0 });
    expect(books()[0]!.difference).toBe(0);
  });

  it('replicates a source into all of its channels', async () => {
    const { agent, counters, books } = await start(
      `a1.sources = r1\na1.channels = c1 c2\na1.sinks = k1 k2\n${seq('r1', 100, 'c1 c2')}${memory('c1')}${memory('c2')}${discard('k1', 'c1')}${discard('k2', 'c2')}`,
    );
    await until(() => books()[0]!.delivered === 200);
    await agent.stop({ timeout: 60_000 });
    expect(counters('SINK.k1')['EventDrainSuccessCount']).toBe(100);
    expect(counters('SINK.k2')['EventDrainSuccessCount']).toBe(100);
    expect(agent.ledgers.size).toBe(1);
    expect(books()[0]!.difference).toBe(0);
  });

  it('multiplexes by header; what is mapped nowhere is counted as filtered', async () => {
    const { agent, counters, books } = await start(
      `a1.sources = r1 r2\na1.channels = c1 c2\na1.sinks = k1 k2\n${seq('r1', 100, 'c1 c2')}${seq('r2', 30, 'c2')}
a1.sources.r1.selector.type = multiplexing
a1.sources.r1.selector.header = State
a1.sources.r1.selector.mapping.CZ = c1
a1.sources.r1.selector.mapping.US = c2
${memory('c1')}${memory('c2')}${discard('k1', 'c1')}${discard('k2', 'c2')}`,
    );
    await until(() => books()[0]!.delivered === 30 && books()[0]!.filtered === 100);
    await agent.stop({ timeout: 60_000 });
    expect(counters('SINK.k1')['EventDrainSuccessCount']).toBe(0);
    expect(counters('SINK.k2')['EventDrainSuccessCount']).toBe(30);
    expect(books()[0]!.difference).toBe(0);
  });

  it('keeps the others running when a source cannot start, says so, and starts it when it can', async () => {
    const taken = createServer();
    taken.listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    const { agent, log, books } = await start(
      `a1.sources = r1 r2\na1.channels = c1\na1.sinks = k1\na1.sources.r1.type = netcat\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = ${port}\na1.sources.r1.channels = c1\n${seq('r2', 100, 'c1')}${memory('c1')}${discard('k1', 'c1')}`,
    );
    await until(() => books()[0]!.delivered === 100 && agent.troubles.size === 1);
    expect(agent.troubles.get('r1')).toContain(`MR_ADDRESS_IN_USE: port ${port} on 127.0.0.1 is in use`);
    expect(log.entries.find(({ level }) => level === 'error')?.message).toMatch(
      /^r1 does not run: port .* Stop the process .* It is tried again in \d/,
    );
    await new Promise(resolve => taken.close(resolve));
    await until(() => agent.troubles.size === 0);
    await agent.stop({ timeout: 60_000 });
  });

  it('knows from a file channel how far files were read, whatever the position file says', async () => {
    const dir = mkdtempSync(join(folder, 'tail-'));
    const configuration = tailIntoFiles(dir);
    const has = (events: number, counters: (key: string) => Record<string, unknown>) =>
      until(() => Number(counters('CHANNEL.c1')['ChannelSize']) >= events);

    writeFileSync(join(dir, 'app.log'), 'one\ntwo\n');
    const first = await start(configuration);
    await has(2, first.counters);
    await first.agent.stop({ timeout: 60_000 });
    rmSync(join(dir, 'positions.json'));
    appendFileSync(join(dir, 'app.log'), 'three\n');
    const second = await start(configuration);
    await has(3, second.counters);
    expect(second.counters('SOURCE.r1')['EventReceivedCount']).toBe(1);
    await second.agent.stop({ timeout: 60_000 });
  });

  it('stops a source that waits for its channel to open', async () => {
    const dir = mkdtempSync(join(folder, 'locked-'));
    writeFileSync(join(dir, 'file'), '');
    const { agent, log } = await start(tailIntoFiles(dir, join(dir, 'file')));
    await until(() => log.entries.some(({ message }) => message.includes('c1 can not be opened')));
    await agent.stop({ timeout: 60_000 });
  });

  it('gives up a drain that takes too long, and says how much was held', async () => {
    const { agent, books } = await start(
      `a1.sources = r1\na1.channels = c1\n${seq('r1', 1_000_000, 'c1')}${memory('c1')}`,
    );
    await until(() => agent.metrics.snapshot()['CHANNEL.c1']!['ChannelSize'] === 50);
    await expect(agent.stop({ timeout: 50 })).rejects.toMatchObject({
      code: 'MR_FLOW_STOPPED',
      message: expect.stringMatching(/5\d|[1-9]\d\d+ events were held/),
    });
    await until(() => books()[0]!.difference === 0);
    expect(books()[0]!.dropped).toBe(50);
  });
});

describe('flows of an agent', () => {
  const plan = (...sources: string[][]) => ({
    channels: ['c1', 'c2', 'c3', 'c4'].map(name => ({ name })),
    sources: sources.map(channels => ({ channels })),
  });

  it('are what sources tie together', () => {
    const groups = (...sources: string[][]) =>
      connected(plan(...sources) as unknown as Parameters<typeof connected>[0]);
    expect(groups()).toEqual([['c1'], ['c2'], ['c3'], ['c4']]);
    expect(groups(['c1', 'c3'], ['c2'])).toEqual([['c1', 'c3'], ['c2'], ['c4']]);
    expect(groups(['c1', 'c3'], ['c3', 'c4'], ['c4', 'c1'])).toEqual([['c1', 'c3', 'c4'], ['c2']]);
  });
});

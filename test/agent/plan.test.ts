import { mkdtemp, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { check, type Checked } from '../../src/agent/plan.ts';
import { builtIn } from '../../src/agent/registry.ts';
import { printProblems, problemsAsJson } from '../../src/agent/report.ts';
import { fakes } from './fakes.ts';

const folder = mkdtemp(join(tmpdir(), 'millrace-'));
let files = 0;

const checked = async (text: string, agent: string | undefined = 'a1', env = {}): Promise<Checked> => {
  const file = join(await folder, `flume-${++files}.conf`);
  await writeFile(file, text);
  return check({ files: [file], agent, registry: fakes, lookups: { env, system: {} } });
};

/** An agent in which everything is right, with some lines replaced or added. */
const agent = (...lines: string[]): string => {
  const all = new Map<string, string>();
  for (const line of [
    'a1.sources = r1',
    'a1.channels = c1',
    'a1.sinks = k1',
    'a1.sources.r1.type = netcat',
    'a1.sources.r1.port = 44444',
    'a1.sources.r1.channels = c1',
    'a1.channels.c1.type = memory',
    'a1.sinks.k1.type = null',
    'a1.sinks.k1.channel = c1',
    ...lines,
  ]) {
    const [key = '', value] = line.split(/ = ?/);
    all.set(key, value === undefined ? '' : line);
  }
  return [...all.values()].filter(line => line !== '').join('\n');
};

/** The problems, as `severity what-is-marked: message`. */
const problemsOf = async (text: string, name?: string, env?: object): Promise<string[]> => {
  const { problems } = await checked(text, name, env);
  return problems.map(({ severity, place, message }) => {
    const marked = place?.text.slice(place.column - 1, place.column - 1 + place.length);
    return `${severity} ${marked === undefined ? '' : `‹${marked}›`}: ${message}`;
  });
};

const detail = async (text: string) => {
  const { problems } = await checked(text);
  expect(problems).toHaveLength(1);
  return problems[0]!;
};

describe('a plan', () => {
  test('has every component with its parsed options, and where they were set', async () => {
    const { plan, problems } = await checked(
      agent(
        'a1.sources.r1.max-line-length = 80',
        'a1.sources.r1.ack-every-event = FALSE',
        'a1.channels.c1.capacity = 1000',
        'a1.sinks.k1.type = file_roll',
        'a1.sinks.k1.sink.directory = ~/out',
        'a1.sinks.k1.sink.serializer = header_and_text',
        'a1.sinks.k1.sink.serializer.appendNewline = false',
        'a1.sinks.k1.hosts = a  b',
      ),
    );
    expect(problems).toEqual([]);
    expect(plan).toMatchObject({
      agent: 'a1',
      sources: [
        {
          name: 'r1',

          channels: ['c1'],
          selector: { type: 'replicating', required: ['c1'], optional: [] },
          options: { bind: '127.0.0.1', port: 44444, maxLineLength: 80, ackEveryEvent: false, encoding: 'utf-8' },
        },
      ],
      channels: [{ name: 'c1', options: { capacity: 1000, transactionCapacity: 100, keepAlive: 3 } }],
      sinks: [
        {
          name: 'k1',
          channel: 'c1',
          options: {
            directory: `${homedir()}/out`,
            batchSize: 100,
            serializer: 'HEADER_AND_TEXT',
            serializerOptions: { appendNewline: 'false' },
            hosts: ['a', 'b'],
          },
        },
      ],
    });
    expect(plan?.sources[0]?.component.type).toBe('netcat');
    expect(plan?.sources[0]?.places).toMatchObject({ type: { line: 4 }, port: { line: 5, column: 22 } });
    expect(plan?.sources[0]?.places['bind']).toBeUndefined();
  });

  test('can be made into components', async () => {
    const { plan } = await checked(agent());
    for (const { name, component, options } of plan!.sources) component(options, { name }).subscribe();
    for (const { name, component, options } of plan!.channels)
      expect(component.create(options, { name }).counters.ChannelCapacity).toBe(1);
    for (const { name, component, options } of plan!.sinks) expect(component(options, { name }).closed).toBe(false);
  });

  test('types are matched in any case, class names exactly', async () => {
    expect(await problemsOf(agent('a1.sources.r1.type = NetCat'))).toEqual([]);
    expect(await problemsOf(agent('a1.sources.r1.type = org.apache.flume.source.NetcatSource'))).toEqual([]);
    const { severity, suggestion } = await detail(agent('a1.sources.r1.type = org.apache.flume.source.NetCatSource'));
    expect([severity, suggestion]).toEqual(['error', 'org.apache.flume.source.NetcatSource']);
  });

  test('several sources, channels and sinks, in the order of the lists', async () => {
    const { plan, problems } = await checked(
      agent(
        'a1.sources = r2 r1',
        'a1.channels = c2 c1',
        'a1.sinks = k1 k3 k2',
        'a1.sources.r2.type = netcat',
        'a1.sources.r2.port = 0',
        'a1.sources.r2.channels = c1 c2',
        'a1.channels.c2.type = memory',
        'a1.sinks.k2.type = null',
        'a1.sinks.k2.channel = c1',
        'a1.sinks.k3.type = null',
        'a1.sinks.k3.channel = c2',
      ),
    );
    expect(problems).toEqual([]);
    expect(plan?.sources.map(s => [s.name, s.channels])).toEqual([
      ['r2', ['c1', 'c2']],
      ['r1', ['c1']],
    ]);
    expect(plan?.channels.map(c => c.name)).toEqual(['c2', 'c1']);
    expect(plan?.sinks.map(s => [s.name, s.channel])).toEqual([
      ['k1', 'c1'],
      ['k3', 'c2'],
      ['k2', 'c1'],
    ]);
  });

  test('variables and config filters are filled in', async () => {
    const { plan, problems } = await checked(
      agent(
        'port.base = 4444',
        'a1.sources.r1.port = ${port.base}${env:DIGIT}',
        'a1.configfilters = f1',
        'a1.configfilters.f1.type = env',
        "a1.sources.r1.keystore-password = ${f1['PW']}",
      ),
      'a1',
      { DIGIT: '5', PW: 'hunter2' },
    );
    expect(problems).toEqual([]);
    expect(plan?.sources[0]?.options).toMatchObject({ port: 44445, password: 'hunter2' });
  });

  test('an agent without sinks, or without sources, is allowed, with a warning', async () => {
    const text = agent('a1.sinks', 'a1.sinks.k1.type', 'a1.sinks.k1.channel');
    expect(await problemsOf(text)).toEqual([
      'warning ‹c1›: no sink takes from a1.channels.c1; it fills, and its sources wait',
    ]);
    const { plan } = await checked(
      agent('a1.sources', 'a1.sources.r1.type', 'a1.sources.r1.port', 'a1.sources.r1.channels'),
    );
    expect(plan?.sinks).toHaveLength(1);
  });

  test('a channel that nothing uses is left out', async () => {
    const text = agent('a1.channels = c1 c2', 'a1.channels.c2.type = memory');
    expect(await problemsOf(text)).toEqual(['warning ‹c2›: nothing uses a1.channels.c2; it is left out']);
    expect((await checked(text)).plan?.channels.map(c => c.name)).toEqual(['c1']);
  });

  test('there is none when there is an error', async () => {
    expect((await checked(agent('a1.sources.r1.port = x'))).plan).toBeUndefined();
  });
});

describe('one thing is wrong', () => {
  test.each<[string, string[], string[]]>([
    // Lists
    ['a name listed twice', ['a1.sources = r1 r1'], ['warning ‹r1›: r1 is listed twice']],
    ['listed, not configured', ['a1.sinks = k1 k2'], ['error ‹k2›: k2 is listed but not configured']],
    [
      'configured, not listed',
      ['a1.sinks.k2.type = null'],
      ['warning ‹a1.sinks.k2.type›: a1.sinks.k2 is configured but not listed, and is ignored'],
    ],
    ['no list', ['a1.sinks'], ['error ‹a1.sinks.k1.type›: a1.sinks is missing']],
    // Types
    ['no type', ['a1.sinks.k1.type'], ['error ‹k1›: a1.sinks.k1 has no type']],
    ['an unknown type', ['a1.sinks.k1.type = nul'], ['error ‹nul›: there is no sink nul']],
    [
      'a real type that is not built in',
      ['a1.sinks.k1.type = hdfs'],
      ['error ‹hdfs›: the sink hdfs (org.apache.flume.sink.hdfs.HDFSEventSink) is not built in yet'],
    ],
    [
      'Java code',
      ['a1.sinks.k1.type = com.acme.MySink'],
      ['error ‹com.acme.MySink›: the sink com.acme.MySink is a Java class'],
    ],
    [
      'a component that cannot be loaded',
      ['a1.sources.r1.type = com.example.Broken'],
      ['error ‹com.example.Broken›: the source com.example.Broken cannot be loaded: package kafkajs is not installed'],
    ],
    // Options
    ['a required option is missing', ['a1.sources.r1.port'], ['error ‹netcat›: a1.sources.r1.port is missing']],
    ['a bad number', ['a1.sources.r1.port = 70000'], ['error ‹70000›: a1.sources.r1.port is "70000"']],
    ['a bad choice', ['a1.sources.r1.encoding = utf-9'], ['error ‹utf-9›: a1.sources.r1.encoding is "utf-9"']],
    [
      'a choice that is not built in',
      ['a1.sinks.k1.type = file_roll', 'a1.sinks.k1.sink.directory = /x', 'a1.sinks.k1.sink.serializer = avro_event'],
      ['error ‹avro_event›: a1.sinks.k1.sink.serializer is avro_event, which is not built in yet'],
    ],
    ['an unknown key', ['a1.sources.r1.bindd = x'], ['warning ‹bindd›: netcat has no option bindd; it is ignored']],
    [
      'an option for code only',
      ['a1.sources.r1.listening = x'],
      ['warning ‹listening›: netcat has no option listening; it is ignored'],
    ],
    [
      'a promise that an agent cannot hold',
      ['a1.sources.r1.exactlyOnce = true'],
      [
        'error ‹a1.sources.r1.exactlyOnce›: a1.sources.r1.exactlyOnce: a channel of an agent ends what one transaction would have to span, so only flows in code can have it; leave it out for at least once',
      ],
    ],
    [
      "Flume's back-off for polling",
      ['a1.sources.r1.maxBackoffSleep = 1'],
      [
        'warning ‹a1.sources.r1.maxBackoffSleep›: a1.sources.r1.maxBackoffSleep has no effect: sources here wait for data instead of polling for it',
      ],
    ],
    [
      'no value',
      ['a1.sources.r1.bind = '],
      ['warning ‹a1.sources.r1.bind›: a1.sources.r1.bind has no value and is ignored'],
    ],
    // Channels
    ['a source on an unknown channel', ['a1.sources.r1.channels = c1 c2'], ['error ‹c2›: there is no channel c2']],
    ['a sink on an unknown channel', ['a1.sinks.k1.channel = c2'], ['error ‹c2›: there is no channel c2']],
    ['a sink without a channel', ['a1.sinks.k1.channel'], ['error ‹a1.sinks.k1.type›: a1.sinks.k1.channel is missing']],
    [
      'a sink on two channels',
      ['a1.channels = c1 c2', 'a1.channels.c2.type = memory', 'a1.sinks.k1.channel = c1 c2'],
      ['error ‹c1 c2›: a1.sinks.k1 has 2 channels'],
    ],
    [
      '`channels` of a sink',
      ['a1.sinks.k1.channel', 'a1.sinks.k1.channels = c1'],
      ['error ‹channels›: a1.sinks.k1.channel is missing'],
    ],
    [
      'a source on a channel that is configured but not listed',
      ['a1.channels.c2.type = memory', 'a1.sources.r1.channels = c1 c2'],
      [
        'error ‹c2›: there is no channel c2',
        'warning ‹a1.channels.c2.type›: a1.channels.c2 is configured but not listed, and is ignored',
      ],
    ],
    // Sizes
    [
      'a transaction beyond the capacity',
      ['a1.channels.c1.capacity = 200', 'a1.channels.c1.transactionCapacity = 300'],
      ['error ‹300›: a1.channels.c1.transactionCapacity is 300'],
    ],
    ['a capacity below the default', ['a1.channels.c1.capacity = 50'], ['error ‹50›: a1.channels.c1.capacity is 50']],
    ['a batch beyond the transaction', ['a1.sinks.k1.batchSize = 101'], ['error ‹101›: a1.sinks.k1.batchSize is 101']],
    [
      'a default batch beyond the transaction',
      ['a1.channels.c1.transactionCapacity = 10'],
      ['error ‹null›: a1.sinks.k1.batchSize is 100'],
    ],
    // Interceptors
    [
      'an interceptor',
      ['a1.sources.r1.interceptors = i1', 'a1.sources.r1.interceptors.i1.type = timestamp'],
      [
        'error ‹timestamp›: the interceptor timestamp (org.apache.flume.interceptor.TimestampInterceptor$Builder) is not built in yet',
      ],
    ],
    [
      'an unknown interceptor',
      ['a1.sources.r1.interceptors = i1', 'a1.sources.r1.interceptors.i1.type = timestmap'],
      ['error ‹timestmap›: there is no interceptor timestmap'],
    ],
    [
      'an interceptor without type',
      ['a1.sources.r1.interceptors = i1'],
      ['error ‹i1›: a1.sources.r1.interceptors.i1 has no type'],
    ],
    [
      'an interceptor that is not listed',
      ['a1.sources.r1.interceptors.i1.type = timestamp'],
      [
        'warning ‹a1.sources.r1.interceptors.i1.type›: a1.sources.r1.interceptors.i1 is not listed in interceptors, and is ignored',
      ],
    ],
    // Keys that fit nowhere
    ['a key of no section', ['a1.sink.k1.type = null'], ['warning ‹a1.sink›: a1.sink is ignored']],
    ['a key of no agent', ['foo = 1'], ['warning ‹foo›: foo belongs to no agent and is ignored']],
    [
      'a key without a property',
      ['a1.sinks.k1 = 1'],
      ['warning ‹a1.sinks.k1›: a1.sinks.k1 is ignored: it names no property'],
    ],
  ])('%s', async (_, lines, expected) => {
    expect(await problemsOf(agent(...lines))).toEqual(expected);
  });

  test('a problem says what was expected and what was meant', async () => {
    expect(await detail(agent('a1.sources.r1.type = netact'))).toMatchObject({
      expected: 'one of netcat, http, taildir, com.example.Broken',
      suggestion: 'netcat',
    });
    expect(await detail(agent('a1.sources.r1.ack-every-event = yes'))).toMatchObject({
      expected: 'true or false',
      suggestion: 'true',
    });
    const serializer = (value: string) =>
      agent(
        'a1.sinks.k1.type = file_roll',
        'a1.sinks.k1.sink.directory = /x',
        `a1.sinks.k1.sink.serializer = ${value}`,
      );
    expect(await detail(serializer('org.x.Avro$Builder'))).toMatchObject({
      code: 'MR_NOT_BUILT_IN',
      expected: 'one of TEXT, HEADER_AND_TEXT',
    });
    expect(await detail(serializer('com.acme.Mine$Builder'))).toMatchObject({
      expected: 'one of TEXT, HEADER_AND_TEXT',
      advice: 'Java code cannot run here.',
    });
    expect(await detail(agent('a1.sources.r1.ack-every-event = 0'))).toMatchObject({ suggestion: 'false' });
    expect(await detail(agent('a1.channels.c1.capacity = 10,000'))).toMatchObject({ suggestion: '10000' });
    expect(await detail(agent('a1.channels.c1.capacity = 500 # events'))).toMatchObject({
      suggestion: '500',
      advice: 'A comment needs a line of its own.',
    });
    expect(await detail(agent('a1.sources.r1.size = 11'))).toMatchObject({ expected: 'a whole number from 1 to 10' });
    expect(await detail(agent('a1.sources.r1.port'))).toMatchObject({ advice: 'Port to listen on.' });
    expect(await detail(agent('a1.sources.r1.maxLineLength = 5'))).toMatchObject({ suggestion: 'max-line-length' });
    expect(await detail(agent('a1.channels.c1.transactionCapacity = 10', 'a1.sinks.k1.batchSize = 11'))).toMatchObject({
      expected: 'at most 10, the transactionCapacity of c1 (line 10)',
    });
    expect(await detail(agent('a1.sources.r1.type = stress'))).toMatchObject({
      suggestion: 'org.apache.flume.source.StressSource',
    });
    expect(await detail(agent('a1.sinks.k1.type', 'a1.sinks.k1.tpye = null'))).toMatchObject({ suggestion: 'type' });
    expect(await detail(agent('a1.sinks = k1 k.2'))).toMatchObject({ advice: 'A name cannot have a dot in it.' });
  });

  test("a schema's own rule", async () => {
    const lines = ['a1.sinks.k1.type = file_roll', 'a1.sinks.k1.sink.directory = /'];
    expect(await problemsOf(agent(...lines))).toEqual(['error ‹/›: a1.sinks.k1.sink.directory: not the root, please']);
  });

  test('a secret is not shown', async () => {
    const { problems } = await checked(
      agent(
        'a1.sources.r1.keystore-password = hunter2',
        'a1.sources.r1.keystore-passwort = hunter2',
        'a1.sources.r1.port = ${env:PW}',
      ),
      'a1',
      { PW: 'hunter2' },
    );
    expect(problems).toHaveLength(2);
    expect(printProblems(problems)).not.toContain('hunter2');
    expect(problemsAsJson(problems)).not.toContain('hunter2');
    expect(problems[0]?.message).toBe('a1.sources.r1.port is ***');
  });
});

describe('filegroups = f1 f2, and the like', () => {
  const tail = (...lines: string[]) =>
    agent('a1.sources.r1.port', 'a1.sources.r1.type = taildir', ...lines.map(line => `a1.sources.r1.${line}`));

  test('are in the order of the list, and other maps take what comes', async () => {
    const { plan, problems } = await checked(
      tail('filegroups = f2 f1', 'filegroups.f1 = /a', 'filegroups.f2 = /b', 'headers.f1.a.b = x'),
    );
    expect(problems).toEqual([]);
    const { filegroups, headers } = plan!.sources[0]!.options;
    expect(Object.entries(filegroups as object)).toEqual([
      ['f2', '/b'],
      ['f1', '/a'],
    ]);
    expect(headers).toEqual({ 'f1.a.b': 'x' });
  });

  test.each<[string[], string[]]>([
    [[], ['error ‹taildir›: a1.sources.r1.filegroups is missing']],
    [['filegroups.f1 = /a'], ['error ‹a1.sources.r1.filegroups.f1›: a1.sources.r1.filegroups is missing']],
    [
      ['filegroups = f1 f2', 'filegroups.f1 = /a'],
      ['error ‹f2›: f2 is listed, but a1.sources.r1.filegroups.f2 is missing'],
    ],
    [
      ['filegroups = f1', 'filegroups.f1 = /a', 'filegroups.f2 = /b'],
      [
        'warning ‹a1.sources.r1.filegroups.f2›: a1.sources.r1.filegroups.f2 is not listed in filegroups, and is ignored',
      ],
    ],
    [
      ['filegroups = f1', 'filegroups.f1 = /a', 'filegroups.f1 = '],
      ['warning', 'error'],
    ],
  ])('%j', async (lines, expected) => {
    const found = await problemsOf(tail(...lines));
    if (expected.length === 1) expect(found).toEqual(expected);
    else expect(found.map(p => p.split(' ')[0])).toEqual(expected.toReversed());
  });
});

describe('channel selectors', () => {
  const select = (...lines: string[]) =>
    agent(
      'a1.channels = c1 c2 c3',
      'a1.channels.c2.type = memory',
      'a1.channels.c3.type = memory',
      'a1.sinks = k1 k2 k3',
      'a1.sinks.k2.type = null',
      'a1.sinks.k2.channel = c2',
      'a1.sinks.k3.type = null',
      'a1.sinks.k3.channel = c3',
      'a1.sources.r1.channels = c1 c2',
      'a1.sources.r2.channels',
      ...lines.map(line => `a1.sources.r1.${line}`),
    );
  const selector = async (...lines: string[]) => {
    const { plan, problems } = await checked(select(...lines));
    expect(problems.filter(p => !p.message.includes('c3'))).toEqual([]);
    return plan?.sources[0]?.selector;
  };

  test('replicating is the default; optional channels are not required', async () => {
    expect(await selector()).toEqual({ type: 'replicating', required: ['c1', 'c2'], optional: [] });
    expect(await selector('selector.type = Replicating', 'selector.optional = c2')).toEqual({
      type: 'replicating',
      required: ['c1'],
      optional: ['c2'],
    });
  });

  test('multiplexing maps values of a header; optional ones are those that are not required', async () => {
    expect(
      await selector(
        'selector.type = multiplexing',
        'selector.header = state',
        'selector.mapping.CZ = c1',
        'selector.mapping.US.CA = c1 c2',
        'selector.optional.CZ = c1 c2',
        'selector.optional.DE = c2',
        'selector.default = c1',
      ),
    ).toEqual({
      type: 'multiplexing',
      header: 'state',
      mapping: new Map([
        ['CZ', { required: ['c1'], optional: ['c2'] }],
        ['US.CA', { required: ['c1', 'c2'], optional: [] }],
        ['DE', { required: ['c1'], optional: ['c2'] }],
      ]),
      otherwise: { required: ['c1'], optional: [] },
    });
    expect(
      await selector(
        'selector.type = org.apache.flume.channel.MultiplexingChannelSelector',
        'selector.default = c1 c2',
      ),
    ).toMatchObject({ header: 'flume.selector.header' });
  });

  test.each<[string[], string[]]>([
    [
      ['selector.type = load_balancing'],
      [
        'error ‹load_balancing›: the channel selector load_balancing (org.apache.flume.channel.LoadBalancingChannelSelector) is not built in yet',
      ],
    ],
    [['selector.type = multiplex'], ['error ‹multiplex›: there is no channel selector multiplex']],
    [['selector.optional = c4'], ['error ‹c4›: there is no channel c4']],
    [['selector.optional = c3'], ['error ‹c3›: c3 is not a channel of a1.sources.r1']],
    [
      ['selector.type = multiplexing', 'selector.mapping.x = c1 c9', 'selector.default = c2'],
      ['error ‹c9›: there is no channel c9'],
    ],
    [
      ['selector.type = multiplexing'],
      ['error ‹multiplexing›: a1.sources.r1.selector maps nothing: every event would be dropped'],
    ],
    [
      ['selector.type = multiplexing', 'selector.mapping.x = c1'],
      ['warning ‹c2›: no rule of a1.sources.r1.selector leads to c2'],
    ],
    [
      ['selector.header = x'],
      ['warning ‹selector.header›: a replicating selector has no option selector.header; it is ignored'],
    ],
    [
      ['selector.type = multiplexing', 'selector.default = c1 c2', 'selector.headr = x'],
      ['warning ‹selector.headr›: a multiplexing selector has no option selector.headr; it is ignored'],
    ],
  ])('%j', async (lines, expected) => {
    const found = await problemsOf(select(...lines));
    expect(found.filter(p => !p.includes('no source puts into a1.channels.c3'))).toEqual(expected);
  });

  test('load_balancing says what to do instead', async () => {
    const { problems } = await checked(select('selector.type = load_balancing'));
    expect(problems[0]).toMatchObject({
      code: 'MR_NOT_BUILT_IN',
      expected: 'one of replicating, multiplexing',
    });
    expect(problems[0]?.advice).toContain('let several sinks take from one channel');
  });
});

describe('sink groups', () => {
  const group = (...lines: string[]) =>
    agent(
      'a1.sinks = k1 k2',
      'a1.sinks.k2.type = null',
      'a1.sinks.k2.channel = c1',
      'a1.sinkgroups = g1',
      ...lines.map(line => `a1.sinkgroups.${line}`),
    );

  test.each<[string[], string[]]>([
    [['g1.sinks = k1'], []],
    [['g1.sinks = k1', 'g1.processor.type = default'], []],
    [
      ['g1.sinks = k1 k2', 'g1.processor.type = failover', 'g1.processor.priority.k1 = 5'],
      [
        'error ‹failover›: the sink processor failover (org.apache.flume.sink.FailoverSinkProcessor) is not built in yet',
      ],
    ],
    [
      ['g1.sinks = k1 k2', 'g1.processor.type = load_balance'],
      [
        'error ‹load_balance›: the sink processor load_balance (org.apache.flume.sink.LoadBalancingSinkProcessor) is not built in yet',
      ],
    ],
    [
      ['g1.sinks = k1 k2', 'g1.processor.type = loadbalance'],
      ['error ‹loadbalance›: there is no sink processor loadbalance'],
    ],
    [['g1.sinks = k1 k2'], ['error ‹g1›: a1.sinkgroups.g1 has 2 sinks under the default processor']],
    [['g1.sinks = k3'], ['error ‹k3›: there is no sink k3']],
    [['g1.processor.type = default'], ['error ‹g1›: a1.sinkgroups.g1.sinks is missing']],
    [['g1.processor.sinks = k1'], ['error ‹processor.sinks›: a1.sinkgroups.g1.sinks is missing']],
    [
      ['g1.sinks = k1', 'g1.processor.typ = default'],
      ['warning ‹processor.typ›: a sink group has no option processor.typ; it is ignored'],
    ],
  ])('%j', async (lines, expected) => {
    expect(await problemsOf(group(...lines))).toEqual(expected);
  });

  test('a sink in two groups', async () => {
    const text = `${group('g1.sinks = k1', 'g2.sinks = k1')}\n`.replace('sinkgroups = g1', 'sinkgroups = g1 g2');
    expect(await problemsOf(text)).toEqual(['error ‹k1›: k1 is in two groups, g1 and g2']);
  });
});

describe('two components want the same', () => {
  const two = (type: string, ...lines: string[]) =>
    agent(
      'a1.sources = r1 r2',
      'a1.sources.r1.port',
      `a1.sources.r1.type = ${type}`,
      `a1.sources.r2.type = ${type}`,
      'a1.sources.r2.channels = c1',
      ...lines.map(line => `a1.sources.${line}`),
    );

  test.each<[string[], string[]]>([
    [['r1.port = 1', 'r2.port = 2'], []],
    [['r1.port = 0', 'r2.port = 0'], []],
    [['r1.port = 1', 'r2.port = 1'], ['error ‹1›: r2 and r1 listen on the same port 1']],
    [['r1.port = 1', 'r2.port = 1', 'r2.bind = 0.0.0.0'], ['error ‹1›: r2 and r1 listen on the same port 1']],
    [['r1.port = 1', 'r2.port = 1', 'r1.bind = 127.0.0.2', 'r2.bind = 127.0.0.1'], []],
  ])('ports %j', async (lines, expected) => {
    expect(await problemsOf(two('netcat', ...lines))).toEqual(expected);
  });

  test('a source that listens on all addresses although nobody said so', async () => {
    const http = ['a1.sources.r1.type = http'];
    expect(await problemsOf(agent(...http))).toEqual([
      'warning ‹44444›: r1 listens on all addresses of this machine, as in Flume',
    ]);
    expect((await checked(agent(...http))).plan?.sources[0]?.options['bind']).toBe('0.0.0.0');
    expect(await problemsOf(agent(...http, 'a1.sources.r1.bind = 0.0.0.0'))).toEqual([]);
    expect(await problemsOf(agent(...http, 'a1.sources.r1.bind = 127.0.0.1'))).toEqual([]);
  });

  test('keys that a map takes are known by name', async () => {
    const file = join(await folder, 'kafka.conf');
    const kafka = ['type = kafka', 'brokerList = b:9092', 'requiredAcks = -1'].map(key => `a1.sinks.k1.${key}`);
    const properties = [
      'linger.ms = 5',
      'liger.ms = 5',
      'request.timeout.ms = soon',
      'sasl.jaas.config = hunter2',
      'ssl.keystore.key = hunter2',
    ].map(key => `a1.sinks.k1.kafka.producer.${key}`);
    await writeFile(file, agent(...kafka, ...properties));
    const found = await check({ files: [file], agent: 'a1', registry: builtIn, lookups: { env: {}, system: {} } });
    const printed = printProblems(found.problems);
    for (const message of [
      'warning: a1.sinks.k1.kafka.producer.linger.ms has no effect: ',
      'a1.sinks.k1.kafka.producer.liger.ms: a producer has no such property; did you mean linger.ms?',
      'a1.sinks.k1.kafka.producer.request.timeout.ms: expected a whole number of at least 1, found "soon"',
      'a1.sinks.k1.kafka.producer.sasl.jaas.config: the login module',
      'a1.sinks.k1.kafka.producer.ssl.keystore.key: it needs ssl.keystore.certificate.chain',
    ])
      expect(printed).toContain(message);
    expect(printed).not.toContain('hunter2');
    await writeFile(file, agent(...kafka));
    const { plan } = await check({ files: [file], agent: 'a1', registry: builtIn, lookups: { env: {}, system: {} } });
    expect(plan?.sinks[0]?.options).toMatchObject({
      bootstrapServers: ['b:9092'],
      acks: 'all',
      topic: 'default-flume-topic',
    });
    await writeFile(file, agent(...kafka.slice(0, 2)));
    const flume = await check({ files: [file], agent: 'a1', registry: builtIn, lookups: { env: {}, system: {} } });
    expect(flume.plan?.sinks[0]?.options['acks']).toBe('1');
  });

  test('an older key still counts', async () => {
    const keys = ['type = http', 'bind = 127.0.0.1', 'enableSSL = true', 'keystore-type = JKS'];
    const http = keys.map(key => `a1.sources.r1.${key}`);
    const { plan } = await checked(agent(...http));
    expect(plan?.sources[0]?.options['ssl']).toBe(true);
    expect(await problemsOf(agent(...http))).toEqual([
      'warning ‹a1.sources.r1.keystore-type›: a1.sources.r1.keystore-type has no effect: the key store itself shows what it is',
    ]);
  });

  test('the name of today wins over an older one, wherever it stands', async () => {
    for (const order of [
      ['ssl = false', 'enableSSL = true'],
      ['enableSSL = true', 'ssl = false'],
    ]) {
      const text = agent(
        'a1.sources.r1.type = http',
        'a1.sources.r1.bind = localhost',
        ...order.map(key => `a1.sources.r1.${key}`),
      );
      expect((await checked(text)).plan?.sources[0]?.options['ssl']).toBe(false);
      expect(await problemsOf(text)).toEqual([
        'warning ‹enableSSL›: a1.sources.r1.enableSSL is ignored: ssl, which it is called today, is set too',
      ]);
    }
  });

  test('position file, though neither of them names it', async () => {
    const groups = ['r1', 'r2'].flatMap(r => [`${r}.filegroups = f`, `${r}.filegroups.f = /x`]);
    expect(await problemsOf(two('taildir', ...groups))).toEqual([
      'error ‹taildir›: r2 and r1 have the same positionFile',
    ]);
    expect(await problemsOf(two('taildir', ...groups, 'r2.positionFile = /p'))).toEqual([]);
  });
});

describe('the Kafka components take every key that Flume has for them', () => {
  const kafka = async (kind: 'sources' | 'channels' | 'sinks', ...keys: string[]) => {
    const file = join(await folder, `kafka-${++files}.conf`);
    const name = { sources: 'r1', channels: 'c1', sinks: 'k1' }[kind];
    const lines = ['type = kafka', ...keys].map(key => `a1.${kind}.${name}.${key}`);
    const room = ['capacity', 'transactionCapacity'].map(key => `a1.channels.c1.${key} = 1000`);
    if (kind === 'sources') lines.push('a1.sources.r1.port', ...room);
    await writeFile(file, agent(...lines));
    const { plan, problems } = await check({
      files: [file],
      agent: 'a1',
      registry: builtIn,
      lookups: { env: {}, system: {} },
    });
    return {
      options: plan?.[kind][0]?.options,
      idle: problems.map(({ severity, message }) => {
        expect(severity, message).toBe('warning');
        return / has no effect: /.test(message) ? message.replace(/^a1\.\w+\.\w+\.| has no effect.*/g, '') : message;
      }),
    };
  };
  const servers = { bootstrapServers: ['b1:9092', 'b2:9092'] };
  const today = 'kafka.bootstrap.servers = b1:9092,b2:9092';
  const former = 'brokerList = b1:9092,b2:9092';
  const zookeeper = ['migrateZookeeperOffsets', 'zookeeperConnect'];

  test('the source', async () => {
    const given = await kafka(
      'sources',
      today,
      'kafka.topics = a, b',
      'kafka.consumer.group.id = g',
      'batchSize = 7',
      'batchDurationMillis = 5',
      'backoffSleepIncrement = 5',
      'maxBackoffSleep = 5',
      'useFlumeEventFormat = true',
      'setTopicHeader = false',
      'topicHeader = from',
      'header.one = X-One',
      'header.two = X-Two',
      'migrateZookeeperOffsets = true',
      'zookeeperConnect = z:2181',
      'kafka.consumer.auto.offset.reset = latest',
      'kafka.consumer.ssl.disableTLSHostnameVerification = true',
    );
    expect(given.options).toMatchObject({
      ...servers,
      topics: ['a', 'b'],
      groupId: 'g',
      batchSize: 7,
      useFlumeEventFormat: true,
      setTopicHeader: false,
      topicHeader: 'from',
      headers: { one: 'X-One', two: 'X-Two' },
      consumer: { 'auto.offset.reset': 'latest', 'ssl.disableTLSHostnameVerification': 'true' },
    });
    expect(given.idle).toEqual(['batchDurationMillis', 'backoffSleepIncrement', 'maxBackoffSleep', ...zookeeper]);
    const regex = await kafka('sources', today, 'kafka.topics.regex = ^a.*');
    expect(regex).toMatchObject({
      idle: [],
      options: {
        topicsRegex: '^a.*',
        groupId: 'flume',
        batchSize: 1000,
        useFlumeEventFormat: false,
        setTopicHeader: true,
        topicHeader: 'topic',
      },
    });
    const old = await kafka('sources', today, 'topic = a', 'groupId = g', 'zookeeperConnect = z:2181');
    expect(old).toMatchObject({ idle: ['zookeeperConnect'], options: { topics: ['a'], groupId: 'g' } });
  });

  test('the channel', async () => {
    const given = await kafka(
      'channels',
      today,
      'kafka.topic = t',
      'kafka.consumer.group.id = g',
      'parseAsFlumeEvent = false',
      'kafka.pollTimeout = 5',
      'defaultPartitionId = 2',
      'partitionIdHeader = p',
      'migrateZookeeperOffsets = true',
      'zookeeperConnect = z:2181',
      'kafka.producer.compression.type = gzip',
      'kafka.producer.max.request.size = 5000',
      'kafka.consumer.auto.offset.reset = latest',
    );
    expect(given.options).toMatchObject({
      ...servers,
      topic: 't',
      groupId: 'g',
      parseAsFlumeEvent: false,
      defaultPartitionId: 2,
      partitionIdHeader: 'p',
      compression: 'gzip',
      producer: { 'max.request.size': '5000' },
      consumer: { 'auto.offset.reset': 'latest' },
    });
    expect(given.idle).toEqual(['kafka.pollTimeout', ...zookeeper]);
    const old = await kafka('channels', former, 'topic = t', 'groupId = g', 'readSmallestOffset = false');
    expect(old).toMatchObject({
      idle: [],
      options: { ...servers, topic: 't', groupId: 'g', readSmallestOffset: false, parseAsFlumeEvent: true },
    });
    expect((await kafka('channels', today)).options).toMatchObject({ topic: 'flume-channel', groupId: 'flume' });
  });

  test('the sink', async () => {
    const given = await kafka(
      'sinks',
      today,
      'kafka.topic = t',
      'flumeBatchSize = 7',
      'kafka.producer.acks = -1',
      'useFlumeEventFormat = true',
      'defaultPartitionId = 2',
      'partitionIdHeader = p',
      'allowTopicOverride = false',
      'topicHeader = to',
      'timestampHeader = when',
      'header.one = X-One',
      'kafka.producer.linger.ms = 5',
      'kafka.producer.compression.type = lz4',
    );
    expect(given.options).toMatchObject({
      ...servers,
      topic: 't',
      batchSize: 7,
      acks: 'all',
      useFlumeEventFormat: true,
      defaultPartitionId: 2,
      partitionIdHeader: 'p',
      allowTopicOverride: false,
      topicHeader: 'to',
      timestampHeader: 'when',
      headers: { one: 'X-One' },
      compression: 'lz4',
    });
    expect(given.idle).toEqual(['kafka.producer.linger.ms']);
    const old = await kafka('sinks', former, 'topic = t', 'batchSize = 7', 'requiredAcks = 0');
    expect(old).toMatchObject({ idle: [], options: { ...servers, topic: 't', batchSize: 7, acks: '0' } });
    expect((await kafka('sinks', today)).options).toMatchObject({
      topic: 'default-flume-topic',
      batchSize: 100,
      acks: '1',
      useFlumeEventFormat: false,
      allowTopicOverride: true,
      topicHeader: 'topic',
    });
  });
});

describe('several agents in one file', () => {
  const both = `${agent()}\n${agent().replaceAll('a1.', 'b1.').replace('44444', 'x').replace('netcat', 'netcat')}\nb1.sorces = x`;

  test('only the named one is planned; the others are looked at for keys that fit nowhere', async () => {
    const { plan, problems } = await checked(both);
    expect(plan?.agent).toBe('a1');
    expect(problems.map(p => p.message)).toEqual(['b1.sorces is ignored']);
  });

  test('without a name all of them are checked, and none is chosen', async () => {
    const all = await check({ ...(await given(both)), agent: undefined });
    expect(all.plan).toBeUndefined();
    expect(all.problems.map(p => p.message)).toEqual(['b1.sources.r1.port is "x"', 'b1.sorces is ignored']);
    expect((await check({ ...(await given(agent())), agent: undefined })).plan?.agent).toBe('a1');
  });

  test('a name that is not in the file', async () => {
    const { problems } = await checked(both, 'a2');
    expect(problems.find(p => p.severity === 'error')).toMatchObject({
      message: 'there is no agent a2',
      expected: 'one of a1, b1',
      suggestion: 'a1',
    });
  });

  test('nothing at all', async () => {
    expect(await problemsOf('# empty')).toEqual(['error : no agent is configured']);
    expect(await problemsOf('a1.sourcs = r1')).toEqual([
      'warning ‹a1.sourcs›: a1.sourcs is ignored',
      'error : no agent is configured',
    ]);
    expect(await problemsOf('a1.configfilters = f\na1.configfilters.f.type = env')).toEqual([
      'error : a1 has no channels',
      'error : a1 has neither sources nor sinks',
    ]);
  });

  const given = async (text: string) => {
    const file = join(await folder, `flume-${++files}.conf`);
    await writeFile(file, text);
    return { files: [file], registry: fakes, lookups: { env: {}, system: {} } };
  };

  test('a file that is not there is the only problem', async () => {
    const { problems } = await check({ ...(await given('')), files: ['/no/such/flume.conf'], agent: 'a1' });
    expect(problems).toMatchObject([{ code: 'MR_IO', message: 'there is no such file', file: '/no/such/flume.conf' }]);
  });
});

test('everything that is wrong is said at once, in the order of the file', async () => {
  const text = agent(
    'a1.sources = r1 r9',
    'a1.sources.r1.port = x',
    'a1.sources.r1.channels = c8',
    'a1.channels.c1.capacity = -1',
    'a1.sinks.k1.type = nil',
    'a1.sinks.k1.channel = c7',
    'a1.sources.r1.selector.type = random',
    'a1.sinkgroups = g1',
    'a1.sinkgroups.g1.sinks = k9',
  );
  const { problems } = await checked(text);
  expect(problems.map(p => p.place?.line)).toEqual([1, 5, 6, 8, 9, 10, 11, 13]);
  expect(problems.every(p => p.severity === 'error')).toBe(true);
});

describe('what Flume records as an error of one line does not keep the rest from running', () => {
  test.each([
    ['no key', '= x'],
    ['no agent', '.sources = x'],
    ['no property', 'a1. = x'],
    ['no component', 'a1.sources. = x'],
    ['no key of a component', 'a1.sources.r1. = x'],
    ['no value', 'a1.sources.r1.bind ='],
    ['no separator', 'a1.sources.r1.bind'],
  ])('%s: one warning, and a plan', async (_, line) => {
    const { plan, problems } = await checked(`${agent()}\n${line}\n`);
    expect(problems).toMatchObject([{ severity: 'warning', place: { line: 10, column: 1 } }]);
    expect(plan).toBeDefined();
  });

  test('two lists of one kind: the last wins, and is reported', async () => {
    const { plan, problems } = await checked(`a1.sources = r8 r9\n${agent()}`);
    expect(problems.map(p => p.message)).toEqual(['a1.sources is set twice; this overrides line 1']);
    expect(plan?.sources.map(s => s.name)).toEqual(['r1']);
  });
});

describe("Flume's own first example", () => {
  test('runs with what is built in', async () => {
    const file = join(await folder, 'example.conf');
    await writeFile(
      file,
      agent(
        'a1.sources.r1.bind = localhost',
        'a1.sinks.k1.type = logger',
        'a1.channels.c1.capacity = 1000',
        'a1.channels.c1.transactionCapacity = 100',
      ),
    );
    const lookups = { env: {}, system: {} };
    const { plan, problems } = await check({ files: [file], agent: 'a1', registry: builtIn, lookups });
    expect(problems).toEqual([]);
    expect(plan?.sources[0]?.options).toMatchObject({ bind: 'localhost', port: 44444, maxLineLength: 512 });
    expect(plan?.channels[0]?.options).toMatchObject({ capacity: 1000, transactionCapacity: 100, keepAlive: 3 });
  });
});

describe('exactlyOnce', () => {
  const messages = async (...lines: string[]) => {
    const file = join(await folder, `once-${++files}.conf`);
    const sink = [
      'a1.sinks.k1.type = file_roll',
      'a1.sinks.k1.sink.directory = out',
      'a1.sinks.k1.sink.exactlyOnce = true',
    ];
    await writeFile(file, agent('a1.sources.r1.bind = localhost', ...sink, ...lines));
    const lookups = { env: {}, system: {} };
    const { problems } = await check({ files: [file], agent: 'a1', registry: builtIn, lookups });
    return problems.map(({ message }) => message);
  };

  test('takes from a file channel, alone', async () => {
    expect(await messages('a1.channels.c1.type = file')).toEqual([]);
    expect(await messages()).toEqual(['k1 has exactlyOnce, and takes from a memory channel']);
    const other = ['a1.sinks = k1 k2', 'a1.sinks.k2.type = null', 'a1.sinks.k2.channel = c1'];
    expect(await messages('a1.channels.c1.type = file', ...other)).toEqual([
      'k1 has exactlyOnce, and k2 takes from c1 as well',
    ]);
  });
});

describe('a Kafka sink behind a Kafka source', () => {
  const messages = async (...lines: string[]) => {
    const file = join(await folder, `loop-${++files}.conf`);
    const given = [
      'a1.sources.r1.port',
      'a1.sources.r1.type = kafka',
      'a1.sources.r1.kafka.bootstrap.servers = kafka1:9092,kafka2:9092',
      'a1.sources.r1.kafka.topics = orders,returns',
      'a1.sources.r1.batchSize = 100',
      'a1.sinks.k1.type = kafka',
      'a1.sinks.k1.kafka.bootstrap.servers = kafka2:9092,kafka3:9092',
      'a1.sinks.k1.kafka.topic = elsewhere',
    ];
    await writeFile(file, agent(...given, ...lines));
    const lookups = { env: {}, system: {} };
    const { problems } = await check({ files: [file], agent: 'a1', registry: builtIn, lookups });
    return problems.map(({ severity, message, advice }) => [severity, message, advice]);
  };
  const byHeader = (name: string) => [
    'warning',
    `k1 writes back to the topics that r1 reads: the header ${name} names them, and wins over the topic of k1`,
    'Then r1 reads it again, for ever. Set a1.sinks.k1.allowTopicOverride = false or a1.sources.r1.setTopicHeader = false, or another topicHeader in one of them.',
  ];
  const byName = (topic: string) => [
    'warning',
    `k1 writes back to a topic that r1 reads, ${topic}`,
    'Then r1 reads it again, for ever. Set another a1.sinks.k1.kafka.topic.',
  ];
  const own = 'a1.sinks.k1.allowTopicOverride = false';

  test.each<[string, string[], unknown[]]>([
    ['follows the header of the source', [], [byHeader('topic')]],
    [
      'follows its header of another name',
      ['a1.sources.r1.topicHeader = t', 'a1.sinks.k1.topicHeader = t'],
      [byHeader('t')],
    ],
    ['has a topic of its own', [own], []],
    ['follows no header, for there is none', ['a1.sources.r1.setTopicHeader = false'], []],
    ['follows another header', ['a1.sinks.k1.topicHeader = to'], []],
    ['names a topic of the source', [own, 'a1.sinks.k1.kafka.topic = returns'], [byName('returns')]],
    [
      'names a topic that the source finds',
      [own, 'a1.sources.r1.kafka.topics', 'a1.sources.r1.kafka.topics.regex = else.*'],
      [byName('elsewhere')],
    ],
    [
      'names a topic that begins like one',
      [own, 'a1.sources.r1.kafka.topics', 'a1.sources.r1.kafka.topics.regex = else'],
      [],
    ],
    ['is on another cluster', ['a1.sinks.k1.kafka.bootstrap.servers = mirror:9092'], []],
    [
      'has another channel',
      [
        'a1.sources = r1 r2',
        'a1.sources.r2.type = seq',
        'a1.sources.r2.channels = c2',
        'a1.channels = c1 c2',
        'a1.channels.c2.type = memory',
        'a1.sinks = k1 k2',
        'a1.sinks.k1.channel = c2',
        'a1.sinks.k2.type = null',
        'a1.sinks.k2.channel = c1',
      ],
      [],
    ],
  ])('%s', async (_, lines, expected) => {
    expect(await messages(...lines)).toEqual(expected);
  });
});

describe('for all files', () => {
  const lines = agent(
    'a1.sources.r1.selector.type = multiplexing',
    'a1.sources.r1.selector.mapping.x = c1',
    'a1.sources.r1.interceptors = i1',
    'a1.sources.r1.interceptors.i1.type = host',
    'a1.sinkgroups = g1',
    'a1.sinkgroups.g1.sinks = k1',
    'a1.sinkgroups.g1.processor.type = failover',
    'a1.configfilters = f1',
    'a1.configfilters.f1.type = env',
    'a1.sources.r1.keystore-password = ${f1[PW]}',
  ).split('\n');
  const word = fc.constantFrom(
    'c1',
    'r1',
    'k1',
    'memory',
    'netcat',
    '__proto__',
    'constructor',
    '1',
    '',
    'a.b',
    '${x}',
  );
  const line = fc.oneof(
    fc.constantFrom(...lines),
    fc.tuple(fc.constantFrom(...lines), word).map(([text, value]) => text.replace(/=.*/, `= ${value}`)),
    fc.tuple(fc.constantFrom(...lines), word).map(([text, part]) => text.replace(/\.[^.]*? =/, `.${part} =`)),
    fc.string({ maxLength: 40 }),
  );

  test('it says what is wrong and does not throw; a plan exists only without errors', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 30 }), async text => {
        const { plan, problems } = await checked(text.join('\n'));
        printProblems(problems);
        const errors = problems.filter(p => p.severity === 'error').length;
        expect(plan === undefined).toBe(errors > 0);
        for (const { channels } of plan?.sources ?? []) {
          for (const name of channels) expect(plan?.channels.map(c => c.name)).toContain(name);
        }
      }),
      { numRuns: 500 },
    );
  });
});

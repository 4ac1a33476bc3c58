import kafkajs, { type Message } from 'kafkajs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { flumeKafkaClasspath, flumeMissing } from '../../bench/flume.ts';
import { freePort, type Running } from '../../bench/processes.ts';
import { event, headers } from '../../src/index.ts';
import { decodeAvroEvent, encodeAvroEvent } from '../../src/protocols/avro-event.ts';
import { built } from '../built.ts';
import { fetchKafka, kafkaMissing, startKafka, versionsFor, type Kafka, type KafkaRecord } from '../kafka/brokers.ts';
import { describeReal } from '../real.ts';
import { both, configuration, launch, listens, removeFolder, stopAll, until, type Agent } from './agents.ts';

// Real Flume 1.11 and millrace on one broker: each reads what the other has written, and goes on where it was.
const describeFlume = await describeReal(
  'Kafka with real Flume',
  flumeMissing() ?? kafkaMissing(),
  async () => await Promise.all([flumeKafkaClasspath(), fetchKafka()]),
);

const patience = 60_000;

/** As some other program does. Where no partition is named it is the first. */
const write = async ({ bootstrap }: Kafka, topic: string, messages: readonly Message[]) => {
  const client = new kafkajs.Kafka({ brokers: bootstrap, logLevel: kafkajs.logLevel.ERROR });
  const producer = client.producer({ createPartitioner: () => () => 0 });
  await producer.connect();
  await producer.send({ topic, messages: [...messages], acks: -1 });
  await producer.disconnect();
};
const directions = [
  ['flume', 'millrace'],
  ['millrace', 'flume'],
] as const satisfies readonly (readonly [Agent, Agent])[];

const classNames = {
  sources: 'org.apache.flume.source.kafka.KafkaSource',
  channels: 'org.apache.flume.channel.kafka.KafkaChannel',
  sinks: 'org.apache.flume.sink.kafka.KafkaSink',
};

afterAll(removeFolder);

describeFlume.each(versionsFor('Kafka with real Flume'))('Kafka %s beside real Flume', version => {
  let kafka: Kafka;
  beforeAll(async () => {
    built();
    kafka = await startKafka({ version });
  }, 240_000);
  afterEach(stopAll);
  afterAll(() => kafka.stop());

  /** What every component is told. Flume's own default is a second, and to begin with what comes then. */
  const source = (more: string) =>
    `type = ${classNames.sources}
     kafka.bootstrap.servers = ${kafka.bootstrap.join(',')}
     kafka.consumer.auto.offset.reset = earliest
     batchDurationMillis = 100
     ${more}`;
  const channel = (more: string) =>
    `type = ${classNames.channels}
     kafka.bootstrap.servers = ${kafka.bootstrap.join(',')}
     ${more}`;
  const sink = (more: string) =>
    `type = ${classNames.sinks}
     kafka.bootstrap.servers = ${kafka.bootstrap.join(',')}
     kafka.producer.acks = all
     ${more}`;
  const memory = 'type = memory\ncapacity = 10000\ntransactionCapacity = 1000';

  const count = async (topic: string) => (await kafka.ends(topic)).reduce((sum, end) => sum + end, 0);
  const arrived = (topic: string, records: number, ...agents: readonly Running[]) =>
    until(`${topic} has ${records} records`, async () => (await count(topic)) >= records, patience).catch(
      async (cause: unknown) => {
        const outputs = agents.map(agent => agent.output()).join('\n---\n');
        throw new Error(`${String(cause)}: it has ${await count(topic)}\n${outputs}`);
      },
    );
  /** Without the time, if it is now. */
  const textOf = ({ key, value, headers: own, timestamp }: KafkaRecord, from: string) => ({
    ...(timestamp < Date.now() - 3_600_000 && { timestamp }),
    key: key?.toString() ?? null,
    value: value?.toString('latin1') ?? null,
    headers: Object.fromEntries(Object.entries(own).map(([name, text]) => [name, String(text).replace(from, 'from')])),
  });

  it('events in Avro go through both, and stay what they are', async () => {
    // t0 was written here, t1 by Flume, t2 by millrace that read what Flume wrote, t3 by Flume that read what millrace wrote.
    for (const topic of ['t0', 't1', 't2', 't3']) await kafka.createTopic(topic);
    const events = [
      event('plain'),
      event('', headers({ only: 'headers' })),
      event('empty values', headers({ '': 'no name', empty: '' })),
      event('names', headers({ 'a b': 'c\nd\r\n\te', ключ: 'значение', '😀': '👩‍👩‍👧 \u{10ffff}', 'q"\\=:#!': '"\\=:#!' })),
      event('a key', headers({ key: 'grüße' })),
      event(
        'java',
        headers({ constructor: 'x', hasOwnProperty: 'y', toString: 'z', 'a.b.c': '1', 'line\nbreak': '2' }),
      ),
      event(Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))),
      event(Buffer.from([0xc3, 0x28, 0xff, 0x00, 0xed, 0xa0, 0x80]), headers({ kind: 'no UTF-8' })),
      event(Buffer.alloc(1_000_000, 'x'), headers({ kind: 'large' })),
      event('long', headers({ long: 'ü'.repeat(40_000) })),
      event('many', headers(Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`name${i}`, `value${i}`])))),
      event('last'),
    ];
    // One at a time: what is sent at once is one batch to the broker, and the largest is as large as that may be.
    for (const one of events)
      await write(kafka, 't0', [{ key: one.headers['key'] ?? null, value: encodeAvroEvent(one) }]);
    const relay = (from: string, to: string) =>
      configuration({
        'sources r1': source(
          `kafka.topics = ${from}\nkafka.consumer.group.id = ${to}\nuseFlumeEventFormat = true\nsetTopicHeader = false\nchannels = c1`,
        ),
        'channels c1': memory,
        'sinks k1': sink(`kafka.topic = ${to}\nuseFlumeEventFormat = true\nchannel = c1`),
      });
    // The same by class name and by the alias that is ours.
    const aliased = Object.values(classNames).reduce((text, name) => text.replaceAll(name, 'kafka'), relay('t1', 't2'));
    const agents = await Promise.all([
      launch('flume', relay('t0', 't1'), { kafka: true }),
      launch('millrace', aliased),
      launch('flume', relay('t2', 't3'), { kafka: true }),
    ]);
    await arrived('t3', events.length, ...agents);
    for (const topic of ['t1', 't2', 't3']) {
      const records = (await kafka.read(topic))[0]!;
      expect(records.map(({ key }) => key?.toString())).toEqual(events.map(one => one.headers['key']));
      for (const [index, { value }] of records.entries()) {
        const { headers: found, body } = decodeAvroEvent(value!);
        const { timestamp, partition, offset, ...own } = found;
        expect({ ...own }).toEqual({ ...events[index]!.headers });
        expect([timestamp, partition, offset]).toEqual([expect.stringMatching(/^\d{13}$/), '0', String(index)]);
        expect(body.equals(events[index]!.body)).toBe(true);
      }
      expect(records).toHaveLength(events.length);
    }
  }, 180_000);

  it('keys, partitions, headers and topics of records are the same', async () => {
    const places = both.map(agent => ({ agent, to: `mapped-${agent}`, other: `other-${agent}` }));
    await kafka.createTopic('records');
    for (const { to, other } of places) {
      await kafka.createTopic(to, { partitions: 4 });
      await kafka.createTopic(other);
    }
    const records = (other: string): Message[] => [
      { key: null, value: 'to 3', headers: { p: '3', when: '1234567890123' } },
      { key: null, value: 'to 0', headers: { p: '0', x: 'x', unmapped: 'u' } },
      { key: 'k', value: 'a key, and 2', headers: { p: '2', k: 'not the key' } },
      ...Array.from({ length: 20 }, (_, i) => ({ key: `key ${i} grüße`, value: `by key ${i}` })),
      { key: 'k', value: 'again', headers: { x: ['first', 'last'] } },
      { key: '', value: 'an empty key' },
      { key: 'k', value: null },
      { key: 'k', value: '' },
      { key: 'k', value: 'elsewhere', headers: { to: other } },
    ];
    const found = await Promise.all(
      places.map(async ({ agent, to, other }) => {
        const from = `from-${agent}`;
        await kafka.createTopic(from);
        await write(kafka, from, records(other));
        const running = await launch(
          agent,
          configuration({
            'sources r1': source(`kafka.topics = ${from}\nkafka.consumer.group.id = ${to}
              topicHeader = origin\nheader.x = x\nheader.part = p\nheader.when = when\nheader.dest = to\nheader.who = k\nchannels = c1`),
            'channels c1': memory,
            'sinks k1': sink(`kafka.topic = ${to}\ntopicHeader = dest\npartitionIdHeader = part\ntimestampHeader = when
              header.x = x-out\nheader.who = who-out\nheader.origin = origin-out\nheader.offset = offset-out\nheader.missing = missing-out\nchannel = c1`),
          }),
          { kafka: true },
        );
        await arrived(to, records(other).length - 1, running);
        await arrived(other, 1, running);
        const all = [...(await kafka.read(to)), ...(await kafka.read(other))];
        return all.map(partition => partition.map(record => textOf(record, from)));
      }),
    );
    expect(found[0]![3]).toContainEqual({
      timestamp: 1234567890123,
      key: null,
      value: 'to 3',
      headers: { 'origin-out': 'from', 'offset-out': '0' },
    });
    expect(found[1]).toEqual(found[0]);
  }, 180_000);

  it('a record that is no event: Flume leaves it out, here nothing behind it is read before somebody says so', async () => {
    await kafka.createTopic('poisoned');
    for (const agent of both) await kafka.createTopic(`poisoned-${agent}`);
    const good = (body: string): Message => ({ value: encodeAvroEvent(event(body)) });
    await write(kafka, 'poisoned', [good('before'), { value: 'no event' }, good('behind')]);
    const flow = (agent: Agent, more = '') =>
      configuration({
        'sources r1': source(
          `kafka.topics = poisoned\nkafka.consumer.group.id = ${agent}\nuseFlumeEventFormat = true\nsetTopicHeader = false\n${more}\nchannels = c1`,
        ),
        'channels c1': memory,
        'sinks k1': sink(`kafka.topic = poisoned-${agent}\nchannel = c1`),
      });
    const bodies = async (agent: Agent) =>
      (await kafka.read(`poisoned-${agent}`))[0]!.map(({ value }) => String(value));
    await arrived('poisoned-flume', 2, await launch('flume', flow('flume'), { kafka: true }));
    expect(await bodies('flume')).toEqual(['before', 'behind']);
    const ours = await launch('millrace', flow('millrace'));
    await until('it says where', () => /poisoned\D+0\D+1\b/.test(ours.output()), patience);
    await ours.stop();
    expect(await bodies('millrace')).toEqual(['before']);
    await arrived('poisoned-millrace', 2, await launch('millrace', flow('millrace', 'onPoison = skip')));
    expect(await bodies('millrace')).toEqual(['before', 'behind']);
  }, 120_000);

  it.each(both)(
    '%s: with a topic header events go round in the topic that they come from',
    async agent => {
      const [from, to] = [`round-${agent}`, `never-${agent}`];
      for (const topic of [from, to]) await kafka.createTopic(topic);
      await write(kafka, from, [{ value: 'round' }]);
      const flow = (more: string) =>
        configuration({
          'sources r1': source(
            `kafka.topics = ${from}\nkafka.consumer.group.id = ${to}\nbatchSize = 1\n${more}\nchannels = c1`,
          ),
          'channels c1': memory,
          'sinks k1': sink(`kafka.topic = ${to}\nchannel = c1`),
        });
      const running = await launch(agent, flow(''), { kafka: true });
      await arrived(from, 3, running);
      await running.stop();
      expect(await count(to)).toBe(0);
      if (agent === 'flume') return;
      await arrived(to, 1, await launch(agent, flow('setTopicHeader = false')));
    },
    120_000,
  );

  it.each(directions)(
    'a Kafka channel that %s fills and %s empties',
    async (first, second) => {
      const name = (what: string) => `${what}-${first}`;
      for (const what of ['events', 'bodies', 'events-out', 'bodies-out']) await kafka.createTopic(name(what));
      const port = await freePort();
      const channels = {
        'channels c1': channel(`kafka.topic = ${name('events')}\nkafka.consumer.group.id = ${name('g')}`),
        'channels c2': channel(
          `kafka.topic = ${name('bodies')}\nkafka.consumer.group.id = ${name('g')}\nparseAsFlumeEvent = false`,
        ),
      };
      const puts = configuration({
        'sources r1': `type = http\nbind = 127.0.0.1\nport = ${port}\nchannels = c1 c2`,
        ...channels,
      });
      const takes = configuration({
        ...channels,
        'sinks k1': sink(`kafka.topic = ${name('events-out')}\nuseFlumeEventFormat = true\nchannel = c1`),
        'sinks k2': sink(`kafka.topic = ${name('bodies-out')}\nuseFlumeEventFormat = true\nchannel = c2`),
      });
      const agents = await Promise.all([launch(first, puts, { kafka: true }), launch(second, takes, { kafka: true })]);
      await listens(port);
      const events = [
        { headers: { '': 'no name', ключ: '😀', 'a b': 'c\nd' }, body: 'grüße' },
        { headers: { key: 'a key', h: 'v' }, body: 'with a key' },
        { headers: {}, body: 'nothing else' },
        { headers: { h: 'v' }, body: '' },
      ];
      for (const one of events) {
        const answer = await fetch(`http://127.0.0.1:${port}`, { method: 'POST', body: JSON.stringify([one]) });
        expect(answer.status).toBe(200);
      }
      await arrived(name('events-out'), events.length, ...agents);
      await arrived(name('bodies-out'), events.length, ...agents);
      const out = async (topic: string) =>
        (await kafka.read(topic))[0]!.map(({ key, value }) => {
          const { headers: own, body } = decodeAvroEvent(value!);
          return { key: key?.toString(), headers: { ...own }, body: String(body) };
        });
      expect(await out(name('events-out'))).toEqual(
        events.map(one => ({ key: (one.headers as { key?: string }).key, ...one })),
      );
      expect(await out(name('bodies-out'))).toEqual(
        events.map(({ headers: { key }, body }: { headers: { key?: string }; body: string }) => ({
          key,
          headers: key === undefined ? {} : { key },
          body,
        })),
      );
      expect((await kafka.read(name('bodies')))[0]!.map(({ value }) => String(value))).toEqual(
        events.map(({ body }) => body),
      );
    },
    120_000,
  );

  /** A source and a channel, each a member of a group; what is acked there is in a topic, so that nothing can be lost in memory. */
  const relay = (name: string) =>
    configuration({
      'sources r1': source(
        `kafka.topics = ${name}\nkafka.consumer.group.id = ${name}-source\nbatchSize = 100\nsetTopicHeader = false\nchannels = c1`,
      ),
      'channels c1': channel(
        `kafka.topic = ${name}-channel\nkafka.consumer.group.id = ${name}-channel\nparseAsFlumeEvent = false`,
      ),
      'sinks k1': sink(`kafka.topic = ${name}-out\nflumeBatchSize = 100\nchannel = c1`),
    });
  const numbers = (from: number, to: number): Message[] =>
    Array.from({ length: to - from }, (_, i) => ({ value: String(from + i), partition: i % 2 }));

  const topics = async (name: string) => {
    for (const topic of [name, `${name}-channel`, `${name}-out`]) await kafka.createTopic(topic, { partitions: 2 });
  };
  /** How many came more than once in the channel and at the end; throws unless all came. */
  const twice = async (name: string, total: number) => {
    const counts = [];
    for (const topic of [`${name}-channel`, `${name}-out`]) {
      const all = (await kafka.read(topic)).flat().map(({ value }) => String(value));
      const different = new Set(all);
      expect(Array.from({ length: total }, (_, i) => String(i)).filter(one => !different.has(one))).toEqual([]);
      counts.push(all.length - total);
    }
    return counts as [channel: number, out: number];
  };

  it.each(directions)(
    '%s hands its offsets over to %s in the middle: nothing is lost',
    async (first, second) => {
      const name = `handed-${first}`;
      await topics(name);
      await write(kafka, name, numbers(0, 3000));
      const one = await launch(first, relay(name), { kafka: true });
      await arrived(`${name}-out`, 1, one);
      await Promise.all([one.stop(), write(kafka, name, numbers(3000, 6000))]);
      await write(kafka, name, numbers(6000, 9000));
      const other = await launch(second, relay(name), { kafka: true });
      await until('the last is there', async () => (await kafka.read(`${name}-out`)).flat().length >= 9000, patience);
      await other.stop();
      const [inChannel, inOut] = await twice(name, 9000);
      // Each stop commits what was written: nothing comes twice. Flume's may end between a write and its commit: one batch.
      const bound = first === 'millrace' ? 0 : 100;
      expect(inChannel).toBeLessThanOrEqual(bound);
      expect(inOut).toBeLessThanOrEqual(inChannel + bound);
    },
    180_000,
  );

  it('both share the partitions of a group while both run', async () => {
    const name = 'shared';
    await topics(name);
    await write(kafka, name, numbers(0, 1000));
    const flume = await launch('flume', relay(name), { kafka: true });
    await arrived(`${name}-out`, 1000, flume);
    const ours = await launch('millrace', relay(name));
    const members = async (group: string) => (await kafka.admin(admin => admin.describeGroups([group]))).groups[0]!;
    for (const group of [`${name}-source`, `${name}-channel`])
      await until(
        `${group} has two members`,
        async () => {
          const { members: all, state } = await members(group);
          return state === 'Stable' && all.length === 2;
        },
        patience,
      );
    await write(kafka, name, numbers(1000, 2000));
    await arrived(`${name}-out`, 2000, flume, ours);
    await flume.stop();
    await write(kafka, name, numbers(2000, 3000));
    await arrived(`${name}-out`, 3000, ours);
    await ours.stop();
    // Flume gives a partition up with a batch that it has taken and not committed.
    const [inChannel, inOut] = await twice(name, 3000);
    expect(inChannel).toBeLessThanOrEqual(100);
    expect(inOut).toBeLessThanOrEqual(inChannel + 100);
  }, 180_000);
});

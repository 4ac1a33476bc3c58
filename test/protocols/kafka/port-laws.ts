/**
 * What every client of Kafka has to do: the promises of `src/protocols/kafka/client.ts`, as tests that run on any of them,
 * against a cluster in memory or real brokers.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { isPermanent } from '../../../src/core/errors.ts';
import {
  compressions,
  type Assigned,
  type ConsumerListener,
  type ConsumerOptions,
  type KafkaClient,
  type KafkaConsumer,
  type KafkaProducer,
  type NewRecord,
  type Position,
  type ReadRecord,
  type TopicPartition,
} from '../../../src/protocols/kafka/client.ts';
import type { FakeClock } from '../../../src/testing/index.ts';

/** How the laws wait: with the time that the client and its cluster live in. */
export interface Time {
  /** Until it holds; throws if it never does. */
  readonly until: (condition: () => boolean) => Promise<void>;
  /** The outcome of a promise of the client. */
  readonly settle: <R>(promise: Promise<R>) => Promise<R>;
  /** Lets time pass in which something might happen that should not. */
  readonly pass: (ms: number) => Promise<void>;
}

export const realTime: Time = {
  until: condition =>
    vi.waitFor(
      () => {
        if (!condition()) throw new Error(`it does not happen: ${String(condition)}`);
      },
      { timeout: 60_000, interval: 20 },
    ),
  settle: promise => promise,
  pass: sleep,
};

export const fakeTime = (clock: FakeClock): Time => ({
  until: async condition => {
    if (!(await clock.until(condition))) throw new Error(`it does not happen: ${String(condition)}`);
  },
  settle: promise => clock.settle(promise),
  pass: ms => clock.advance(ms),
});

/** What the laws are tried on. Laws whose means are not given are skipped. */
export interface PortSpec {
  readonly time: Time;
  /** A new client. Brokers must not make topics by themselves. */
  connect(): Promise<KafkaClient>;
  createTopic(topic: string, partitions: number): Promise<void> | void;
  /** What consumers are given besides; short times make the laws fast. */
  readonly consumer?: Partial<ConsumerOptions>;
  /** Brokers take no larger batches, in bytes. Default 1 048 588. */
  readonly maxMessageBytes?: number;
  addPartitions?(topic: string, more: number): Promise<void> | void;
  deleteRecords?(of: TopicPartition, before: number): Promise<void> | void;
  /** Takes all brokers away, and brings them back. */
  down?(): Promise<void> | void;
  up?(): Promise<void> | void;
  /** The next send is written, but its answer does not arrive. */
  loseAnswer?(): Promise<void> | void;
  /** Puts all members out of a group. */
  expel?(group: string): Promise<void> | void;
}

const nameOf = ({ topic, partition }: TopicPartition) => `${topic}-${partition}`;

/** Hears everything, and notes what must not be. */
class Recorder implements ConsumerListener {
  readonly broken: string[] = [];
  readonly given: Assigned[] = [];
  readonly taken: { readonly partitions: readonly TopicPartition[]; readonly lost: boolean }[] = [];
  readonly troubles: Error[] = [];
  readonly recoveries: number[] = [];
  readonly outOf: { readonly of: Assigned; readonly wanted: number }[] = [];
  /** By partition. */
  readonly read = new Map<string, ReadRecord[]>();
  /** The next offset of each partition that is ours. */
  readonly next = new Map<string, number>();
  begin: (partition: Assigned) => number = ({ committed, first }) => committed ?? first;
  goOn: (partition: Assigned, wanted: number) => number = ({ first }) => first;
  whenRevoked: (partitions: readonly TopicPartition[], lost: boolean) => void | Promise<void> = () => undefined;
  whenRead: (of: TopicPartition, records: readonly ReadRecord[]) => void = () => undefined;
  /** Transactions leave offsets without records. */
  gaps = false;
  closed = false;

  assigned(partitions: readonly Assigned[]): readonly number[] {
    this.#open('assigned');
    this.given.push(...partitions);
    return partitions.map(of => {
      if (this.next.has(nameOf(of))) this.broken.push(`${nameOf(of)} was assigned twice`);
      const begin = this.begin(of);
      this.next.set(nameOf(of), begin);
      return begin;
    });
  }

  revoked(partitions: readonly TopicPartition[], lost: boolean): void | Promise<void> {
    this.#open('revoked');
    this.taken.push({ partitions, lost });
    for (const of of partitions)
      if (!this.next.delete(nameOf(of))) this.broken.push(`${nameOf(of)} was revoked, and was not ours`);
    return this.whenRevoked(partitions, lost);
  }

  records(of: TopicPartition, records: readonly ReadRecord[]): void {
    this.#open('records');
    const name = nameOf(of);
    if (records.length === 0) this.broken.push(`${name}: no records`);
    if (!this.next.has(name)) this.broken.push(`${name}: records, and it is not ours`);
    for (const record of records) {
      const due = this.next.get(name);
      const isDue = due === undefined || record.offset === due || (this.gaps && record.offset > due);
      if (!isDue) this.broken.push(`${name}: ${record.offset} instead of ${due}`);
      if (due !== undefined) this.next.set(name, record.offset + 1);
    }
    this.of(of).push(...records);
    this.whenRead(of, records);
  }

  outOfRange(of: Assigned, wanted: number): number {
    this.#open('outOfRange');
    this.outOf.push({ of, wanted });
    const next = this.goOn(of, wanted);
    this.next.set(nameOf(of), next);
    return next;
  }

  trouble(cause: Error): void {
    this.#open('trouble');
    this.troubles.push(cause);
  }

  recovered(): void {
    this.#open('recovered');
    this.recoveries.push(this.troubles.length);
  }

  /** Whether records may come is decided by the port; where from, by this. */
  seek(consumer: KafkaConsumer, to: Position): void {
    this.next.set(nameOf(to), to.offset);
    consumer.seek(to);
  }

  of(partition: TopicPartition): ReadRecord[] {
    const read = this.read.get(nameOf(partition)) ?? [];
    this.read.set(nameOf(partition), read);
    return read;
  }

  #open(what: string): void {
    if (this.closed) this.broken.push(`${what} after close`);
  }
}

const numbered = (count: number, from = 0): NewRecord[] =>
  Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.from(String(from + i)) }));
const texts = (records: readonly ReadRecord[]) => records.map(({ value }) => value?.toString());
const upTo = (count: number, from = 0) => Array.from({ length: count }, (_, i) => String(from + i));

/** Names that no other run has used: real brokers remember. */
const run = Date.now().toString(36);
let names = 0;
const newName = (what: string) => `laws-${what}-${run}-${++names}`;

/** Declares the laws as tests. */
export const portLaws = (name: string, spec: PortSpec): void => {
  const { time } = spec;
  const { until, settle, pass } = time;

  describe(`laws of the port: ${name}`, () => {
    let client: KafkaClient;
    let producer: KafkaProducer;
    /** What a test has opened. */
    const open: { readonly consumer: KafkaConsumer; readonly recorder: Recorder }[] = [];

    beforeAll(async () => {
      client = await spec.connect();
      producer = client.producer();
    });
    afterEach(async () => {
      const recorders = open.map(({ recorder }) => recorder);
      for (const one of open.splice(0)) await close(one);
      for (const { broken } of recorders) expect(broken).toEqual([]);
    });
    afterAll(async () => {
      await settle(producer.close());
      await settle(client.close());
    });

    const topicOf = async (partitions = 1): Promise<string> => {
      const topic = newName('topic');
      await spec.createTopic(topic, partitions);
      return topic;
    };
    const join = (
      topics: readonly string[] | RegExp,
      recorder = new Recorder(),
      options: Partial<ConsumerOptions> = {},
    ) => {
      const groupId = options.groupId ?? newName('group');
      const consumer = client.consumer({ ...spec.consumer, ...options, groupId, topics }, recorder);
      const joined = { consumer, recorder, groupId };
      open.push(joined);
      return joined;
    };
    const close = async ({ consumer, recorder }: (typeof open)[number]) => {
      if (recorder.closed) return;
      await settle(consumer.close());
      recorder.closed = true;
    };
    const send = (topic: string, partition: number, records: readonly NewRecord[]) =>
      settle(producer.send({ topic, partition }, records));

    describe('the client', () => {
      test('knows how many partitions a topic has, and where they begin and end', async () => {
        const topic = await topicOf(3);
        expect(await settle(client.partitions(topic))).toBe(3);
        await send(topic, 1, numbered(5));
        const offsets = [...(await settle(client.offsets(topic)))].sort((a, b) => a.partition - b.partition);
        expect(offsets.map(({ partition, first, end }) => ({ partition, first, end }))).toEqual([
          { partition: 0, first: 0, end: 0 },
          { partition: 1, first: 0, end: 5 },
          { partition: 2, first: 0, end: 0 },
        ]);
      });

      test('knows what may be done, and makes no topic', async () => {
        const topic = await topicOf(3);
        const missing = newName('missing');
        const all = new Set(['describe', 'read', 'write']);
        const [there, not] = await settle(client.describeTopics([topic, missing]));
        expect(there).toEqual({ topic, partitions: 3, rights: all });
        expect(not).toMatchObject({ topic: missing, partitions: 0 });
        expect(not?.rights).toContain('describe');
        expect(await settle(client.describeTopics(new RegExp(`^${topic}$`)))).toEqual([there]);
        expect(await settle(client.describeTopics(new RegExp(`^${missing}$`)))).toEqual([]);
        expect(await settle(client.describeGroup(newName('group')))).toEqual(new Set(['describe', 'read']));
      });

      test('says which topic is not there', async () => {
        const topic = newName('missing');
        await expect(settle(client.partitions(topic))).rejects.toMatchObject({
          code: 'MR_KAFKA_UNKNOWN_TOPIC',
          message: expect.stringContaining(topic) as string,
        });
      });
    });

    describe('transactions', () => {
      test('writes and the offset are there together; and only who began last commits', async () => {
        const transactions = client.transactions();
        const topic = await topicOf();
        const to = { topic, partition: 0 };
        const groupId = newName('group');
        const begin = () => settle(transactions.begin(`id of ${groupId}`, groupId, to));
        const first = await begin();
        expect(first.position).toBeUndefined();
        await settle(first.commit([{ to, records: numbered(3) }], 7));
        await settle(
          first.commit(
            [
              { to, records: numbered(2, 3) },
              { to, records: numbered(1, 5) },
            ],
            8,
          ),
        );
        const second = await begin();
        expect(second.position).toBe(8);
        await expect(settle(first.commit([{ to, records: numbered(3, 100) }], 9))).rejects.toThrow();
        await settle(second.commit([{ to, records: numbered(4, 6) }], 10));
        await settle(second.commit([], 11));
        expect((await begin()).position).toBe(11);
        await settle(transactions.close());
        const { recorder } = join([topic]);
        recorder.gaps = true;
        await until(() => recorder.of(to).length >= 10);
        expect(texts(recorder.of(to))).toEqual(upTo(10));
      });
    });

    describe('a producer', () => {
      test('resolves with the offset of the first record', async () => {
        const topic = await topicOf(2);
        expect(await send(topic, 0, numbered(3))).toBe(0);
        expect(await send(topic, 0, numbered(2))).toBe(3);
        expect(await send(topic, 1, numbered(1))).toBe(0);
        expect(await send(topic, 0, numbered(1))).toBe(5);
      });

      test('writes to several partitions at a time, and keeps the order of each', async () => {
        const topic = await topicOf(4);
        const lanes = [0, 1, 2, 3].map(async partition => {
          for (let batch = 0; batch < 20; batch++)
            expect(await producer.send({ topic, partition }, numbered(5, batch * 5))).toBe(batch * 5);
        });
        await settle(Promise.all(lanes));
        const { recorder } = join([topic]);
        await until(() => [0, 1, 2, 3].every(partition => recorder.of({ topic, partition }).length >= 100));
        for (const partition of [0, 1, 2, 3]) expect(texts(recorder.of({ topic, partition }))).toEqual(upTo(100));
      });

      test.each([
        { acks: 1, idempotent: false } as const,
        { acks: 'all', idempotent: false } as const,
        { acks: 'all', idempotent: true } as const,
      ])('confirms with %o', async options => {
        const topic = await topicOf();
        const other = client.producer(options);
        expect(await settle(other.send({ topic, partition: 0 }, numbered(2)))).toBe(0);
        expect(await settle(other.send({ topic, partition: 0 }, numbered(2)))).toBe(2);
        await settle(other.close());
      });

      test('with acks 0 knows nothing, and writes', async () => {
        const topic = await topicOf();
        const other = client.producer({ acks: 0, idempotent: false });
        expect(await settle(other.send({ topic, partition: 0 }, numbered(2)))).toBe(-1);
        const { recorder } = join([topic]);
        await until(() => recorder.of({ topic, partition: 0 }).length === 2);
        await settle(other.close());
      });

      test('rejects for a topic and for a partition that are not there', async () => {
        const missing = newName('missing');
        await expect(send(missing, 0, numbered(1))).rejects.toMatchObject({ code: 'MR_KAFKA_UNKNOWN_TOPIC' });
        const topic = await topicOf();
        await expect(send(topic, 7, numbered(1))).rejects.toMatchObject({ code: 'MR_KAFKA_UNKNOWN_TOPIC' });
        expect(await send(topic, 0, numbered(1))).toBe(0);
      });

      test('rejects for good what is too large, writes nothing of it, and goes on', async () => {
        const topic = await topicOf();
        const large = Buffer.alloc((spec.maxMessageBytes ?? 1_048_588) + 1);
        const refused = send(topic, 0, [...numbered(2), { key: null, value: large }]);
        await expect(refused).rejects.toMatchObject({ code: 'MR_EVENT_TOO_LARGE' });
        await expect(refused.catch(isPermanent)).resolves.toBe(true);
        expect(await send(topic, 0, numbered(2))).toBe(0);
        expect(await send(topic, 0, numbered(2))).toBe(2);
      });

      test.skipIf(spec.loseAnswer === undefined)(
        'after an answer was lost: the same again is not there twice, and other records are not taken for it',
        async () => {
          const topic = await topicOf(2);
          const same = client.producer({ requestTimeout: 2000 });
          const attempt = (partition: number, records: readonly NewRecord[]) =>
            settle(same.send({ topic, partition }, records)).then(
              () => true,
              (error: unknown) => {
                expect(isPermanent(error)).toBe(false);
                return false;
              },
            );
          for (const [partition, then] of [numbered(4), numbered(4, 100)].entries()) {
            expect(await attempt(partition, numbered(1, 50))).toBe(true);
            await spec.loseAnswer?.();
            const known = await attempt(partition, numbered(4));
            if (!known || partition === 1) while (!(await attempt(partition, then)));
          }
          await settle(same.close());
          const { recorder } = join([topic]);
          await until(() => recorder.of({ topic, partition: 1 }).length >= 9);
          await until(() => recorder.of({ topic, partition: 0 }).length >= 5);
          expect(texts(recorder.of({ topic, partition: 0 }))).toEqual(['50', ...upTo(4)]);
          expect(texts(recorder.of({ topic, partition: 1 }))).toEqual(['50', ...upTo(4), ...upTo(4, 100)]);
        },
      );
    });

    describe('records', () => {
      const roundTrip = async (records: readonly NewRecord[]): Promise<readonly ReadRecord[]> => {
        const topic = await topicOf();
        await send(topic, 0, records);
        const { recorder } = join([topic]);
        const read = recorder.of({ topic, partition: 0 });
        await until(() => read.length >= records.length);
        return read;
      };

      test('keys and values may be null, or empty, or any bytes', async () => {
        const bytes = Buffer.from([0, 255, 128, 10, 13]);
        const empty = Buffer.alloc(0);
        const records = [null, empty, bytes].flatMap(key => [null, empty, bytes].map(value => ({ key, value })));
        const read = await roundTrip(records);
        expect(read.map(({ key, value }) => ({ key, value }))).toEqual(records);
      });

      test('headers have text or bytes; a name that is there several times has several values', async () => {
        const bytes = Buffer.from([0, 255, 1]);
        const [one, none] = await roundTrip([
          {
            key: null,
            value: null,
            headers: { text: 'grün', bytes, empty: '', many: ['a', bytes, ''], __proto__x: 'x' },
          },
          { key: null, value: null },
        ]);
        const text = (value: string) => Buffer.from(value);
        expect({ ...one?.headers }).toEqual({
          text: text('grün'),
          bytes,
          empty: text(''),
          many: [text('a'), bytes, text('')],
          __proto__x: text('x'),
        });
        expect(none?.headers ?? {}).toEqual({});
      });

      test('they have the timestamp they were given', async () => {
        const timestamp = Date.UTC(2023, 5, 1, 12, 30, 15, 123);
        const [first, second] = await roundTrip([
          { key: null, value: null, timestamp },
          { key: null, value: null, timestamp: timestamp - 1000 },
        ]);
        expect(first?.timestamp).toBe(timestamp);
        expect(second?.timestamp).toBe(timestamp - 1000);
      });

      test.each(compressions)('compressed: %s', async compression => {
        const topic = await topicOf();
        const other = client.producer({ compression });
        const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 256));
        const records = [
          ...numbered(1000),
          { key: bytes, value: Buffer.alloc(300_000, 'long '), headers: { h: bytes } },
        ];
        await settle(other.send({ topic, partition: 0 }, records));
        await settle(other.close());
        const { recorder } = join([topic]);
        const read = recorder.of({ topic, partition: 0 });
        await until(() => read.length >= 1001);
        expect(texts(read.slice(0, 1000))).toEqual(upTo(1000));
        expect(read[1000]?.key).toEqual(bytes);
        expect(read[1000]?.value?.equals(records[1000]?.value as Buffer)).toBe(true);
        expect({ ...read[1000]?.headers }).toEqual({ h: bytes });
      });

      test('large ones and many tiny ones come whole', async () => {
        const large = Buffer.alloc(Math.floor((spec.maxMessageBytes ?? 1_048_588) * 0.9), 'x');
        const topic = await topicOf();
        await send(topic, 0, [{ key: null, value: large }]);
        await send(topic, 0, numbered(10_000));
        await send(topic, 0, [{ key: null, value: large }]);
        const { recorder } = join([topic]);
        const read = recorder.of({ topic, partition: 0 });
        await until(() => read.length >= 10_002);
        expect(read[0]?.value?.equals(large)).toBe(true);
        expect(texts(read.slice(1, -1))).toEqual(upTo(10_000));
        expect(read.at(-1)?.value?.equals(large)).toBe(true);
      });
    });

    describe('a consumer', () => {
      test('is told of its partitions, and reads each in order from where it said', async () => {
        const topic = await topicOf(3);
        for (const partition of [0, 1, 2]) await send(topic, partition, numbered(100));
        const { recorder } = join([topic]);
        recorder.begin = ({ partition, first, end }) => [first, 40, end][partition] as number;
        await until(() => recorder.next.size === 3);
        for (let batch = 0; batch < 10; batch++)
          for (const partition of [0, 1, 2]) await send(topic, partition, numbered(10, 100 + batch * 10));
        await until(() => [0, 1, 2].every(partition => recorder.next.get(`${topic}-${partition}`) === 200));
        expect(recorder.given.map(({ committed, first, end }) => ({ committed, first, end }))).toEqual(
          Array(3).fill({ committed: undefined, first: 0, end: 100 }),
        );
        expect(texts(recorder.of({ topic, partition: 0 }))).toEqual(upTo(200));
        expect(texts(recorder.of({ topic, partition: 1 }))).toEqual(upTo(160, 40));
        expect(texts(recorder.of({ topic, partition: 2 }))).toEqual(upTo(100, 100));
      });

      test('reads several topics', async () => {
        const topics = [await topicOf(), await topicOf(2)] as const;
        for (const topic of topics) await send(topic, 0, numbered(3));
        const { recorder } = join(topics);
        await until(() => topics.every(topic => recorder.of({ topic, partition: 0 }).length === 3));
      });

      test('reads no more of what is paused, goes on with the rest, and then where it was', async () => {
        const topic = await topicOf(2);
        const { recorder, consumer } = join([topic]);
        const [one, other] = [
          { topic, partition: 0 },
          { topic, partition: 1 },
        ] as const;
        await send(topic, 0, numbered(10));
        await until(() => recorder.of(one).length === 10);
        consumer.pause([one, { topic: newName('unknown'), partition: 3 }]);
        await pass(1000);
        await send(topic, 0, numbered(10, 10));
        await send(topic, 1, numbered(10));
        await until(() => recorder.of(other).length === 10);
        await pass(500);
        expect(recorder.of(one).length).toBe(10);
        consumer.resume([one, { topic: newName('unknown'), partition: 3 }]);
        await until(() => recorder.of(one).length >= 20);
        expect(texts(recorder.of(one))).toEqual(upTo(20));
      });

      test('pauses from within what it is told', async () => {
        const topic = await topicOf();
        const of = { topic, partition: 0 };
        for (let batch = 0; batch < 10; batch++) await send(topic, 0, numbered(100, batch * 100));
        const { recorder, consumer } = join([topic], new Recorder(), { maxBytesPerPartition: 2000 });
        let calls = 0;
        recorder.whenRead = () => {
          calls++;
          consumer.pause([of]);
        };
        await until(() => calls > 0);
        await pass(500);
        for (let seen = -1; recorder.of(of).length < 1000;) {
          if (recorder.of(of).length > seen) {
            seen = recorder.of(of).length;
            consumer.resume([of]);
          }
          await until(() => recorder.of(of).length > seen);
        }
        expect(texts(recorder.of(of))).toEqual(upTo(1000));
      });

      test('seeks backwards and forwards, also while paused', async () => {
        const topic = await topicOf();
        const of = { topic, partition: 0 };
        await send(topic, 0, numbered(100));
        const { recorder, consumer } = join([topic]);
        await until(() => recorder.of(of).length === 100);
        recorder.seek(consumer, { ...of, offset: 40 });
        await until(() => recorder.of(of).length === 160);
        consumer.pause([of]);
        recorder.seek(consumer, { ...of, offset: 90 });
        await pass(500);
        consumer.resume([of]);
        await until(() => recorder.of(of).length === 170);
        expect(texts(recorder.of(of))).toEqual([...upTo(100), ...upTo(60, 40), ...upTo(10, 90)]);
      });

      test('seeks from within what it is told: the rest of that is told no more', async () => {
        const topic = await topicOf();
        const of = { topic, partition: 0 };
        for (let batch = 0; batch < 10; batch++) await send(topic, 0, numbered(20, batch * 20));
        const { recorder, consumer } = join([topic], new Recorder(), { maxBytesPerPartition: 1000 });
        let again = 3;
        recorder.whenRead = () => {
          if (again-- > 0) recorder.seek(consumer, { ...of, offset: 0 });
        };
        await until(() => recorder.next.get(nameOf(of)) === 200);
        expect(texts(recorder.of(of).slice(-200))).toEqual(upTo(200));
      });

      test('says where to go on when an offset is not there', async () => {
        const topic = await topicOf();
        const of = { topic, partition: 0 };
        await send(topic, 0, numbered(10));
        const { recorder, consumer } = join([topic]);
        recorder.begin = () => 1000;
        recorder.goOn = () => 7;
        await until(() => recorder.of(of).length === 3);
        expect(recorder.outOf).toMatchObject([{ of: { ...of, first: 0, end: 10 }, wanted: 1000 }]);
        if (spec.deleteRecords === undefined) return;
        await spec.deleteRecords(of, 5);
        recorder.goOn = ({ first }) => first;
        recorder.seek(consumer, { ...of, offset: 2 });
        await until(() => recorder.of(of).length === 8);
        expect(recorder.outOf.slice(1)).toMatchObject([{ of: { ...of, first: 5, end: 10 }, wanted: 2 }]);
        expect(texts(recorder.of(of))).toEqual(['7', '8', '9', ...upTo(5, 5)]);
      });

      test('is told nothing after close', async () => {
        const topic = await topicOf(2);
        const joined = join([topic]);
        const { recorder } = joined;
        await send(topic, 0, numbered(10));
        await until(() => recorder.of({ topic, partition: 0 }).length === 10);
        await close(joined);
        expect(
          recorder.taken.flatMap(({ partitions, lost }) => partitions.map(of => [nameOf(of), lost])).sort(),
        ).toEqual([
          [`${topic}-0`, false],
          [`${topic}-1`, false],
        ]);
        await send(topic, 0, numbered(10));
        await pass(1000);
      });

      test('can be closed before it has joined', async () => {
        const topic = await topicOf();
        const joined = join([topic]);
        await close(joined);
        expect(joined.recorder.next.size).toBe(0);
        await pass(500);
      });

      test('waits for a topic that is not there yet', async () => {
        const topic = newName('later');
        const { recorder } = join([topic], new Recorder(), { metadataMaxAge: 1000 });
        await until(() => recorder.troubles.length > 0);
        expect(recorder.troubles[0]).toMatchObject({
          code: 'MR_KAFKA_UNKNOWN_TOPIC',
          message: expect.stringContaining(topic) as string,
        });
        await spec.createTopic(topic, 1);
        await send(topic, 0, numbered(3));
        await until(() => recorder.of({ topic, partition: 0 }).length === 3);
        await until(() => recorder.recoveries.length > 0);
        expect(recorder.troubles.length).toBe(1);
      });

      test('finds topics by an expression, and later ones as well', async () => {
        const prefix = newName('many');
        await spec.createTopic(`${prefix}-a`, 1);
        await send(`${prefix}-a`, 0, numbered(3));
        const { recorder } = join(new RegExp(`^${prefix}-.$`), new Recorder(), { metadataMaxAge: 1000 });
        await until(() => recorder.of({ topic: `${prefix}-a`, partition: 0 }).length === 3);
        await spec.createTopic(`${prefix}-b`, 1);
        await spec.createTopic(`${prefix}-other`, 1);
        await send(`${prefix}-b`, 0, numbered(3));
        await until(() => recorder.of({ topic: `${prefix}-b`, partition: 0 }).length >= 3);
        expect(recorder.read.has(`${prefix}-other-0`)).toBe(false);
      });

      test.skipIf(spec.addPartitions === undefined)('finds partitions that come later', async () => {
        const topic = await topicOf();
        const { recorder } = join([topic], new Recorder(), { metadataMaxAge: 1000 });
        await until(() => recorder.next.size === 1);
        await spec.addPartitions?.(topic, 1);
        await until(() => recorder.next.size === 2);
        await send(topic, 1, numbered(3));
        await until(() => recorder.of({ topic, partition: 1 }).length === 3);
      });

      test.skipIf(spec.down === undefined || spec.up === undefined)(
        'and a producer live through brokers that go and come',
        async () => {
          const topic = await topicOf();
          const of = { topic, partition: 0 };
          const { recorder, consumer } = join([topic]);
          await send(topic, 0, numbered(5));
          await until(() => recorder.of(of).length === 5);
          await settle(consumer.commit([{ ...of, offset: 5 }]));
          await spec.down?.();
          const refused = settle(client.producer({ requestTimeout: 2000 }).send(of, numbered(1)));
          await expect(
            refused.then(
              () => false,
              (error: unknown) => !isPermanent(error),
            ),
          ).resolves.toBe(true);
          await until(() => recorder.troubles.length > 0);
          await spec.up?.();
          await until(() => recorder.recoveries.at(-1) === recorder.troubles.length);
          const next = numbered(5, 5);
          for (let sent = false; !sent;)
            sent = await send(topic, 0, next).then(
              () => true,
              () => false,
            );
          const values = () => new Set(texts(recorder.of(of)));
          await until(() => values().size >= 10 || values().has('9'));
          expect([...values()]).toEqual(expect.arrayContaining(upTo(10)));
        },
      );
    });

    describe('a group', () => {
      const covered = (recorders: readonly Recorder[], count: number) => () => {
        const all = recorders.flatMap(({ next }) => [...next.keys()]);
        return all.length === count && new Set(all).size === count && recorders.every(({ next }) => next.size > 0);
      };

      test('goes on where it has committed', async () => {
        const topic = await topicOf(2);
        const of = { topic, partition: 0 };
        await send(topic, 0, numbered(10));
        const first = join([topic]);
        await until(() => first.recorder.of(of).length === 10);
        await settle(first.consumer.commit([{ ...of, offset: 4 }]));
        await settle(first.consumer.commit([{ ...of, offset: 7 }], 'said along'));
        await close(first);
        const second = join([topic], new Recorder(), { groupId: first.groupId });
        await until(() => second.recorder.of(of).length === 3);
        expect(second.recorder.given.find(({ partition }) => partition === 0)).toMatchObject({ committed: 7, end: 10 });
        expect(second.recorder.given.find(({ partition }) => partition === 1)?.committed).toBeUndefined();
        const others = join([topic]);
        await until(() => others.recorder.of(of).length === 10);
      });

      test('commits in revoked count, when a member leaves', async () => {
        const topic = await topicOf();
        const of = { topic, partition: 0 };
        await send(topic, 0, numbered(10));
        const first = join([topic]);
        await until(() => first.recorder.of(of).length === 10);
        first.recorder.whenRevoked = () => first.consumer.commit([{ ...of, offset: 6 }]);
        await close(first);
        const second = join([topic], new Recorder(), { groupId: first.groupId });
        await until(() => second.recorder.of(of).length === 4);
        expect(second.recorder.given[0]?.committed).toBe(6);
      });

      test('shares partitions; who has to give some up may commit before another gets them', async () => {
        const topic = await topicOf(4);
        const partitions = [0, 1, 2, 3].map(partition => ({ topic, partition }));
        for (const { partition } of partitions) await send(topic, partition, numbered(10));
        const first = join([topic]);
        await until(() => partitions.every(of => first.recorder.of(of).length === 10));
        const revoked = { begun: false, over: false };
        let early = false;
        first.recorder.whenRevoked = async (lost, forGood) => {
          if (forGood || revoked.begun) return;
          revoked.begun = true;
          await first.consumer.commit(lost.map(of => ({ ...of, offset: 9 })));
          revoked.over = true;
        };
        const second = join([topic], new Recorder(), { groupId: first.groupId });
        second.recorder.begin = ({ committed, first: oldest }) => {
          early ||= !revoked.over;
          return committed ?? oldest;
        };
        await until(covered([first.recorder, second.recorder], 4));
        expect({ ...revoked, early }).toEqual({ begun: true, over: true, early: false });
        expect(second.recorder.given.every(({ committed }) => committed === 9)).toBe(true);
        await until(() => [...second.recorder.next.values()].every(offset => offset === 10));

        for (const { partition } of partitions) await send(topic, partition, numbered(10, 10));
        const all = () => [first, second].flatMap(({ recorder }) => [...recorder.next.values()]);
        await until(() => all().length === 4 && all().every(offset => offset === 20));
        await close(first);
        await until(() => second.recorder.next.size === 4);
      });

      test('nobody commits what is not theirs', async () => {
        const topic = await topicOf();
        const { consumer, recorder } = join([topic]);
        await until(() => recorder.next.size === 1);
        await expect(settle(consumer.commit([{ topic, partition: 5, offset: 1 }]))).rejects.toThrow();
      });

      test('a member that reads nothing for long is still one', async () => {
        const topic = await topicOf();
        const { consumer, recorder, groupId } = join([topic]);
        await until(() => recorder.next.size === 1);
        consumer.pause([{ topic, partition: 0 }]);
        await pass((spec.consumer?.sessionTimeout ?? 30_000) * 1.5);
        consumer.resume([{ topic, partition: 0 }]);
        await send(topic, 0, numbered(3));
        await until(() => recorder.of({ topic, partition: 0 }).length === 3);
        await settle(consumer.commit([{ topic, partition: 0, offset: 3 }]));
        expect(recorder.taken).toEqual([]);
        expect(groupId).toContain('group');
      });

      test.skipIf(spec.expel === undefined)(
        'a member that is out has lost its partitions, and joins again',
        async () => {
          const topic = await topicOf();
          const of = { topic, partition: 0 };
          await send(topic, 0, numbered(10));
          const { consumer, recorder, groupId } = join([topic]);
          await until(() => recorder.of(of).length === 10);
          await settle(consumer.commit([{ ...of, offset: 4 }]));
          let late: Promise<unknown> | undefined;
          recorder.whenRevoked = (_, lost) => {
            if (lost) late = consumer.commit([{ ...of, offset: 9 }]).catch((error: unknown) => error);
          };
          await spec.expel?.(groupId);
          await until(() => recorder.given.length === 2);
          expect(recorder.taken).toMatchObject([{ lost: true }]);
          expect(await late).toBeInstanceOf(Error);
          expect(recorder.given[1]?.committed).toBe(4);
          await until(() => recorder.of(of).length === 16);
        },
      );
    });
  });
};

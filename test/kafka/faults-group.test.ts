/** Groups whose members come and go, are slow, or find that what they read is gone. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import { createSink, run, type Flow } from '../../src/index.ts';
import { kafkaSource } from '../../src/kafka.ts';
import { recordingLog } from '../../src/testing/index.ts';
import { kafkaVersions, startKafka, type Kafka } from './brokers.ts';
import { describeFaults, Pipeline, total, until, type Member, type PipelineOptions } from './faults.ts';

const timeout = 180_000;

describeFaults.each(kafkaVersions)('a group of Kafka %s, while events flow', version => {
  let kafka: Kafka;
  let pipeline: Pipeline | undefined;
  const readings: Flow[] = [];

  beforeAll(async () => {
    kafka = await startKafka({ version, nodes: 3, fastFailover: true });
  });
  afterEach(async () => {
    await pipeline?.end();
    for (const reading of readings.splice(0)) await reading.stop().catch(() => undefined);
  });
  afterAll(() => kafka.stop());

  const start = async (options: Omit<PipelineOptions, 'kafka'>) =>
    (pipeline = await Pipeline.start({ kafka, ...options }));

  test('members join and leave, one of them every 2 s for a minute', { timeout }, async () => {
    const flow = await start({ topic: 'restless', partitions: 4 });
    const staying: Member[] = [flow.join(), flow.join()];
    await flow.reach(1000);
    let changes = 0;
    await flow.during(async () => {
      for (const end = Date.now() + 60_000; Date.now() < end; changes++) {
        if (changes % 2 === 0) staying.push(flow.join());
        // The one that has been there for longest.
        else await (staying.shift() as Member).flow.stop();
        await new Promise(resolve => setTimeout(resolve, 2000));
        await flow.committed();
      }
      // It can go on like this for ever.
      await flow.reach(flow.numbers.allowed);
    });
    const duplicates = await flow.finish();
    expect(flow.collected.handovers).toBeGreaterThan(changes);
    // Everybody was asked to go, and nothing was out for long.
    expect(duplicates).toBe(0);
  });

  test('a sink takes longer for each batch than a session lasts', { timeout }, async () => {
    const flow = await start({
      topic: 'slow',
      partitions: 2,
      source: { maxInFlight: { deliveries: 4 }, batchSize: 20_000, prefetchRecords: 20_000 },
      write: () => new Promise(resolve => setTimeout(resolve, 8000)),
      concurrency: 4,
    });
    flow.numbers.upTo(total);
    await flow.writer.flow.done;
    const members = [flow.join(), flow.join()];
    // When all of it is acked, nothing is out as they go.
    await flow.reach(total);
    expect(await flow.finish()).toBe(0);
    for (const { log } of members) expect(log.entries).toEqual([]);
    // They had to share it only once, if at all.
    expect(flow.collected.handovers).toBeLessThanOrEqual(2);
  });

  test('a partition has to go while a slow batch of it is out', { timeout }, async () => {
    const flow = await start({
      topic: 'taken',
      partitions: 2,
      source: { maxInFlight: { events: 20_000 }, revokeTimeout: 200, batchSize: 5000 },
      write: () => new Promise(resolve => setTimeout(resolve, 2000)),
      concurrency: 4,
    });
    flow.numbers.upTo(total);
    flow.join();
    await until(
      () => flow.collected.next.every(next => next > 0),
      () => flow.state(),
    );
    flow.join();
    await flow.reach(total);
    const duplicates = await flow.finish();
    expect(flow.collected.handovers).toBeGreaterThan(0);
    // What was out, and no more.
    expect(duplicates).toBeGreaterThan(0);
    expect(duplicates).toBeLessThanOrEqual(20_000);
  });

  test('the topic is deleted and made again', { timeout }, async () => {
    const topic = 'remade';
    const flow = await start({ topic, partitions: 2 });
    const member = flow.join();
    await flow.reach(10_000);
    await kafka.deleteTopic(topic);
    flow.collected.remade();
    flow.numbers.upTo(10_500);
    await until(
      () =>
        flow.writer.sink.trouble?.message.includes('topic') === true &&
        (member.log.entries.at(-1)?.message ?? '').includes(topic),
      () => flow.state(),
    );
    await kafka.createTopic(topic, { partitions: 2 });
    await flow.reach(20_000);
    // And so that nobody sees it missing, with more in it than there was before.
    await kafka.deleteTopic(topic);
    flow.collected.remade();
    await kafka.createTopic(topic, { partitions: 2 });
    expect(await flow.finish({ from: 20_000 })).toBe(0);
  });

  test('what is to be read next was deleted: every policy', { timeout }, async () => {
    const topic = 'short';
    const flow = await start({ topic, partitions: 1 });
    const last = 1000;
    const kept = 50_000;
    flow.numbers.upTo(total - last);
    await until(
      async () => (await kafka.ends(topic))[0] === total - last,
      () => flow.state(),
    );
    let goOn = () => {};
    const gate = new Promise<void>(resolve => (goOn = resolve));
    const readers = (['earliest', 'latest', 'fail'] as const).map(onOutOfRange => {
      const read: number[] = [];
      const source = kafkaSource({
        bootstrapServers: kafka.bootstrap,
        topics: [topic],
        groupId: `short-${onOutOfRange}`,
        onOutOfRange,
        batchSize: 100,
        prefetchRecords: 1000,
        maxInFlight: { deliveries: 1 },
        consumer: { 'auto.offset.reset': 'earliest', 'max.partition.fetch.bytes': '20000', 'fetch.max.wait.ms': '100' },
      });
      const sink = createSink({
        write({ events }) {
          read.push(...events.map(({ body }) => Number(String(body))));
          return gate;
        },
      });
      const log = recordingLog();
      const reading = inScope(new Scope({ log }), () => run(source, sink));
      readings.push(reading);
      reading.done.catch(() => undefined);
      const lost = () =>
        (reading.metrics.find('SOURCE', 'kafka') as Record<string, number>)['LostRecordCount'] as number;
      return { read, reading, lost, log };
    });
    const [earliest, latest, fail] = readers as [(typeof readers)[0], (typeof readers)[0], (typeof readers)[0]];
    await until(
      () => readers.every(({ read }) => read.length > 0),
      () => readers.map(({ read }) => read.length),
    );
    await kafka.admin(async admin => {
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(kept) }] });
    });
    goOn();
    await until(
      () => earliest.lost() > 0 && latest.lost() > 0,
      () => JSON.stringify(readers.map(({ log }) => log.entries)),
    );
    flow.numbers.upTo(total);
    await until(
      () => [earliest, latest].every(({ read }) => read.at(-1) === total - 1),
      () => readers.map(({ read }) => read.at(-1)),
    );
    await expect(fail.reading.done).rejects.toMatchObject({ code: 'MR_KAFKA_OFFSET' });
    // What was fetched already still comes.
    for (const [{ read, lost, log }, from, says] of [
      [earliest, kept, `It goes on at ${kept} (earliest)`],
      [latest, total - last, `It goes on at ${total - last} (latest)`],
      [fail, total, 'is not there'],
    ] as const) {
      const before = read.findIndex((number, index) => number !== index);
      const fetched = before < 0 ? read.length : before;
      expect(fetched).toBeLessThan(kept);
      expect(read.slice(fetched)).toEqual(Array.from({ length: total - from }, (_, i) => from + i));
      expect(lost()).toBe(from === total ? 0 : from - fetched);
      expect(log.entries.map(({ message }) => message).join('\n')).toContain(says);
    }
  });
});

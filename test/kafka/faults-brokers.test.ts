/** Brokers and networks that fail under a pipeline of our sink and our source. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { kafkaVersions, oauthToken, startKafka, type Kafka, type KafkaNode } from './brokers.ts';
import { describeFaults, Pipeline, until, type PipelineOptions } from './faults.ts';
import { proxy, type Proxy } from './proxy.ts';

const timeout = 180_000;

describeFaults.each(kafkaVersions)('while events flow through three brokers of Kafka %s', version => {
  let kafka: Kafka;
  let folder: string;
  /** Between clients and each node, for those who do not log in. */
  const cables = new Map<number, Proxy>();
  let pipeline: Pipeline | undefined;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'faults-'));
    kafka = await startKafka({
      version,
      nodes: 3,
      fastFailover: true,
      security: ['none', 'sasl'],
      properties: { 'connections.max.reauth.ms': 3000 },
      advertise: async (port, node) => {
        if (cables.has(node)) return port;
        const cable = await proxy({ to: port });
        cables.set(node, cable);
        return cable.port;
      },
    });
  });
  afterEach(async () => {
    await pipeline?.end();
    for (const cable of cables.values()) cable.release();
    for (const node of kafka.nodes) {
      node.resume();
      if (node.pid() === undefined) await node.start();
    }
  });
  afterAll(async () => {
    await kafka.stop();
    for (const cable of cables.values()) await cable.close();
    rmSync(folder, { recursive: true });
  });

  const start = async (options: Omit<PipelineOptions, 'kafka' | 'partitions'> & { partitions?: number }) =>
    (pipeline = await Pipeline.start({ kafka, partitions: 3, ...options }));

  test('the leader is killed, then the coordinator', { timeout }, async () => {
    const topic = 'killed';
    const flow = await start({ topic });
    flow.join();
    flow.join();
    await flow.reach(2000);

    const leader = await kafka.leaderOf(topic, 0);
    await flow.during(async () => {
      await leader.kill();
      await until(
        async () => (await kafka.leaderOf(topic, 0)) !== leader,
        () => 'nobody else leads',
      );
      await flow.reach(flow.numbers.allowed);
      await leader.start();
    });
    await kafka.inSync(topic);
    await kafka.inSync('__consumer_offsets');

    const coordinator = await kafka.coordinatorOf(topic);
    await flow.during(async () => {
      await coordinator.kill();
      await until(
        async () => (await kafka.coordinatorOf(topic)) !== coordinator,
        () => 'nobody else coordinates',
      );
      await flow.reach(flow.numbers.allowed);
      await coordinator.start();
    });
    await flow.finish();
  });

  test('one node after the other is restarted', { timeout }, async () => {
    const topic = 'rolling';
    const flow = await start({ topic });
    flow.join();
    await flow.reach(2000);
    const led = new Set<KafkaNode>();
    for (const node of kafka.nodes)
      await flow.during(async () => {
        const leaders = await Promise.all([0, 1, 2].map(partition => kafka.leaderOf(topic, partition)));
        if (leaders.includes(node)) led.add(node);
        await node.stop();
        await flow.reach(flow.numbers.allowed);
        await node.start();
        await kafka.inSync(topic);
        await kafka.inSync('__consumer_offsets');
      });
    expect(led.size).toBeGreaterThan(1);
    await flow.finish();
  });

  test('the coordinator, which leads too, is silent for longer than the session timeout', { timeout }, async () => {
    const topic = 'silent';
    const flow = await start({ topic });
    const members = [flow.join(), flow.join()];
    await flow.reach(2000);
    const coordinator = await kafka.coordinatorOf(topic);
    await flow.during(async () => {
      coordinator.pause();
      const heard = () =>
        members.every(
          ({ log }) => !log.entries.some(({ message }) => message.includes('was not heard of for 6000 ms')),
        );
      await until(
        () => !heard(),
        () => flow.state(),
      );
      coordinator.resume();
      await flow.reach(flow.numbers.allowed);
    });
    await kafka.inSync(topic);
    await flow.finish();
  });

  test('too few replicas are in sync for 20 s', { timeout }, async () => {
    const topic = 'out-of-sync';
    const flow = await start({ topic, configs: { 'min.insync.replicas': '3' } });
    flow.join();
    await flow.reach(2000);
    const coordinator = await kafka.coordinatorOf(topic);
    const node = kafka.nodes.find(one => one !== coordinator) as KafkaNode;
    // Else it may be the last one, and nobody leads without it.
    await kafka.inSync(topic);
    await flow.during(async () => {
      await node.stop();
      await until(
        () => flow.writer.sink.trouble?.message.includes('in-sync') === true,
        () => flow.state(),
      );
      // By then every partition has tried.
      const tried = flow.writer.counters()['RollbackCount'] as number;
      await until(
        () => (flow.writer.counters()['RollbackCount'] as number) > tried + 1,
        () => flow.state(),
      );
      const written = flow.writer.counters()['EventDrainSuccessCount'] as number;
      await new Promise(resolve => setTimeout(resolve, 20_000));
      expect(flow.writer.sink.trouble?.message).toContain('in-sync');
      expect(flow.writer.counters()['EventDrainSuccessCount']).toBe(written);
      await node.start();
      await until(
        () => flow.writer.sink.trouble === undefined,
        () => flow.state(),
      );
    });
    expect(flow.writer.counters()['RollbackCount']).toBeGreaterThan(0);
    await kafka.inSync(topic);
    expect(await flow.finish()).toBe(0);
  });

  test('connections break in the middle of requests and of answers, and one falls silent', { timeout }, async () => {
    const topic = 'cut';
    const flow = await start({ topic });
    const written = (number: number) =>
      until(
        async () => (await kafka.ends(topic)).every(end => end >= number),
        () => flow.state(),
      );
    flow.numbers.upTo(2000);
    await written(2000);
    // Nobody reads, so what goes there is what is written, and what comes back says that it is.
    for (const [bytes, direction] of [
      [10_000, 'up'],
      [75, 'down'],
      [33_333, 'up'],
      [10, 'down'],
    ] as const) {
      const cable = cables.get((await kafka.leaderOf(topic, 0)).id) as Proxy;
      await flow.during(() => cable.cutAfter(bytes, direction));
      // Or the next cut would meet a connection that is being made.
      await written(flow.numbers.allowed);
    }
    const cable = cables.get((await kafka.leaderOf(topic, 1)).id) as Proxy;
    await flow.during(async () => {
      cable.hold();
      // A broker may take 5 s. What was sent may be in all the same.
      await until(
        () => flow.writer.sink.trouble !== undefined,
        () => flow.state(),
        30_000,
      );
      cable.release();
      await until(
        () => flow.writer.sink.trouble === undefined,
        () => flow.state(),
      );
    });
    flow.join();
    expect(await flow.finish()).toBe(0);
  });

  test('logins end, and for a while there are no new ones', { timeout }, async () => {
    const topic = 'logins';
    const file = join(folder, 'token');
    const renew = () => {
      writeFileSync(`${file}.new`, oauthToken('admin', 4));
      renameSync(`${file}.new`, file);
    };
    renew();
    let timer = setInterval(renew, 500);
    const login = {
      'security.protocol': 'SASL_PLAINTEXT',
      'sasl.mechanism': 'OAUTHBEARER',
      'sasl.jaas.config': `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required token="file:${file}";`,
    };
    const bootstrapServers = kafka.bootstrapOf('sasl');
    const flow = await start({ topic, bootstrapServers, sink: { producer: login }, source: { consumer: login } });
    const member = flow.join();
    await flow.reach(2000);
    // Longer than any login lasts, several times.
    const began = Date.now();
    await flow.during(async () => {
      while (Date.now() - began < 10_000) await flow.reach(flow.numbers.allowed);
    });
    expect(flow.writer.counters()['RollbackCount']).toBe(0);
    expect(member.counters()['CommitFailCount']).toBe(0);
    clearInterval(timer);
    await flow.during(async () => {
      await until(
        () => flow.writer.sink.trouble !== undefined && member.counters()['Unhealthy'] === 1,
        () => flow.state(),
      );
      expect(flow.writer.sink.trouble).toMatchObject({ code: 'MR_KAFKA_LOGIN' });
      timer = setInterval(renew, 500);
      await flow.reach(flow.numbers.allowed);
    });
    await flow.finish().finally(() => clearInterval(timer));
  });
});

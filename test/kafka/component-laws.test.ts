/** The laws of sources, channels and sinks, for the Kafka ones on a real broker. */
import { EventEmitter, once } from 'node:events';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { quietLog } from '../../src/core/scope.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { kafkaChannel } from '../../src/operators/channels/kafka.ts';
import { decodeAvroEvent } from '../../src/protocols/avro-event.ts';
import type { KafkaClient, KafkaConnector, KafkaProducer } from '../../src/protocols/kafka/client.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { kafkaSink } from '../../src/sinks/kafka.ts';
import { kafkaSource } from '../../src/sources/kafka.ts';
import {
  channelLaws,
  sinkLaws,
  sourceLaws,
  type ChannelSpec,
  type SinkSpec,
  type SourceSpec,
} from '../../src/testing/index.ts';
import { describeKafka, kafkaUsers, kafkaVersions, startKafka, type Kafka } from './brokers.ts';
import { proxy, type Proxy } from './proxy.ts';

/** A busy machine is no broken law. */
const real = { clock: 'real', patience: 10_000 } as const;
const timeout = 300_000;
const consumer = {
  'auto.offset.reset': 'earliest',
  'fetch.max.wait.ms': '100',
  'heartbeat.interval.ms': '100',
  'session.timeout.ms': '6000',
};

/**
 * kafkajs, and what a broker has confirmed of the only partition: records that were written, how far the group is, and whether
 * the last consumer has it.
 */
const watched = () => {
  const confirmed = { end: 0, committed: 0 };
  const changes = new EventEmitter();
  let reading = false;
  const connect: KafkaConnector = async settings => {
    const client = await kafkajs(settings);
    return {
      ...client,
      producer(options) {
        const producer = client.producer(options);
        const send: KafkaProducer['send'] = async (to, records) => {
          const offset = await producer.send(to, records);
          confirmed.end = Math.max(confirmed.end, offset + records.length);
          return offset;
        };
        return { send, close: () => producer.close() };
      },
      consumer(options, listener) {
        reading = false;
        const assigned = listener.assigned.bind(listener);
        const member = client.consumer(
          options,
          Object.assign(listener, {
            assigned: (...given: Parameters<typeof assigned>) => {
              reading = true;
              changes.emit('assigned');
              return assigned(...given);
            },
          }),
        );
        const commit = member.commit.bind(member);
        return Object.assign(member, {
          commit: async (...[positions, metadata]: Parameters<typeof commit>) => {
            await commit(positions, metadata);
            for (const { offset } of positions) confirmed.committed = offset;
          },
        });
      },
    };
  };
  const joined = async () => {
    while (!reading) await once(changes, 'assigned');
  };
  return { confirmed, connect, joined };
};

describeKafka.each(kafkaVersions)('on a real broker of Kafka %s', version => {
  let kafka: Kafka;
  /** Before the way in that the components take. */
  let cable: Proxy;
  let direct: KafkaClient;
  let cases = 0;

  beforeAll(async () => {
    const cables: Proxy[] = [];
    kafka = await startKafka({
      version,
      security: ['none', 'sasl'],
      advertise: async port => {
        cables.push(await proxy({ to: port }));
        return cables.at(-1)!.port;
      },
    });
    cable = cables.at(-2)!;
    direct = await kafkajs({
      brokers: kafka.bootstrapOf('sasl'),
      login: { mechanism: 'plain', username: 'admin', password: () => kafkaUsers.admin },
      log: quietLog,
    });
  });
  afterAll(async () => {
    await direct.close();
    await kafka.stop();
  });

  /** A topic and a group of their own. */
  const newTopic = async () => {
    const topic = `case-${cases++}`;
    await kafka.createTopic(topic);
    return { bootstrapServers: kafka.bootstrap, topic, groupId: topic };
  };

  const source: SourceSpec = {
    ...real,
    runs: 16,
    name: 'kafka',
    headers: false,
    make: async tuning => {
      const { topic, ...where } = await newTopic();
      const { confirmed, connect, joined } = watched();
      const producer = direct.producer();
      return {
        source: kafkaSource({
          ...where,
          ...tuning,
          connect,
          consumer,
          topics: [topic],
          batchSize: 3,
          commitInterval: 50,
        }),
        feed: async events => {
          await producer.send(
            { topic, partition: 0 },
            events.map(({ body }) => ({ key: null, value: body })),
          );
          // Otherwise a program is over before anything was read.
          await joined();
        },
        confirmed: () => confirmed.committed,
        close: () => producer.close(),
      };
    },
  };

  interface Place {
    readonly where: Awaited<ReturnType<typeof newTopic>>;
    readonly watched: ReturnType<typeof watched>;
  }
  const channel: ChannelSpec<Place> = {
    ...real,
    runs: 12,
    name: 'kafkaChannel',
    durable: true,
    limits: { capacity: Number.MAX_SAFE_INTEGER, byteCapacity: Number.MAX_SAFE_INTEGER },
    place: async () => ({ where: await newTopic(), watched: watched() }),
    make: ({ transactionCapacity }, { where, watched: { connect, confirmed } }) => {
      const under = kafkaChannel.create({ ...where, transactionCapacity, connect, consumer, commitInterval: 50 });
      return {
        input: () => under.input(),
        output: options => under.output(options),
        end: () => under.end(),
        close: () => under.close(),
        closed: under.closed,
        /** Until its partition is its own, brokers alone know what it is responsible for. */
        get depth() {
          const { end, committed } = confirmed;
          return { ...under.depth, events: Math.max(under.depth.events, end - committed) };
        },
      };
    },
  };

  /** Everything that a topic has, in Avro. */
  const reading = (topic: string) => {
    const seen: FlumeEvent[] = [];
    const arrivals = new EventEmitter();
    const consumer = direct.consumer(
      { groupId: `reading-${topic}`, topics: [topic], maxWait: 100 },
      {
        assigned: partitions => partitions.map(({ first }) => first),
        revoked: () => undefined,
        records(_, records) {
          for (const { value } of records) seen.push(decodeAvroEvent(value as Buffer));
          arrivals.emit('some');
        },
        outOfRange: ({ first }) => first,
        trouble: () => undefined,
        recovered: () => undefined,
      },
    );
    return {
      async written() {
        const end = (await direct.offsets(topic))[0]!.end;
        while (seen.length < end) await once(arrivals, 'some');
        return seen;
      },
      close: () => consumer.close(),
    };
  };

  const sink: SinkSpec = {
    ...real,
    runs: 10,
    name: 'kafka',
    make: async tuning => {
      const { topic, bootstrapServers } = await newTopic();
      const reader = reading(topic);
      return {
        sink: kafkaSink({ bootstrapServers, topic, allowTopicOverride: false, useFlumeEventFormat: true, ...tuning }),
        written: () => reader.written(),
        /** The network is silent, and then all connections turn out to be broken. */
        switch(up) {
          if (!up) return cable.hold();
          cable.cut();
          cable.release();
        },
        async close() {
          cable.release();
          await reader.close();
        },
      };
    },
  };

  describe('the source', () => {
    for (const law of sourceLaws(source)) test.concurrent(law.name, { timeout }, () => law.run());
  });

  describe('the channel', () => {
    for (const law of channelLaws(channel)) test.concurrent(law.name, { timeout }, () => law.run());
  });

  describe('the sink', () => {
    // So slow that something is under way whenever a program looks.
    beforeAll(() => void (cable.delay = 10));
    for (const law of sinkLaws(sink)) test(law.name, { timeout }, () => law.run());
  });
});

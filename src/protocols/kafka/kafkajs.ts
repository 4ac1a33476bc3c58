/**
 * Real brokers by kafkajs 2.2.4, whose connections, logins and encodings it uses; producing, group membership and fetching are our
 * own (see `kafkajs/package.ts`). For Kafka 2.4 to 4.x.
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';
import type { KafkaConnector, Right } from './client.ts';
import { nameOf } from './partitions.ts';
import { wait } from './waiting.ts';
import { Cluster, earliest, latest } from './kafkajs/cluster.ts';
import { codecs, registerCodecs } from './kafkajs/codecs.ts';
import { Consumer } from './kafkajs/consumer.ts';
import { elsewhere, Refused } from './refused.ts';
import { refusedBy } from './kafkajs/errors.ts';
import { loadKafkajs } from './kafkajs/package.ts';
import { createProducer } from './kafkajs/producer.ts';
import { describeGroup, describeTopics } from './kafkajs/rights.ts';
import { createTransactions } from './kafkajs/transactions.ts';
import { noRights } from './rights.ts';

/** How often a topic is asked for before it does not exist, and the wait in between in ms: brokers may be making it. */
const topicAttempts = 5;
const topicWait = 200;
/** The same of a coordinator. */
const coordinatorAttempts = 20;
const coordinatorWait = 100;

/**
 * A client that is loaded and makes connections when they are needed first. Everything that a broker or a network does wrong is tried
 * again by consumers for ever, and by producers for some seconds before the caller hears of it.
 *
 * @throws MR_PEER_MISSING if kafkajs 2.2.4 is not installed, and by `producer` for the package of a codec; MR_CONFIG for addresses
 *   that are none.
 */
export const kafkajs: KafkaConnector = async settings => {
  const inside = loadKafkajs();
  registerCodecs(inside);
  if (settings.brokers.length === 0) throw new MillraceError('MR_CONFIG', 'Kafka: no brokers were given.');
  const strange = settings.brokers.find(address => !/^.+:\d+$/.test(address));
  if (strange !== undefined)
    throw new MillraceError('MR_CONFIG', `Kafka: ${strange} is no address of a broker; expected host:port.`);
  const own = new Cluster(inside, settings, { requestTimeout: 30_000 });

  const partitions = async (topic: string): Promise<number> => {
    for (let attempt = 1; ; attempt++) {
      await own.orClosed(own.refresh([topic]));
      const { code, partitions: count } = own.topic(topic);
      if (code === 0 && count > 0) return count;
      if (attempt === topicAttempts) throw refusedBy(inside, code, `looking for topic ${topic}`);
      await wait(topicWait, own.closed);
    }
  };

  /** The first group of a cluster waits for its coordinator, and that for what it is going to look after. */
  const groupRights = async (groupId: string): Promise<ReadonlySet<Right>> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await describeGroup(inside, await own.orClosed(own.coordinator(groupId)), groupId);
      } catch (thrown) {
        const passing = thrown instanceof Refused && elsewhere.has(thrown.broker);
        if (!passing || attempt === coordinatorAttempts) return noRights(thrown);
        await wait(coordinatorWait, own.closed);
      }
    }
  };

  return Promise.resolve({
    describeTopics: async topics => describeTopics(inside, await own.orClosed(own.any()), topics),
    describeGroup: groupRights,
    partitions,
    async offsets(topic) {
      const all = Array.from({ length: await partitions(topic) }, (_, partition) => ({ topic, partition }));
      const leaders = new Set(all.map(({ partition }) => own.leader(topic, partition)));
      const found = await Promise.all(
        [...leaders].map(async leader => {
          const of = all.filter(({ partition }) => own.leader(topic, partition) === leader);
          if (leader === undefined)
            throw new MillraceError('MR_KAFKA', `Kafka: a partition of topic ${topic} has no leader now.`);
          const [firsts, ends] = await Promise.all([
            own.orClosed(own.list(leader, of, earliest, false)),
            own.orClosed(own.list(leader, of, latest, false)),
          ]);
          return of.map(({ partition }) => {
            const bound = (from: typeof firsts) => {
              const offset = from.get(nameOf({ topic, partition }));
              if (typeof offset === 'number') return offset;
              throw (
                offset ?? new MillraceError('MR_KAFKA', `Kafka: no offsets of topic ${topic}, partition ${partition}.`)
              );
            };
            return { topic, partition, first: bound(firsts), end: bound(ends) };
          });
        }),
      );
      return found.flat().sort((one, other) => one.partition - other.partition);
    },
    producer(options = {}) {
      const { compression = 'none', requestTimeout = 30_000 } = options;
      // Missing packages are found before anything is sent.
      if (compression !== 'none' && compression !== 'gzip') codecs[compression]();
      // Some more for the way there and back.
      return createProducer(new Cluster(inside, settings, { requestTimeout: requestTimeout + 1000 }), options);
    },
    consumer(options, listener) {
      const { sessionTimeout = 30_000 } = options;
      return new Consumer(new Cluster(inside, settings, { requestTimeout: sessionTimeout }), options, listener);
    },
    // Some more for the way there and back.
    transactions: () => createTransactions(new Cluster(inside, settings, { requestTimeout: 31_000 })),
    close() {
      own.close();
      return Promise.resolve();
    },
  });
};

/**
 * A client of real brokers over the connections of any package. Everything that a broker or a network does wrong is tried again by
 * consumers for ever, and by producers for some seconds before the caller hears of it.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { ConnectionSettings, KafkaClient, Right } from '../client.ts';
import { nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import { Cluster } from './cluster.ts';
import { Consumer } from './consumer.ts';
import { Coordinator, type Patience } from './coordinator.ts';
import { createProducer } from './producer.ts';
import * as requests from './requests.ts';
import { accessOf, noRights, rightsOf } from './rights.ts';
import { createTransactions } from './transactions.ts';
import type { Wires } from './wire.ts';

/** How often a topic is asked for before it does not exist, and the wait in between in ms: brokers may be making it. */
const topicAttempts = 5;
const topicWait = 200;
/** The first group of a cluster waits for its coordinator, and that for what it is going to look after. */
const groupPatience: Patience = refusals => (refusals < 20 ? 100 : undefined);

/** In ms; some more for the way there and back. */
const requestTimeout = 30_000;
const way = 1000;

/** Connects when it is needed first. @throws MR_CONFIG for addresses that are none; and by `producer`, MR_PEER_MISSING for the package of a codec. */
export const createClient = (wires: Wires, settings: ConnectionSettings): KafkaClient => {
  if (settings.brokers.length === 0) throw new MillraceError('MR_CONFIG', 'Kafka: no brokers were given.');
  const strange = settings.brokers.find(address => !/^.+:\d+$/.test(address));
  if (strange !== undefined)
    throw new MillraceError('MR_CONFIG', `Kafka: ${strange} is no address of a broker; expected host:port.`);
  const own = new Cluster(wires, settings, requestTimeout);

  const partitions = async (topic: string): Promise<number> => {
    for (let attempt = 1; ; attempt++) {
      await own.orClosed(own.refresh([topic]));
      const { code, partitions: count } = own.topic(topic);
      if (code === 0 && count > 0) return count;
      if (attempt === topicAttempts) throw own.refused(code, `looking for topic ${topic}`);
      await wait(topicWait, own.closed);
    }
  };

  const describeGroup = async (groupId: string): Promise<ReadonlySet<Right>> => {
    const coordinator = new Coordinator(own, groupId);
    const asking = coordinator.ask(requests.describeGroup(groupId), `looking for group ${groupId}`, groupPatience);
    return own.orClosed(asking).then(({ rights }) => rightsOf(rights), noRights);
  };

  return {
    async describeTopics(wanted) {
      const node = await own.orClosed(own.any());
      const named = wanted instanceof RegExp ? undefined : wanted;
      const { topics } = await node.ask(requests.metadata(named, { make: false, rights: true }));
      return topics
        .filter(({ topic, internal }) => !(wanted instanceof RegExp) || (!internal && wanted.test(topic)))
        .map(({ topic, errorCode, partitions: { length: count }, rights }) =>
          accessOf(topic, errorCode, count, rights, () => own.refused(errorCode, `looking for topic ${topic}`)),
        );
    },
    describeGroup,
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
            own.orClosed(own.list(leader, of, requests.earliest, false)),
            own.orClosed(own.list(leader, of, requests.latest, false)),
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
    producer: (options = {}) =>
      createProducer(new Cluster(wires, settings, (options.requestTimeout ?? requestTimeout) + way), options),
    consumer: (options, listener) =>
      new Consumer(new Cluster(wires, settings, options.sessionTimeout ?? 30_000), options, listener),
    transactions: () => createTransactions(new Cluster(wires, settings, requestTimeout + way)),
    close() {
      own.close();
      return Promise.resolve();
    },
  };
};

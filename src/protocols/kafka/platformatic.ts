/**
 * A second client of real brokers, by @platformatic/kafka, whose connections, logins and encodings it uses. Its own producer and
 * consumer could not keep the port's promises: a consumer of its joins a group again before anybody may commit, commits for
 * partitions that it has lost, and never looks for a coordinator that has moved; so members and numbers of batches are ours.
 *
 * Against the first client it lacks: zstd on Node.js 20, the check of CRCs, brokers older than 3.0, and its own attempts at a send:
 * the first failure rejects, and the caller tries again.
 *
 * @module
 */
import { MillraceError, systemCode } from '../../core/errors.ts';
import type { KafkaConnector } from './client.ts';
import { Cluster } from './platformatic/cluster.ts';
import { Member } from './platformatic/member.ts';
import { Producer } from './platformatic/producer.ts';
import { frameSnappy } from './platformatic/snappy.ts';
import { wait } from './waiting.ts';

/** How often a topic is asked for before it does not exist, and the wait in between in ms: brokers may be making it. */
const topicAttempts = 5;
const topicWait = 200;

/** @throws MR_PEER_MISSING if @platformatic/kafka is not installed. */
export const platformatic: KafkaConnector = async settings => {
  const wire = await import('@platformatic/kafka').catch((cause: unknown) => {
    if (systemCode(cause) !== 'ERR_MODULE_NOT_FOUND') throw cause;
    throw new MillraceError(
      'MR_PEER_MISSING',
      'Kafka: the package @platformatic/kafka is not installed. Run `npm install @platformatic/kafka@1`.',
      { cause },
    );
  });
  frameSnappy(wire);
  const requestTimeout = 30_000;
  const own = new Cluster(wire, settings, requestTimeout);

  const partitions = async (topic: string): Promise<number> => {
    for (let attempt = 1; ; attempt++) {
      await own.refresh([topic]);
      const { code, leaders } = own.topic(topic);
      if (code === 0 && leaders.length > 0) return leaders.length;
      if (attempt === topicAttempts) throw own.refused(code, `looking for topic ${topic}`);
      await wait(topicWait, own.closed);
    }
  };
  return {
    describeTopics: topics => own.describeTopics(topics),
    describeGroup: groupId => own.describeGroup(groupId),
    partitions,
    async offsets(topic) {
      const count = await partitions(topic);
      return own.bounds(Array.from({ length: count }, (_, partition) => ({ topic, partition })));
    },
    producer(options = {}) {
      const { requestTimeout: timeout = requestTimeout } = options;
      // Some more for the way there and back.
      return new Producer(new Cluster(wire, settings, timeout + 1000), options, timeout);
    },
    consumer: (options, listener) => new Member(wire, settings, options, listener),
    close() {
      own.close();
      return Promise.resolve();
    },
  };
};

import kafkajs, { type Admin } from 'kafkajs';
import { startKafka, type Kafka } from '../../bench/kafka.ts';

/** Of each partition: up to where a group has committed, and where it ends. */
export type Positions = readonly { readonly committed: number; readonly end: number }[];

export interface Cluster {
  readonly brokers: readonly string[];
  readonly pids: () => readonly (number | undefined)[];
  readonly createTopic: (topic: string, partitions: number) => Promise<void>;
  /** Undefined while the brokers do not say. */
  readonly positions: (topic: string, group: string) => Promise<Positions | undefined>;
  readonly stop: (topic: string) => Promise<void>;
}

/** A cluster that is there already, or, without brokers, three nodes of our own, which start again when they die. */
export const useCluster = async (
  given: readonly string[] | undefined,
  died: (what: string) => Promise<void>,
): Promise<Cluster> => {
  const own = given === undefined ? await startKafka({ nodes: 3, fastFailover: true }) : undefined;
  const brokers = given ?? (own as Kafka).bootstrap;
  const { logLevel, Kafka: Client } = kafkajs;
  const client = new Client({
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    requestTimeout: 3000,
    retry: { retries: 3 },
  });
  // A connection per question: a client of kafkajs that stays asks leaders that are gone.
  const ask = async <T>(question: (admin: Admin) => Promise<T>): Promise<T> => {
    const admin = client.admin();
    try {
      await admin.connect();
      return await question(admin);
    } finally {
      await admin.disconnect();
    }
  };

  let stopped = false;
  const watch = setInterval(() => {
    for (const node of own?.nodes ?? []) if (isDead(node.pid())) void again(node);
  }, 250);
  const restarting = new Set<unknown>();
  const again = async (node: Kafka['nodes'][number]) => {
    if (restarting.has(node)) return;
    restarting.add(node);
    await node.kill();
    await died(`broker-${node.id}`);
    if (!stopped) await node.start();
    restarting.delete(node);
  };

  return {
    brokers,
    pids: () => own?.nodes.map(node => node.pid()) ?? [],
    createTopic: async (topic, partitions) => {
      if (own === undefined) await ask(admin => admin.createTopics({ topics: [{ topic, numPartitions: partitions }] }));
      else await own.createTopic(topic, { partitions });
    },
    positions: (topic, group) =>
      ask(async admin => {
        // In this order, no partition ends before what is committed of it.
        const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
        const ends = await admin.fetchTopicOffsets(topic);
        const offsets = new Map(committed?.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
        return ends
          .sort((a, b) => a.partition - b.partition)
          .map(({ partition, low, high }) => ({
            committed: Math.max(offsets.get(partition) ?? 0, Number(low)),
            end: Number(high),
          }));
      }).catch(() => undefined),
    async stop(topic) {
      stopped = true;
      clearInterval(watch);
      if (own === undefined) await ask(admin => admin.deleteTopics({ topics: [topic] }));
      else await own.stop();
    },
  };
};

const isDead = (pid: number | undefined): boolean => {
  if (pid === undefined) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

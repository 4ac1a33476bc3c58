/**
 * Real Kafka brokers as processes (KRaft, every node broker and controller), to measure and to test against. Needs Java
 * 17; the jars come from Maven Central into `bench/.cache/kafka-<version>` on first use (44 MB, about ten seconds), for
 * which Maven is needed. A node takes about 250 MB of memory. None of them outlives the process that started it.
 *
 * @module
 */
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kafka as Client, logLevel, type Admin, type IHeaders } from 'kafkajs';
import { jars, type Jars } from './jars.ts';
import { poll, start, type Running } from './processes.ts';

const jarsOf = (version: string) =>
  jars({
    name: `kafka-${version}`,
    title: `Kafka ${version}`,
    artifacts: [
      `org.apache.kafka:kafka_2.13:${version}`,
      `org.apache.kafka:kafka-tools:${version}`,
      'org.slf4j:slf4j-simple:1.7.36',
    ],
    // What would log instead, of one version.
    without: ['org.slf4j:slf4j-reload4j'],
  });
const versions = { '3.9.2': jarsOf('3.9.2'), '4.3.1': jarsOf('4.3.1') };
export type KafkaVersion = keyof typeof versions;
export const kafkaVersions = Object.keys(versions) as KafkaVersion[];

/** Why brokers cannot run here, or undefined. Fetches what is not there. */
export const kafkaMissing = async (): Promise<string | undefined> => {
  for (const { missing, classpath } of Object.values<Jars>(versions)) {
    const reason =
      missing() ??
      (await classpath().then(
        () => undefined,
        (cause: unknown) => `jars of Kafka could not be fetched: ${String(cause).slice(0, 500)}`,
      ));
    if (reason !== undefined) return reason;
  }
  return undefined;
};

export interface KafkaOptions {
  /** Default 4.3.1. */
  readonly version?: KafkaVersion;
  /** Default 1. With 3, topics have 3 replicas, of which 2 must be in sync. */
  readonly nodes?: 1 | 3;
  /** Topics are made when somebody asks for them. Default false. */
  readonly autoCreate?: boolean;
  /** A node that is gone is noticed after 2 s instead of 9 s. Default false. */
  readonly fastFailover?: boolean;
  /** Further properties of every node. */
  readonly properties?: Readonly<Record<string, string | number>>;
}

/** One broker, which is a controller too. */
export interface KafkaNode {
  readonly id: number;
  /** Starts it again with the data and the ports that it had. Resolves when it serves. */
  readonly start: () => Promise<void>;
  /** SIGTERM: hands over what it leads. Takes about 2 s. */
  readonly stop: () => Promise<void>;
  /** SIGKILL. */
  readonly kill: () => Promise<void>;
  /** SIGSTOP: it stays connected and answers nothing. */
  readonly pause: () => void;
  readonly resume: () => void;
  /** What it has logged since it was last started. */
  readonly log: () => Promise<string>;
  /** Undefined while it is stopped. */
  readonly pid: () => number | undefined;
}

export interface TopicOptions {
  /** Default 1. */
  readonly partitions?: number;
  /** Default: as many as there are nodes. */
  readonly replication?: number;
  /** Such as `max.message.bytes`. */
  readonly configs?: Readonly<Record<string, string>>;
}

/** A record as it lies in a topic. */
export interface KafkaRecord {
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: IHeaders;
}

export interface Kafka {
  readonly version: KafkaVersion;
  readonly nodes: readonly KafkaNode[];
  /** `host:port` of every node. */
  readonly bootstrap: string[];
  /** Asks with kafkajs, which may do everything here. A fresh connection, as it would go on with leaders that were. */
  readonly admin: <T>(ask: (admin: Admin) => Promise<T>) => Promise<T>;
  /** Resolves when every replica of every partition is in sync. */
  readonly createTopic: (name: string, options?: TopicOptions) => Promise<void>;
  /** Resolves when it is gone. */
  readonly deleteTopic: (name: string) => Promise<void>;
  /** Waits until every replica of a topic is in sync again. */
  readonly inSync: (topic: string) => Promise<void>;
  /** The next offset of every partition. */
  readonly ends: (topic: string) => Promise<number[]>;
  /** Everything committed that lies in a topic, by partition. */
  readonly read: (topic: string) => Promise<KafkaRecord[][]>;
  /** The node that leads a partition. */
  readonly leaderOf: (topic: string, partition: number) => Promise<KafkaNode>;
  /** Kills every node and removes all data. */
  readonly stop: () => Promise<void>;
}

/**
 * A port on loopback that was free a moment ago, below those that the system gives to clients: a node that is down keeps
 * its port, and a client that asks there again and again would in the end be given it and talk to itself.
 */
const lastingPort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(10_240, 32_000);
    const server = createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    server.close();
    if (free) return port;
  }
};

const jvm = ['-Xmx256m', '-Xss512k', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Djava.net.preferIPv4Stack=true'];

const fast = {
  'broker.session.timeout.ms': 2000,
  'broker.heartbeat.interval.ms': 500,
  'controller.quorum.election.timeout.ms': 500,
  'controller.quorum.fetch.timeout.ms': 1000,
  'controller.quorum.request.timeout.ms': 1000,
  'replica.lag.time.max.ms': 5000,
};

/** Of one node. Nodes and `admin` talk over listeners of their own, which are not those of clients. */
interface Ports {
  readonly controller: number;
  readonly broker: number;
  readonly client: number;
}

const properties = (id: number, ports: readonly Ports[], folder: string, options: KafkaOptions) => {
  const mine = ports[id - 1]!;
  const at = (port: number) => `127.0.0.1:${port}`;
  const listeners = `BROKER://${at(mine.broker)},CLIENT://${at(mine.client)}`;
  const replicas = ports.length;
  const inSync = Math.max(1, replicas - 1);
  const all = {
    'process.roles': 'broker,controller',
    'node.id': id,
    'controller.quorum.voters': ports.map(({ controller }, index) => `${index + 1}@${at(controller)}`).join(','),
    listeners: `${listeners},CONTROLLER://${at(mine.controller)}`,
    'advertised.listeners': listeners,
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,CLIENT:PLAINTEXT',
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'BROKER',
    'log.dirs': folder,
    'default.replication.factor': replicas,
    'min.insync.replicas': inSync,
    'offsets.topic.replication.factor': replicas,
    'transaction.state.log.replication.factor': replicas,
    'transaction.state.log.min.isr': inSync,
    'offsets.topic.num.partitions': 4,
    'transaction.state.log.num.partitions': 4,
    'group.initial.rebalance.delay.ms': 0,
    'num.network.threads': 2,
    'num.io.threads': 4,
    // The default takes 128 MB of heap.
    'log.cleaner.dedupe.buffer.size': 4_194_304,
    'log.cleaner.threads': 1,
    'auto.create.topics.enable': options.autoCreate ?? false,
    ...(options.fastFailover === true && fast),
    ...options.properties,
  };
  return Object.entries(all)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
};

interface Cluster {
  readonly folder: string;
  readonly ports: readonly Ports[];
  readonly nodes: readonly KafkaNode[];
}

/** Starts all nodes, or ends what it has started and throws. */
const boot = async (options: KafkaOptions): Promise<Cluster> => {
  const { version = '4.3.1', nodes: count = 1 } = options;
  const classpath = await versions[version].classpath();
  const folder = await mkdtemp(join(tmpdir(), 'kafka-'));
  const ports: Ports[] = [];
  for (let id = 1; id <= count; id++)
    ports.push({ controller: await lastingPort(), broker: await lastingPort(), client: await lastingPort() });
  // No name of an option begins like this, as `-` might.
  const clusterId = `m${randomBytes(16).toString('base64url').slice(1)}`;

  const make = async (id: number): Promise<KafkaNode> => {
    const home = join(folder, String(id));
    await mkdir(home);
    const file = join(home, 'server.properties');
    await writeFile(file, properties(id, ports, join(home, 'data'), options));
    const java = (log: string, ...args: string[]): Running =>
      start('java', [...jvm, `-Dorg.slf4j.simpleLogger.logFile=${log}`, '-cp', classpath, ...args], { cwd: home });

    const format = java('System.err', 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', file);
    if ((await format.exited) !== 0) throw new Error(`Kafka's storage could not be formatted.\n${format.output()}`);

    let running: Running | undefined;
    let starts = 0;
    const logFile = () => join(home, `server-${starts}.log`);
    const log = () => readFile(logFile(), 'utf8');
    const ended = async (how: (node: Running) => Promise<unknown>) => {
      const node = running;
      running = undefined;
      if (node !== undefined) await how(node);
    };
    return {
      id,
      log,
      pid: () => running?.pid,
      async start() {
        if (running !== undefined) throw new Error(`Kafka node ${id} is running.`);
        starts++;
        const node = (running = java(logFile(), 'kafka.Kafka', file));
        await poll(
          `Kafka node ${id} did not start`,
          async () => (await log()).includes('Kafka Server started') || undefined,
          { interval: 50, until: node.exited },
        ).catch(async (cause: unknown) => {
          const tail = (await log().catch(() => '')).split('\n').slice(-40).join('\n');
          throw new Error(`${(cause as Error).message}\n${node.output()}\n${tail}`);
        });
      },
      stop: () => ended(node => node.stop(30_000)),
      kill: () =>
        ended(node => {
          node.signal('SIGKILL');
          return node.exited;
        }),
      pause: () => running?.signal('SIGSTOP'),
      resume: () => running?.signal('SIGCONT'),
    };
  };

  const nodes: KafkaNode[] = [];
  try {
    const made = await Promise.allSettled(ports.map((_, index) => make(index + 1)));
    for (const node of made) {
      if (node.status === 'rejected') throw node.reason;
      nodes.push(node.value);
    }
    // All at once: none of them serves before most have found each other.
    await Promise.all(nodes.map(node => node.start()));
  } catch (cause) {
    await Promise.all(nodes.map(node => node.kill()));
    await rm(folder, { recursive: true });
    throw cause;
  }
  return { folder, ports, nodes };
};

/** Starts brokers. Resolves when all of them serve, after about 3 s. */
export const startKafka = async (options: KafkaOptions = {}): Promise<Kafka> => {
  const { version = '4.3.1' } = options;
  const again = (cause: unknown) => {
    // Somebody else was faster. That it happens twice in a row is not likely.
    if (String(cause).includes('Address already in use')) return boot(options);
    throw cause;
  };
  const { folder, ports, nodes } = await boot(options).catch(again);
  const addresses = (port: (of: Ports) => number) => ports.map(of => `127.0.0.1:${port(of)}`);

  // Answers of a node that just died are asked for again elsewhere, so calls may take a while but do not fail.
  const client = new Client({
    brokers: addresses(({ broker }) => broker),
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2000,
    requestTimeout: 5000,
    retry: { retries: 30, initialRetryTime: 50, maxRetryTime: 500 },
  });
  const admin: Kafka['admin'] = async ask => {
    const asked = client.admin();
    try {
      await asked.connect();
      return await ask(asked);
    } finally {
      await asked.disconnect();
    }
  };

  const partitionsOf = async (topic: string) => {
    const { topics } = await admin(ask => ask.fetchTopicMetadata({ topics: [topic] }));
    return topics[0]!.partitions.sort((a, b) => a.partitionId - b.partitionId);
  };
  const offsetsOf = async (topic: string) => {
    // A leader that is new may not know it yet.
    const found = await poll(`no offsets of ${topic}`, () => admin(ask => ask.fetchTopicOffsets(topic)));
    return found.sort((a, b) => a.partition - b.partition);
  };
  const inSync = async (topic: string, partitions = 1) => {
    await poll(`${topic} is not in sync`, async () => {
      const found = await partitionsOf(topic);
      return (
        (found.length >= partitions &&
          found.every(({ leader, isr, replicas }) => leader > 0 && isr.length === replicas.length)) ||
        undefined
      );
    });
  };

  return {
    version,
    nodes,
    bootstrap: addresses(of => of.client),
    admin,
    async createTopic(topic, { partitions = 1, replication = nodes.length, configs = {} } = {}) {
      const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }));
      const made = { topic, numPartitions: partitions, replicationFactor: replication, configEntries };
      // Waiting for leaders is what kafkajs often gives up on, though the topic exists.
      await admin(ask => ask.createTopics({ topics: [made], waitForLeaders: false }));
      await inSync(topic, partitions);
      await offsetsOf(topic);
    },
    deleteTopic: topic =>
      admin(async ask => {
        await ask.deleteTopics({ topics: [topic] });
        await poll(`${topic} is still there`, async () => !(await ask.listTopics()).includes(topic) || undefined);
      }),
    inSync: topic => inSync(topic),
    ends: async topic => (await offsetsOf(topic)).map(({ high }) => Number(high)),
    async read(topic) {
      const offsets = await offsetsOf(topic);
      const records = offsets.map((): KafkaRecord[] => []);
      const left = new Map(
        offsets.filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, Number(high)]),
      );
      if (left.size === 0) return records;
      const consumer = client.consumer({ groupId: `read-${randomBytes(8).toString('hex')}`, maxWaitTimeInMs: 100 });
      await new Promise<void>((resolve, reject) => {
        // It comes for batches of nothing but the marks of transactions, too.
        consumer.on('consumer.end_batch_process', ({ payload: { partition, lastOffset } }) => {
          if (Number(lastOffset) + 1 >= (left.get(partition) ?? 0)) left.delete(partition);
          if (left.size === 0) resolve();
        });
        consumer.on('consumer.crash', ({ payload: { error, restart } }) => (restart ? undefined : reject(error)));
        void (async () => {
          await consumer.connect();
          await consumer.subscribe({ topics: [topic], fromBeginning: true });
          await consumer.run({
            autoCommit: false,
            eachBatch: async ({ batch: { partition, messages } }) => {
              const known = records[partition]!;
              // After a crash it begins anew.
              const next = (known.at(-1)?.offset ?? -1) + 1;
              for (const { offset, key, value, headers = {} } of messages)
                if (Number(offset) >= next) known.push({ offset: Number(offset), key, value, headers });
            },
          });
        })().catch(reject);
      }).finally(() => consumer.disconnect());
      return records;
    },
    async leaderOf(topic, partition) {
      const { leader } = (await partitionsOf(topic))[partition]!;
      return nodes.find(({ id }) => id === leader)!;
    },
    async stop() {
      await Promise.all(nodes.map(node => node.kill()));
      await rm(folder, { recursive: true, force: true });
    },
  };
};

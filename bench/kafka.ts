/**
 * Real Kafka brokers as processes (KRaft, every node broker and controller), to measure and to test against. Needs Java
 * 17; the jars come from Maven Central into `bench/.cache/kafka-<version>` on first use (44 MB, about ten seconds), for
 * which Maven is needed. A node takes about 250 MB of memory. None of them outlives the process that started it.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import kafkajs, { type Admin, type AclOperationTypes, type IHeaders, type Kafka as Client } from 'kafkajs';
import { makeCertificates, type Certificates } from './certificates.ts';
import { jars, type Jars } from './jars.ts';
import { OFFSETS_PARTITIONS, scramUsers, serverProperties, type NodePorts, type Security } from './kafka-properties.ts';
import { benchDir, freePort, poll, start, type Running } from './processes.ts';

export { kafkaUsers, oauthToken, type Security } from './kafka-properties.ts';

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

/** Why brokers cannot run here, or undefined. */
export const kafkaMissing = (): string | undefined =>
  Object.values<Jars>(versions)
    .map(({ missing }) => missing())
    .find(reason => reason !== undefined) ??
  (spawnSync('openssl', ['version'], { stdio: 'ignore' }).status === 0
    ? undefined
    : 'certificates for Kafka need openssl: apt-get install openssl');

/** Fetches and prepares what is not there, as the first start of a broker would. */
export const fetchKafka = async (): Promise<void> => {
  for (const version of kafkaVersions) await archiveOf(version);
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
  /** The ways in; every node has a port for each. Default `none` alone. */
  readonly security?: readonly Security[];
  /** Users may do what `allow` says; `admin` and who did not log in may do everything. Default false: all may. */
  readonly acls?: boolean;
  /** Gets a port of a node and answers the one that clients are told, which may be that of a proxy. Default: the same. */
  readonly advertise?: (port: number, node: number) => number | Promise<number>;
  /** Further flags of every JVM. By default it has 256 MB of heap and compiles for a short life. */
  readonly jvm?: readonly string[];
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
  /** Runs and is not paused. */
  readonly answers: () => boolean;
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
  /** In ms since 1970. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: IHeaders;
}

export interface Kafka {
  readonly version: KafkaVersion;
  readonly nodes: readonly KafkaNode[];
  /** `host:port` of every node, for the first way in. */
  readonly bootstrap: string[];
  /** The same for another one. */
  readonly bootstrapOf: (security: Security) => string[];
  /** Undefined if no way in has TLS. */
  readonly certificates: Certificates | undefined;
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
  /** The node that a group commits to. The first member must have been there. */
  readonly coordinatorOf: (group: string) => Promise<KafkaNode>;
  /** Lets a user do something with topics, groups and so on of this name; `*` is all. A client certificate is `CN=alice`. */
  readonly allow: (
    user: string,
    resource: 'TOPIC' | 'GROUP' | 'CLUSTER' | 'TRANSACTIONAL_ID',
    name: string,
    ...operations: (keyof typeof AclOperationTypes)[]
  ) => Promise<void>;
  /** Kills every node and removes all data. */
  readonly stop: () => Promise<void>;
}

const jvm = ['-Xmx256m', '-Xss512k', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Djava.net.preferIPv4Stack=true'];

interface Cluster {
  readonly folder: string;
  readonly ports: readonly NodePorts[];
  readonly nodes: readonly KafkaNode[];
  readonly certificates: Certificates | undefined;
}

/** Starts all nodes, or ends what it has started and throws. */
const boot = async (options: KafkaOptions, ...flags: string[]): Promise<Cluster> => {
  const {
    version = '4.3.1',
    nodes: count = 1,
    security = ['none'],
    advertise = port => port,
    jvm: more = [],
  } = options;
  const classpath = await versions[version].classpath();
  const folder = await mkdtemp(join(tmpdir(), 'kafka-'));
  const ports: NodePorts[] = [];
  for (let id = 1; id <= count; id++) {
    const clients: NodePorts['clients'] = {};
    for (const way of security) {
      const port = await freePort();
      Object.assign(clients, { [way]: { port, advertised: await advertise(port, id) } });
    }
    ports.push({ controller: await freePort(), broker: await freePort(), clients });
  }
  const certificates = security.some(way => way.endsWith('tls')) ? await makeCertificates(folder) : undefined;
  // No name of an option begins like this, as `-` might.
  const clusterId = `m${randomBytes(16).toString('base64url').slice(1)}`;

  const make = async (id: number): Promise<KafkaNode> => {
    const home = join(folder, String(id));
    await mkdir(home);
    const file = join(home, 'server.properties');
    const { autoCreate = false, fastFailover = false, acls = false, properties = {} } = options;
    const node = {
      id,
      ports,
      folder: join(home, 'data'),
      autoCreate,
      fastFailover,
      acls,
      certificates,
      more: properties,
    };
    await writeFile(file, serverProperties(node));
    const java = (log: string, ...args: string[]): Running =>
      start('java', [...jvm, ...more, ...flags, `-Dorg.slf4j.simpleLogger.logFile=${log}`, '-cp', classpath, ...args], {
        cwd: home,
      });

    const users = security.some(way => way.startsWith('sasl')) ? scramUsers : [];
    const format = java('System.err', 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', file, ...users);
    if ((await format.exited) !== 0) throw new Error(`Kafka's storage could not be formatted.\n${format.output()}`);

    let running: Running | undefined;
    let paused = false;
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
      answers: () => running !== undefined && !paused,
      async start() {
        if (running !== undefined) throw new Error(`Kafka node ${id} is running.`);
        starts++;
        paused = false;
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
      stop: () =>
        ended(async node => {
          await node.stop(60_000);
          // Java answers SIGTERM with an exit code.
          if ((await node.exited) === null) throw new Error(`Kafka node ${id} did not stop in 60 s and was killed.`);
        }),
      kill: () =>
        ended(node => {
          node.signal('SIGKILL');
          return node.exited;
        }),
      pause() {
        running?.signal('SIGSTOP');
        paused = true;
      },
      resume() {
        running?.signal('SIGCONT');
        paused = false;
      },
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
  return { folder, ports, nodes, certificates };
};

const archives = new Map<KafkaVersion, Promise<string>>();

/**
 * The classes of a broker as the JVM had them in memory, which halves the time to start and saves 40 MB: made by a first
 * broker when it ends. A JVM that it does not fit does not use it.
 */
const archiveOf = (version: KafkaVersion): Promise<string> => {
  const make = async () => {
    const file = join(benchDir, '.cache', `kafka-${version}`, 'classes.jsa');
    if (existsSync(file)) return file;
    await versions[version].classpath();
    const fresh = `${file}.${process.pid}`;
    const { nodes, folder } = await boot({ version }, `-XX:ArchiveClassesAtExit=${fresh}`);
    await nodes[0]!.stop();
    await rm(folder, { recursive: true });
    // A JVM that cannot make one starts without.
    await rename(fresh, file).catch(() => undefined);
    return file;
  };
  const made = archives.get(version) ?? make();
  archives.set(version, made);
  return made;
};

/** Like String.hashCode of Java. */
const hashOf = (text: string): number => {
  let hash = 0;
  for (let index = 0; index < text.length; index++) hash = (Math.imul(31, hash) + text.charCodeAt(index)) | 0;
  return hash;
};

/** Starts brokers. Resolves when all of them serve: after 2 s for one, 5 s for three. */
export const startKafka = async (options: KafkaOptions = {}): Promise<Kafka> => {
  const { version = '4.3.1', security = ['none'] } = options;
  const archive = `-XX:SharedArchiveFile=${await archiveOf(version)}`;
  const again = (cause: unknown) => {
    // Somebody else was faster. That it happens twice in a row is not likely.
    if (String(cause).includes('Address already in use')) return boot(options, archive);
    throw cause;
  };
  const { folder, ports, nodes, certificates } = await boot(options, archive).catch(again);
  const addresses = (port: (of: NodePorts) => number) => ports.map(of => `127.0.0.1:${port(of)}`);
  const bootstrapOf = (way: Security) => addresses(({ clients }) => clients[way]!.advertised);

  // Errors of a node that just died are tried again elsewhere, so calls may take a while but do not fail.
  const clientOf = (requestTimeout: number) =>
    new kafkajs.Kafka({
      brokers: () => {
        const all = addresses(({ broker }) => broker).filter((_, index) => nodes[index]!.answers());
        if (all.length === 0) throw new Error('No Kafka node is there to be asked.');
        return all;
      },
      logLevel: kafkajs.logLevel.NOTHING,
      connectionTimeout: 2000,
      requestTimeout,
      retry: { retries: 30, initialRetryTime: 50, maxRetryTime: 500 },
    });
  const client = clientOf(5000);
  // Until a paused node is missed it may be asked too.
  const impatient = clientOf(1000);
  const asked = async <T>(by: Client, ask: (admin: Admin) => Promise<T>): Promise<T> => {
    const admin = by.admin();
    try {
      await admin.connect();
      return await ask(admin);
    } finally {
      await admin.disconnect();
    }
  };
  const admin: Kafka['admin'] = ask => asked(client, ask);

  const partitionsOf = async (topic: string) => {
    const { topics } = await asked(impatient, ask => ask.fetchTopicMetadata({ topics: [topic] }));
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

  const leaderOf = async (topic: string, partition: number): Promise<KafkaNode> => {
    return await poll(`nobody leads partition ${partition} of ${topic}`, async () => {
      const { leader } = (await partitionsOf(topic))[partition]!;
      return nodes.find(({ id }) => id === leader);
    });
  };

  return {
    version,
    nodes,
    bootstrap: bootstrapOf(security[0]!),
    bootstrapOf,
    certificates,
    admin,
    async createTopic(topic, { partitions = 1, replication = nodes.length, configs = {} } = {}) {
      const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }));
      const made = { topic, numPartitions: partitions, replicationFactor: replication, configEntries };
      // Nodes that have just begun may not have heard of each other: then kafkajs finds no controller, and gives up. Waiting for
      // leaders is what it often gives up on, too, though the topic exists.
      await poll(`${topic} is not made`, () =>
        admin(ask => ask.createTopics({ topics: [made], waitForLeaders: false })),
      );
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
              for (const { offset, timestamp, key, value, headers = {} } of messages)
                if (Number(offset) >= next)
                  known.push({ offset: Number(offset), timestamp: Number(timestamp), key, value, headers });
            },
          });
        })().catch(reject);
      }).finally(() => consumer.disconnect());
      return records;
    },
    leaderOf,
    coordinatorOf: group => leaderOf('__consumer_offsets', Math.abs(hashOf(group)) % OFFSETS_PARTITIONS),
    async allow(user, resource, name, ...operations) {
      const rules = operations.map(operation => ({
        resourceType: kafkajs.AclResourceTypes[resource],
        resourceName: name,
        resourcePatternType: kafkajs.ResourcePatternTypes.LITERAL,
        principal: `User:${user}`,
        host: '*',
        operation: kafkajs.AclOperationTypes[operation],
        permissionType: kafkajs.AclPermissionTypes.ALLOW,
      }));
      await admin(async ask => {
        await ask.createAcls({ acl: rules });
        for (const rule of rules)
          await poll(
            'a rule is not there',
            async () => (await ask.describeAcls(rule)).resources.length > 0 || undefined,
          );
      });
    },
    async stop() {
      await Promise.all(nodes.map(node => node.kill()));
      await rm(folder, { recursive: true, force: true });
    },
  };
};

export interface KafkaTool {
  /** The class. */
  readonly main: string;
  readonly args: readonly string[];
  /** Default 4.3.1. */
  readonly version?: KafkaVersion;
}

/** Starts one of Kafka's own programs. */
export const kafkaTool = async ({ main, args, version = '4.3.1' }: KafkaTool): Promise<Running> =>
  start('java', [
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
    '-Djava.net.preferIPv4Stack=true',
    ...['-cp', await versions[version].classpath(), main, ...args],
  ]);

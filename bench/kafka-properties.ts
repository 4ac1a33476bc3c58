/**
 * The properties file of a broker in a test or a bench. Everything of a node is small, and it has three kinds of
 * listeners: CONTROLLER, BROKER for other nodes and for whoever administers, and one for every way in that clients have.
 *
 * @module
 */
import type { Certificates } from './certificates.ts';

const protocols = {
  none: 'PLAINTEXT',
  tls: 'SSL',
  mtls: 'SSL',
  sasl: 'SASL_PLAINTEXT',
  sasl_tls: 'SASL_SSL',
};
/**
 * How clients get in. With `mtls` they need a certificate; with `sasl` and `sasl_tls` they log in by PLAIN, SCRAM-SHA-256
 * or SCRAM-SHA-512 as one of `kafkaUsers`, or by OAUTHBEARER with a token of `oauthToken`.
 */
export type Security = keyof typeof protocols;

/** Names and passwords. `admin` may do everything. */
export const kafkaUsers = { admin: 'admin-secret', alice: 'alice-secret', bob: 'bob-secret' };

/** An unsigned token, which is what the brokers here take. They do not let in who comes with one that is over. */
export const oauthToken = (user: string, seconds = 3600): string => {
  const now = Math.floor(Date.now() / 1000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ sub: user, iat: now, exp: now + seconds })}.`;
};

/** What `StorageTool format` needs to hear, so that the users can log in with SCRAM. */
export const scramUsers: readonly string[] = Object.entries(kafkaUsers).flatMap(([name, password]) =>
  ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap(mechanism => [
    '--add-scram',
    `${mechanism}=[name=${name},password=${password}]`,
  ]),
);

/** How long a node may be silent, and so on: noticed in 2 s instead of 9 s. */
const fast = {
  'broker.session.timeout.ms': 2000,
  'broker.heartbeat.interval.ms': 500,
  'controller.quorum.election.timeout.ms': 500,
  'controller.quorum.fetch.timeout.ms': 1000,
  'controller.quorum.request.timeout.ms': 1000,
  'replica.lag.time.max.ms': 5000,
};

type Properties = Readonly<Record<string, string | number | boolean>>;

const access = (security: Security, certificates: Certificates | undefined): Properties => {
  const login = 'org.apache.kafka.common.security';
  const passwords = Object.entries(kafkaUsers).map(([name, password]) => `user_${name}="${password}"`);
  const tls = certificates !== undefined && {
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': certificates.serverFile,
    'ssl.truststore.type': 'PEM',
    'ssl.truststore.location': certificates.caFile,
    'ssl.client.auth': security === 'mtls' ? 'required' : 'none',
  };
  const sasl = {
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
    'plain.sasl.jaas.config': `${login}.plain.PlainLoginModule required ${passwords.join(' ')};`,
    'scram-sha-256.sasl.jaas.config': `${login}.scram.ScramLoginModule required;`,
    'scram-sha-512.sasl.jaas.config': `${login}.scram.ScramLoginModule required;`,
    'oauthbearer.sasl.jaas.config': `${login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";`,
  };
  const wanted = {
    ...(protocols[security].endsWith('SSL') && tls),
    ...(protocols[security].startsWith('SASL') && sasl),
  };
  return Object.fromEntries(
    Object.entries(wanted).map(([name, value]) => [`listener.name.${security}.${name}`, value]),
  );
};

/** Where a node listens, and what it tells clients, which may be the port of a proxy before it. */
export interface NodePorts {
  readonly controller: number;
  readonly broker: number;
  readonly clients: Readonly<Partial<Record<Security, { readonly port: number; readonly advertised: number }>>>;
}

export interface NodeProperties {
  /** From 1. */
  readonly id: number;
  /** Of all nodes. */
  readonly ports: readonly NodePorts[];
  readonly folder: string;
  readonly autoCreate: boolean;
  readonly fastFailover: boolean;
  /** Whoever is neither `admin` nor anonymous may do what an ACL says. */
  readonly acls: boolean;
  readonly certificates: Certificates | undefined;
  readonly more: Properties;
}

/** The coordinator of a group leads the partition of `__consumer_offsets` that the group's name falls on. */
export const OFFSETS_PARTITIONS = 4;

export const serverProperties = (node: NodeProperties): string => {
  const { id, ports, acls, certificates } = node;
  const mine = ports[id - 1]!;
  const clients = Object.entries(mine.clients) as [Security, { port: number; advertised: number }][];
  const replicas = ports.length;
  const inSync = Math.max(1, replicas - 1);
  const at = (port: number) => `127.0.0.1:${port}`;
  const listeners = (of: 'port' | 'advertised') => [
    `BROKER://${at(mine.broker)}`,
    ...clients.map(([security, client]) => `${security.toUpperCase()}://${at(client[of])}`),
  ];
  const all: Properties = {
    'process.roles': 'broker,controller',
    'node.id': id,
    'controller.quorum.voters': ports.map(({ controller }, index) => `${index + 1}@${at(controller)}`).join(','),
    listeners: [...listeners('port'), `CONTROLLER://${at(mine.controller)}`].join(','),
    'advertised.listeners': listeners('advertised').join(','),
    'listener.security.protocol.map': [
      'CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT',
      ...clients.map(([security]) => `${security.toUpperCase()}:${protocols[security]}`),
    ].join(','),
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'BROKER',
    'log.dirs': node.folder,
    'default.replication.factor': replicas,
    'min.insync.replicas': inSync,
    'offsets.topic.replication.factor': replicas,
    'offsets.topic.num.partitions': OFFSETS_PARTITIONS,
    'transaction.state.log.replication.factor': replicas,
    'transaction.state.log.min.isr': inSync,
    'transaction.state.log.num.partitions': 4,
    'group.initial.rebalance.delay.ms': 0,
    'num.network.threads': 2,
    'num.io.threads': 4,
    // The default takes 128 MB of heap.
    'log.cleaner.dedupe.buffer.size': 4_194_304,
    'log.cleaner.threads': 1,
    'auto.create.topics.enable': node.autoCreate,
    ...(acls && {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      // Nodes, and who administers by the listener of nodes, have no name.
      'super.users': 'User:ANONYMOUS;User:admin',
    }),
    ...Object.assign({}, ...clients.map(([security]) => access(security, certificates))),
    ...(node.fastFailover && fast),
    ...node.more,
  };
  return Object.entries(all)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
};

/**
 * What the adapter uses of kafkajs 2.2.4: its connections and logins. kafkajs has no `exports`, so all of it can be required; it has
 * been frozen since 2023, so exactly this version is asked for and its inside can be relied on.
 *
 * Its producer, consumer and cluster are not used. They lose records when a partition moves, drop a new batch as a duplicate of
 * one that failed, rejoin a group before anything could be committed, reset offsets without a word and stall after a rebalance.
 *
 * @module
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { MillraceError, systemCode } from '../../../core/errors.ts';

export const wantedVersion = '2.2.4';

/** What goes over a connection, and what comes back. */
interface ProtocolRequest<Decoded> {
  readonly request: {
    readonly apiKey: number;
    readonly apiVersion: number;
    readonly apiName: string;
    /** Resolves with what it takes for an encoder. */
    encode(): Promise<{ readonly buf: Buffer; readonly buffer: Buffer }>;
    expectResponse(): boolean;
  };
  readonly response: {
    decode(raw: Buffer): Promise<Decoded & { readonly clientSideThrottleTime: number }>;
    parse(decoded: Decoded): Promise<Decoded>;
  };
  readonly requestTimeout?: number;
  readonly logResponseError?: boolean;
}

interface InFlight {
  readonly sentAt: number;
  readonly requestTimeout: number;
  timeoutRequest(): void;
}

export interface RequestQueue {
  pending: unknown[];
  readonly inflight: ReadonlyMap<number, InFlight>;
  readonly requestTimeout: number;
  requestTimeoutIntervalId: unknown;
  isConnected(): boolean;
  scheduleRequestTimeoutCheck(): void;
  /** Looks for overdue answers no more. */
  destroy(): void;
  throttleCheckTimeoutId: unknown;
  scheduleCheckPendingRequests(): void;
}

export interface Connection {
  readonly requestQueue: RequestQueue;
  readonly socket?: Socket;
  isConnected(): boolean;
  rejectRequests(error: Error): void;
  disconnect(): Promise<unknown>;
}

export interface ConnectionPool {
  /** The first is for everything, the second for fetching. */
  readonly pool: readonly [Connection, Connection];
  /** Resolves with nothing if no answer is expected. */
  send<Decoded>(request: ProtocolRequest<Decoded>): Promise<Decoded | undefined>;
}

export interface Broker {
  readonly connectionPool: ConnectionPool;
  /** By the key of a request; null until it is connected. */
  readonly versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>> | null;
  connect(): Promise<void>;
}

/** What an authenticator gets from kafkajs. */
export interface Authentication {
  readonly host: string;
  readonly port: number;
  readonly logger: unknown;
  readonly saslAuthenticate: <T>(exchange: {
    readonly request: { encode(): Promise<Buffer> };
    readonly response: { decode(answer: Buffer): Promise<T>; parse(decoded: T): Promise<T> };
  }) => Promise<T>;
}

type Authenticator = (secrets: object) => (authentication: Authentication) => { authenticate(): Promise<void> };

export interface LogEntry {
  readonly namespace: string;
  readonly level: number;
  readonly log: { readonly message: string };
}

export interface Package {
  readonly Broker: new (options: object) => Broker;
  readonly ConnectionPool: new (options: object) => ConnectionPool;
  readonly createLogger: (options: { level: number; logCreator: () => (entry: LogEntry) => void }) => unknown;
  readonly createErrorFromCode: (code: number) => Error & { readonly type: string };
  readonly authenticators: Readonly<Record<'plain' | 'scram-sha-256' | 'scram-sha-512', Authenticator>>;
}

const require = createRequire(import.meta.url);

/** @throws MR_PEER_MISSING if kafkajs is not there, or another version of it. */
export const loadKafkajs = (): Package => {
  let version: string;
  try {
    ({ version } = require('kafkajs/package.json') as { version: string });
  } catch (cause) {
    if (systemCode(cause) !== 'MODULE_NOT_FOUND') throw cause;
    throw missing('the package kafkajs is not installed', cause);
  }
  if (version !== wantedVersion) throw missing(`kafkajs is there in version ${version}, which was never tried`);
  const inside = (path: string): unknown => require(`kafkajs/src/${path}`);
  const { createLogger } = inside('loggers') as Pick<Package, 'createLogger'>;
  const { createErrorFromCode } = inside('protocol/error') as Pick<Package, 'createErrorFromCode'>;
  return {
    Broker: inside('broker') as Package['Broker'],
    ConnectionPool: inside('network/connectionPool') as Package['ConnectionPool'],
    createLogger,
    createErrorFromCode,
    authenticators: {
      plain: inside('broker/saslAuthenticator/plain') as Authenticator,
      'scram-sha-256': inside('broker/saslAuthenticator/scram256') as Authenticator,
      'scram-sha-512': inside('broker/saslAuthenticator/scram512') as Authenticator,
    },
  };
};

const missing = (what: string, cause?: unknown) =>
  new MillraceError('MR_PEER_MISSING', `Kafka: ${what}. Run \`npm install kafkajs@${wantedVersion}\`.`, { cause });

/**
 * What the adapter uses of kafkajs 2.2.4: its connections, logins and encodings. kafkajs has no `exports`, so all of it can be
 * required; it has been frozen since 2023, so exactly this version is asked for and its inside can be relied on.
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

export interface Encoder {
  readonly buffer: Buffer;
  writeInt8(value: number): this;
  writeInt16(value: number): this;
  writeInt32(value: number): this;
  writeString(value: string | null): this;
  writeBytes(value: Buffer): this;
  writeBuffer(value: Buffer): this;
  writeUVarInt(value: number): this;
}

export interface Decoder {
  readonly buffer: Buffer;
  offset: number;
  readInt8(): number;
  readInt16(): number;
  readInt32(): number;
  readInt64(): bigint;
  readString(): string;
  readBytes(length?: number): Buffer;
  readUVarInt(): number;
  readArray<T>(read: (decoder: Decoder) => T): T[];
  canReadBytes(length: number): boolean;
}

/** A record of a message set, as kafkajs decodes it. */
export interface Message {
  readonly offset: string;
  readonly timestamp: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

interface ProtocolRequest {
  readonly request: { readonly apiVersion: number; encode(): Promise<Encoder> };
  readonly response: { decode(raw: Buffer): Promise<unknown>; parse(decoded: unknown): Promise<unknown> };
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
  send(request: ProtocolRequest): Promise<unknown>;
}

export interface Broker {
  readonly connectionPool: ConnectionPool;
  connect(): Promise<void>;
  lookupRequest(apiKey: number, definition: unknown): (args: object) => ProtocolRequest;
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

export interface Codec {
  compress(encoder: Pick<Encoder, 'buffer'>): Promise<Buffer>;
  decompress(buffer: Buffer): Promise<Buffer>;
}

interface Coding<Given, Got> {
  encode(value: Given): Buffer;
  decode(buffer: Buffer): Got | null;
}

export interface LogEntry {
  readonly namespace: string;
  readonly level: number;
  readonly log: { readonly message: string };
}

export interface Package {
  readonly Broker: new (options: object) => Broker;
  readonly ConnectionPool: new (options: object) => ConnectionPool;
  readonly Encoder: new (size?: number) => Encoder;
  readonly Decoder: new (buffer: Buffer) => Decoder;
  readonly apiKeys: Readonly<Record<string, number>>;
  readonly requests: Readonly<Record<string, unknown>>;
  readonly createLogger: (options: { level: number; logCreator: () => (entry: LogEntry) => void }) => unknown;
  readonly createErrorFromCode: (code: number) => Error & { readonly type: string };
  readonly codecs: Record<number, () => Codec>;
  readonly decodeMessageSet: (decoder: Decoder, size: number) => Promise<Message[]>;
  readonly memberMetadata: Coding<{ version: number; topics: readonly string[] }, { topics: string[] }>;
  readonly memberAssignment: Coding<
    { version: number; assignment: Record<string, number[]> },
    { assignment: Record<string, number[]> }
  >;
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
  const { requests } = inside('protocol/requests') as Pick<Package, 'requests'>;
  const { createLogger } = inside('loggers') as Pick<Package, 'createLogger'>;
  const { createErrorFromCode } = inside('protocol/error') as Pick<Package, 'createErrorFromCode'>;
  const { Codecs } = inside('protocol/message/compression') as { Codecs: Package['codecs'] };
  const { MemberMetadata, MemberAssignment } = inside('consumer/assignerProtocol') as {
    MemberMetadata: Package['memberMetadata'];
    MemberAssignment: Package['memberAssignment'];
  };
  return {
    Broker: inside('broker') as Package['Broker'],
    ConnectionPool: inside('network/connectionPool') as Package['ConnectionPool'],
    Encoder: inside('protocol/encoder') as Package['Encoder'],
    Decoder: inside('protocol/decoder') as Package['Decoder'],
    apiKeys: inside('protocol/requests/apiKeys') as Package['apiKeys'],
    requests,
    createLogger,
    createErrorFromCode,
    codecs: Codecs,
    decodeMessageSet: inside('protocol/messageSet/decoder') as Package['decodeMessageSet'],
    memberMetadata: MemberMetadata,
    memberAssignment: MemberAssignment,
    authenticators: {
      plain: inside('broker/saslAuthenticator/plain') as Authenticator,
      'scram-sha-256': inside('broker/saslAuthenticator/scram256') as Authenticator,
      'scram-sha-512': inside('broker/saslAuthenticator/scram512') as Authenticator,
    },
  };
};

const missing = (what: string, cause?: unknown) =>
  new MillraceError('MR_PEER_MISSING', `Kafka: ${what}. Run \`npm install kafkajs@${wantedVersion}\`.`, { cause });

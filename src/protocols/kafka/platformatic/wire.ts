/**
 * Brokers, asked over the connections of @platformatic/kafka.
 *
 * @module
 */
import { isIP } from 'node:net';
import type * as Package from '@platformatic/kafka';
import { MillraceError, toError } from '../../../core/errors.ts';
import type { Answered, Request, Wire, Wires } from '../brokers/wire.ts';
import type { ConnectionSettings } from '../client.ts';
import { tlsFailed } from '../refused.ts';
import { tlsOptions } from '../tls.ts';

interface Address {
  readonly host: string;
  readonly port: number;
}

/** What the package throws, which carries more than its type says. */
interface Thrown {
  readonly code?: string;
  readonly message: string;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/** The error and all that it wraps. */
const unwrapped = (thrown: unknown): Thrown[] => {
  if (typeof thrown !== 'object' || thrown === null) return [];
  const { cause, errors = [] } = thrown as Thrown;
  return [thrown as Thrown, ...unwrapped(cause), ...errors.flatMap(unwrapped)];
};

/** What the package threw while `doing` something with the broker at `address`. */
export const platformaticError = (thrown: unknown, address: string, doing: string): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const all = unwrapped(thrown);
  const is = (kind: string | RegExp) => all.some(one => one.code !== undefined && one.code.match(kind) !== null);
  const meaning =
    is('PLT_KFK_AUTHENTICATION') || is(tlsFailed) || all.some(({ message }) => /TLS|wrong version number/.test(message))
      ? 'MR_KAFKA_LOGIN'
      : is('PLT_KFK_NETWORK') || is('PLT_KFK_TIMEOUT')
        ? 'MR_KAFKA_UNREACHABLE'
        : 'MR_KAFKA';
  const why = [...new Set(all.map(({ message }) => message.replace(/\.$/, '')))].join(': ');
  return new MillraceError(meaning, `Kafka broker ${address}, ${doing}: ${why}.`, { cause: toError(thrown) });
};

export const createWires = (platformatic: typeof Package, settings: ConnectionSettings): Wires => ({
  wordsFor(code) {
    const { protocolErrors, protocolErrorsCodesById } = platformatic;
    const type = (protocolErrorsCodesById as Readonly<Record<number, string>>)[code] ?? 'UNKNOWN';
    const { message = '' } = (protocolErrors as Readonly<Record<string, { message?: string }>>)[type] ?? {};
    return { type, message };
  },
  open: (to, requestTimeout) => new BrokerWire(platformatic, settings, to, requestTimeout),
});

const fetchKey = 1;
/** The timers of the package: after one of them it cannot make sense of what a connection still answers. So there are ours. */
const never = 2 ** 31 - 1;
/** More than there ever are on the way. */
const manyInflights = 1000;

class BrokerWire implements Wire {
  readonly #package: typeof Package;
  readonly #settings: ConnectionSettings;
  readonly #to: Address;
  readonly #address: string;
  readonly #requestTimeout: number;
  readonly #first: Package.Connection;
  readonly #connections = new Set<Package.Connection>();
  #forFetching: Promise<Package.Connection> | undefined;
  /** How those who wait for an answer are told that there is none. */
  readonly #waiting = new Set<(why: Error) => void>();
  #state: 'new' | 'connected' | 'lost' = 'new';

  constructor(platformatic: typeof Package, settings: ConnectionSettings, to: Address, requestTimeout: number) {
    this.#package = platformatic;
    this.#settings = settings;
    this.#to = to;
    this.#address = `${to.host}:${to.port}`;
    this.#requestTimeout = requestTimeout;
    this.#first = this.#connection(() => (this.#state = 'lost'));
  }

  get usable(): boolean {
    return this.#state === 'connected';
  }

  async connect(): Promise<void> {
    try {
      await this.#first.connect(this.#to.host, this.#to.port);
      if (this.#state === 'new') this.#state = 'connected';
    } catch (thrown) {
      throw platformaticError(thrown, this.#address, 'connecting');
    }
  }

  async ask<Answer extends Answered>(request: Request<Answer>): Promise<Answer> {
    try {
      const connection = request.key === fetchKey ? await (this.#forFetching ??= this.#connectToFetch()) : this.#first;
      return await this.#ask(connection, request);
    } catch (thrown) {
      throw platformaticError(thrown, this.#address, `asked for ${request.name}`);
    }
  }

  cut(why: Error): void {
    this.#state = 'lost';
    for (const fail of [...this.#waiting]) fail(why);
    for (const connection of this.#connections) {
      connection.close().catch(() => undefined);
      // There is none before it has begun to connect.
      (connection.socket as Package.Connection['socket'] | undefined)?.destroy();
    }
  }

  /** May be closed while nothing is fetched, and is made again. */
  async #connectToFetch(): Promise<Package.Connection> {
    const connection = this.#connection(() => (this.#forFetching = undefined));
    await connection.connect(this.#to.host, this.#to.port);
    return connection;
  }

  #connection(gone: () => void): Package.Connection {
    const { clientId = 'millrace', connectionTimeout = 10_000, tls, login } = this.#settings;
    const connection = new this.#package.Connection(clientId, {
      connectTimeout: connectionTimeout,
      requestTimeout: never,
      maxInflights: manyInflights,
      ...(tls !== undefined && {
        tls: tlsOptions(tls),
        ...(isIP(this.#to.host) === 0 && { tlsServerName: this.#to.host }),
      }),
      ...(login !== undefined && {
        sasl:
          login.mechanism === 'oauthbearer'
            ? { mechanism: 'OAUTHBEARER', token: login.token }
            : {
                mechanism: login.mechanism.toUpperCase() as 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512',
                username: login.username,
                password: login.password,
              },
      }),
    });
    this.#connections.add(connection);
    // Whoever asks hears of it as well.
    connection.on('error', gone);
    connection.on('close', () => {
      this.#connections.delete(connection);
      gone();
    });
    return connection;
  }

  #ask<Answer extends Answered>(connection: Package.Connection, request: Request<Answer>): Promise<Answer> {
    const { key, version, name, body, decode, patience = 0, silent = false } = request;
    const most = Math.max(this.#requestTimeout, patience);
    let fail: (why: Error) => void = () => undefined;
    const answer = new Promise<Answer>((resolve, reject) => {
      fail = reject;
      const payload = () => {
        const writer = this.#package.Writer.create().append(body);
        writer.context['noResponse'] = silent;
        return writer;
      };
      connection.send<Answer>(
        key,
        version,
        payload,
        (_correlation, _key, _version, reader) => decode(reader.buffer.slice()),
        false,
        false,
        (error, decoded) => {
          if (error !== null) reject(error);
          else resolve(silent ? decode(Buffer.alloc(0)) : (decoded as Answer));
        },
      );
    });
    const late = setTimeout(() => {
      fail(
        new MillraceError(
          'MR_KAFKA_UNREACHABLE',
          `Kafka broker ${this.#address}, asked for ${name}: there was no answer within ${most} ms. If it never answers, this may not be the port of a Kafka broker.`,
        ),
      );
    }, most);
    this.#waiting.add(fail);
    return answer.finally(() => {
      clearTimeout(late);
      this.#waiting.delete(fail);
    });
  }
}

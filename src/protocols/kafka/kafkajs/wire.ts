/**
 * Brokers, asked over the connections of kafkajs.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { Answered, Request, Wire, Wires } from '../brokers/wire.ts';
import type { ConnectionSettings } from '../client.ts';
import { tlsOptions } from '../tls.ts';
import { kafkajsError } from './errors.ts';
import { openSocket, sasl } from './login.ts';
import type { Broker, Package } from './package.ts';
import { curedOfIdleTimers } from './patches.ts';

/**
 * In ms: how long before its end a login is renewed. Brokers refuse that within a second after a login, and the 10 s of kafkajs would
 * renew a short login before every request.
 */
const reauthenticationThreshold = 1000;

export const createWires = (kafkajs: Package, settings: ConnectionSettings): Wires => {
  const { log, connectionTimeout = 10_000, clientId = 'millrace', login, tls } = settings;
  const warning = 2;
  const shared = {
    sasl: login === undefined ? null : sasl(login, kafkajs),
    ssl: tls === undefined ? null : tlsOptions(tls),
    clientId,
    connectionTimeout,
    enforceRequestTimeout: true,
    reauthenticationThreshold,
    socketFactory: openSocket,
    // Its errors reach us as rejections as well, and what is below a warning may hold what was sent.
    logger: kafkajs.createLogger({
      level: warning,
      logCreator: () => entry => {
        if (entry.level === warning) log.warn(`kafkajs ${entry.namespace}: ${entry.log.message}`);
      },
    }),
  };
  return {
    wordsFor: code => kafkajs.createErrorFromCode(code),
    open(to, requestTimeout) {
      const options = { ...shared, ...to, requestTimeout };
      const connectionPool = curedOfIdleTimers(new kafkajs.ConnectionPool(options));
      return new BrokerWire(new kafkajs.Broker({ ...options, connectionPool }), `${to.host}:${to.port}`);
    },
  };
};

class BrokerWire implements Wire {
  readonly #broker: Broker;
  readonly #address: string;

  constructor(broker: Broker, address: string) {
    this.#broker = broker;
    this.#address = address;
  }

  get usable(): boolean {
    return this.#broker.connectionPool.pool[0].isConnected();
  }

  async connect(): Promise<void> {
    try {
      await this.#broker.connect();
    } catch (thrown) {
      throw kafkajsError(thrown, this.#address, 'connecting');
    }
  }

  async ask<Answer extends Answered>(request: Request<Answer>): Promise<Answer> {
    const { name, key, version, body, decode, patience, silent = false } = request;
    const known = this.#broker.versions?.[key];
    if (known === undefined || version < known.minVersion || version > known.maxVersion)
      throw new MillraceError(
        'MR_KAFKA',
        `Kafka broker ${this.#address} does not know version ${version} of ${name}. Kafka 2.4 or newer is needed.`,
        { retriable: false },
      );
    try {
      const answered = await this.#broker.connectionPool.send<{ readonly answer: Answer }>({
        request: {
          apiKey: key,
          apiVersion: version,
          apiName: name,
          encode: () => Promise.resolve({ buf: body, buffer: body }),
          expectResponse: () => !silent,
        },
        response: {
          decode: raw => {
            const answer = decode(raw);
            return Promise.resolve({ clientSideThrottleTime: answer.throttle, answer });
          },
          parse: decoded => Promise.resolve(decoded),
        },
        ...(patience === undefined ? {} : { requestTimeout: patience }),
        logResponseError: false,
      });
      return answered === undefined ? decode(Buffer.alloc(0)) : answered.answer;
    } catch (thrown) {
      throw kafkajsError(thrown, this.#address, `asked for ${name}`);
    }
  }

  cut(why: Error): void {
    for (const connection of this.#broker.connectionPool.pool) {
      connection.rejectRequests(why);
      void connection.disconnect().finally(() => connection.socket?.destroy());
    }
  }
}

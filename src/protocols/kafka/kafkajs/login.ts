/**
 * Logins and sockets as kafkajs wants them.
 *
 * @module
 */
import { isIP, connect, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { MillraceError } from '../../../core/errors.ts';
import type { Login } from '../client.ts';
import type { Authentication, Package } from './package.ts';

/** Secrets are asked for whenever a connection logs in, so that new ones are found. */
export const sasl = (login: Login, { authenticators }: Pick<Package, 'authenticators'>) => ({
  mechanism: login.mechanism.toUpperCase(),
  authenticationProvider: (authentication: Authentication) => ({
    authenticate: async () => {
      if (login.mechanism === 'oauthbearer') return showToken(await login.token(), authentication);
      const secrets = { username: login.username, password: await login.password() };
      return authenticators[login.mechanism](secrets)(authentication).authenticate();
    },
  }),
});

/**
 * OAUTHBEARER by RFC 7628. kafkajs does not look at the answer, by which a broker refuses a token without any code of an error, and
 * would take itself for logged in.
 */
const showToken = async (token: string, { host, port, saslAuthenticate }: Authentication): Promise<void> => {
  const message = Buffer.from(`n,,\u0001auth=Bearer ${token}\u0001\u0001`);
  const length = Buffer.alloc(4);
  length.writeInt32BE(message.length);
  const refusal = await saslAuthenticate({
    request: { encode: () => Promise.resolve(Buffer.concat([length, message])) },
    response: {
      decode: answer => Promise.resolve(answer.subarray(4).toString()),
      parse: text => Promise.resolve(text),
    },
  });
  if (refusal !== '')
    throw new MillraceError('MR_KAFKA_LOGIN', `Kafka broker ${host}:${port}: the token was refused: ${refusal}`);
};

export interface SocketWish {
  readonly host: string;
  readonly port: number;
  readonly ssl: ConnectionOptions | null;
  readonly onConnect: () => void;
}

/** Without Nagle's algorithm: several requests are on their way at once. */
export const openSocket = ({ host, port, ssl, onConnect }: SocketWish): Socket => {
  const socket =
    ssl === null
      ? connect({ host, port }, onConnect)
      : connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}), ...ssl }, onConnect);
  return socket.setKeepAlive(true, 60_000).setNoDelay(true);
};

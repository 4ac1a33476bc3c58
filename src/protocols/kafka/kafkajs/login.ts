/**
 * Logins and TLS as kafkajs wants them.
 *
 * @module
 */
import { isIP, connect, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import type { Login, Tls } from '../client.ts';
import type { Authentication, Package } from './package.ts';

/** Secrets are asked for whenever a connection logs in, so that new ones are found. */
export const sasl = (login: Login, { authenticators }: Pick<Package, 'authenticators'>) => ({
  mechanism: login.mechanism.toUpperCase(),
  authenticationProvider: (authentication: Authentication) => ({
    authenticate: async () => {
      const { mechanism } = login;
      const secrets =
        mechanism === 'oauthbearer'
          ? { oauthBearerProvider: async () => ({ value: await login.token() }) }
          : { username: login.username, password: await login.password() };
      await authenticators[mechanism](secrets)(authentication).authenticate();
    },
  }),
});

export const tlsOptions = (tls: Tls): ConnectionOptions => {
  const { verifyHostname = true, ...given } = tls;
  return {
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...(verifyHostname ? {} : { checkServerIdentity: () => undefined }),
  };
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

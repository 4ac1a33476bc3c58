/**
 * TLS as Node.js wants it.
 *
 * @module
 */
import type { ConnectionOptions } from 'node:tls';
import type { Tls } from './client.ts';

export const tlsOptions = (tls: Tls): ConnectionOptions => {
  const { verifyHostname = true, ...given } = tls;
  return {
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...(verifyHostname ? {} : { checkServerIdentity: () => undefined }),
  };
};

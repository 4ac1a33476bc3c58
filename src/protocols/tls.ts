/**
 * TLS for servers, with Flume's options: a key store, and lists of protocols and cipher suites under their Java names.
 *
 * @module
 */
import { constants } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, DEFAULT_CIPHERS, getCiphers, type SecureContextOptions } from 'node:tls';
import type { z } from 'zod';
import { MillraceError, toError } from '../core/errors.ts';
import { flag, list, path, secret } from '../core/options.ts';

/** The options of every server that can do TLS. */
export const tlsFields = {
  ssl: flag('Whether to speak TLS.', { formerly: 'enableSSL', default: false }),
  keystore: path('PKCS12 file with the private key and the certificates; needed for `ssl`.', { optional: true }),
  keystorePassword: secret('Password of the key store.', {
    flume: 'keystore-password',
    formerly: 'keystorePassword',
    optional: true,
  }),
  includeProtocols: list('TLS versions to offer: TLSv1, TLSv1.1, TLSv1.2, TLSv1.3; empty: the last two.', {
    flume: 'include-protocols',
    default: [],
  }),
  excludeProtocols: list('TLS versions not to offer. SSL is never offered.', {
    flume: 'exclude-protocols',
    formerly: 'excludeProtocols',
    default: [],
  }),
  includeCipherSuites: list('Cipher suites to offer, by their Java or OpenSSL names; empty: Node.js decides.', {
    flume: 'include-cipher-suites',
    default: [],
  }),
  excludeCipherSuites: list('Cipher suites not to offer.', { flume: 'exclude-cipher-suites', default: [] }),
};

type TlsOptions = z.output<z.ZodObject<typeof tlsFields>>;

/**
 * The options as Node.js wants them; undefined without `ssl`.
 *
 * @throws MR_CONFIG if there is no key store, it cannot be read or opened, or the lists leave nothing to offer.
 */
export const serverTls = async (options: TlsOptions): Promise<SecureContextOptions | undefined> => {
  if (!options.ssl) return undefined;
  const { keystore, keystorePassword: passphrase = '' } = options;
  if (keystore === undefined) throw wrong('ssl needs a keystore: the path of a PKCS12 file with key and certificate.');
  const secure = {
    pfx: await pkcs12(keystore),
    passphrase,
    ...versions(options.includeProtocols, options.excludeProtocols),
    ...ciphers(options.includeCipherSuites, options.excludeCipherSuites),
  };
  try {
    createSecureContext(secure);
  } catch (thrown) {
    const { message } = toError(thrown);
    const why = /mac verify|password/i.test(message) ? 'keystore-password does not fit' : message;
    throw wrong(
      `the key store ${keystore} cannot be opened: ${why}.${/unsupported/i.test(why) ? outdated : ''}`,
      thrown,
    );
  }
  return secure;
};

const outdated =
  ' It may be encrypted in an old way; write it anew with a current keytool or `openssl pkcs12 -export`.';

const wrong = (message: string, cause?: unknown) => new MillraceError('MR_CONFIG', message, { cause });

const pkcs12 = async (keystore: string): Promise<Buffer> => {
  let bytes: Buffer;
  try {
    bytes = await readFile(keystore);
  } catch (thrown) {
    throw wrong(`the key store ${keystore} cannot be read: ${toError(thrown).message}.`, thrown);
  }
  const magic = bytes.subarray(0, 4).toString('hex');
  if (magic === 'feedfeed' || magic === 'cececece') {
    const type = magic === 'feedfeed' ? 'JKS' : 'JCEKS';
    const target = `${keystore.replace(/\.[^./]*$/, '')}.p12`;
    const convert = `keytool -importkeystore -srckeystore ${keystore} -destkeystore ${target} -deststoretype PKCS12`;
    throw wrong(`the key store ${keystore} is of type ${type}, which only Java reads. Convert it with \`${convert}\`.`);
  }
  if (bytes[0] !== 0x30) {
    const convert = 'openssl pkcs12 -export -inkey key.pem -in certificate.pem -out server.p12';
    throw wrong(`the key store ${keystore} is not a PKCS12 file. Make one of PEM files with \`${convert}\`.`);
  }
  return bytes;
};

/** Oldest first, each with the flag that leaves it out. */
const protocols = [
  ['TLSv1', constants.SSL_OP_NO_TLSv1],
  ['TLSv1.1', constants.SSL_OP_NO_TLSv1_1],
  ['TLSv1.2', constants.SSL_OP_NO_TLSv1_2],
  ['TLSv1.3', constants.SSL_OP_NO_TLSv1_3],
] as const;

const versions = (include: readonly string[], exclude: readonly string[]): SecureContextOptions => {
  const names = protocols.map(([name]) => name);
  // What Java names although nobody offers it any more is left out by itself.
  const strange = [...include, ...exclude].find(name => !/^SSLv/i.test(name) && !names.some(known => known === name));
  if (strange !== undefined) throw wrong(`there is no TLS version ${strange}; expected ${names.join(', ')}.`);
  const offered = names.filter(
    name => (include.length > 0 ? include : ['TLSv1.2', 'TLSv1.3']).includes(name) && !exclude.includes(name),
  );
  const [minVersion, maxVersion] = [offered[0], offered.at(-1)];
  if (minVersion === undefined || maxVersion === undefined)
    throw wrong('include-protocols and exclude-protocols leave no TLS version to offer.');
  const secureOptions = protocols.reduce((all, [name, no]) => (offered.includes(name) ? all : all | no), 0);
  return { minVersion, maxVersion, secureOptions };
};

/** `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is OpenSSL's `ECDHE-RSA-AES128-GCM-SHA256`; TLS 1.3 has one name for each. */
const openSslName = (name: string): string => {
  const [, keyExchange, cipher] = /^(?:TLS|SSL)_(\w+)_WITH_(\w+)$/.exec(name) ?? [];
  if (keyExchange === undefined || cipher === undefined) return name;
  const exchange = keyExchange === 'RSA' ? '' : `${keyExchange}_`;
  return (exchange + cipher)
    .replace(/(AES|CAMELLIA|ARIA)_(\d+)/, '$1$2')
    .replace(/AES(\d+)_CBC/, 'AES$1')
    .replace('CHACHA20_POLY1305_SHA256', 'CHACHA20_POLY1305')
    .replaceAll('_', '-');
};

const ciphers = (include: readonly string[], exclude: readonly string[]): SecureContextOptions => {
  if (include.length === 0 && exclude.length === 0) return {};
  const known = new Set(getCiphers().map(name => name.toUpperCase()));
  const excluded = new Set(exclude.map(openSslName));
  const strange = include.find(name => !known.has(openSslName(name).toUpperCase()));
  if (strange !== undefined) throw wrong(`the cipher suite ${strange} is not known here.`);
  const offered = (include.length > 0 ? include.map(openSslName) : DEFAULT_CIPHERS.split(':')).filter(
    name => !excluded.has(name),
  );
  if (offered.length === 0) throw wrong('include-cipher-suites and exclude-cipher-suites leave nothing to offer.');
  // Excluded by name as well, for the groups that the default contains.
  const without = [...excluded].filter(name => known.has(name.toUpperCase()) && !name.startsWith('TLS_'));
  return { ciphers: [...offered, ...without.map(name => `!${name}`)].join(':') };
};

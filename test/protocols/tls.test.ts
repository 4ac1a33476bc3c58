import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { parseOptions } from '../../src/core/options.ts';
import { serverTls, tlsFields } from '../../src/protocols/tls.ts';

/** A key and a certificate for localhost, under the password `millrace`. */
const keystore = join(import.meta.dirname, 'fixtures/server.p12');
const tls = (given: object) =>
  serverTls(parseOptions('test', z.object(tlsFields), { ssl: true, keystore, keystorePassword: 'millrace', ...given }));

const directories: string[] = [];
afterEach(() => Promise.all(directories.splice(0).map(directory => rm(directory, { recursive: true }))));
const file = async (content: string | Buffer) => {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-tls-'));
  directories.push(directory);
  await writeFile(join(directory, 'store'), content);
  return join(directory, 'store');
};

describe('key stores', () => {
  test('without ssl nothing is looked at', async () => {
    expect(await tls({ ssl: false, keystore: '/does/not/exist' })).toBeUndefined();
  });

  test('a PKCS12 file is used as it is', async () => {
    expect(await tls({})).toMatchObject({ pfx: expect.any(Buffer) as Buffer, passphrase: 'millrace' });
  });

  const fails = (given: object, message: string | RegExp) =>
    expect(tls(given)).rejects.toMatchObject({
      code: 'MR_CONFIG',
      message: expect.stringMatching(message) as string,
    });

  test('none', () => fails({ keystore: undefined }, 'ssl needs a keystore'));
  test('one that is not there', () => fails({ keystore: '/does/not/exist' }, 'cannot be read: ENOENT'));
  test('a password that does not fit, which is not shown', async () => {
    await fails({ keystorePassword: 'hunter2' }, /^(?!.*hunter2).*keystore-password does not fit/);
    await fails({ keystorePassword: undefined }, 'keystore-password does not fit');
  });
  test('JKS is named, with the way out', async () => {
    const jks = await file(Buffer.from('feedfeed0000000200000000', 'hex'));
    await fails(
      { keystore: jks },
      /is of type JKS.*`keytool -importkeystore -srckeystore .*\.p12 -deststoretype PKCS12`/,
    );
  });
  test('PEM is no key store', async () => {
    await fails({ keystore: await file('-----BEGIN CERTIFICATE-----') }, 'is not a PKCS12 file');
  });
  test('a file that only begins like one', async () => {
    await fails({ keystore: await file(Buffer.from('3082ffff00', 'hex')) }, 'cannot be opened');
  });
});

describe('protocols', () => {
  test.each([
    [{}, 'TLSv1.2', 'TLSv1.3'],
    [{ includeProtocols: 'TLSv1.1 TLSv1.2' }, 'TLSv1.1', 'TLSv1.2'],
    [{ excludeProtocols: 'SSLv3 SSLv2Hello TLSv1 TLSv1.2' }, 'TLSv1.3', 'TLSv1.3'],
    [{ includeProtocols: ['TLSv1.2', 'TLSv1.3'], excludeProtocols: ['TLSv1.3'] }, 'TLSv1.2', 'TLSv1.2'],
  ])('%j', async (given, minVersion, maxVersion) => {
    expect(await tls(given)).toMatchObject({ minVersion, maxVersion });
  });

  test('nothing left, or nothing known', async () => {
    await expect(tls({ excludeProtocols: 'TLSv1.2 TLSv1.3' })).rejects.toThrow('leave no TLS version to offer');
    await expect(tls({ includeProtocols: 'TLSv1.4' })).rejects.toThrow(
      'there is no TLS version TLSv1.4; expected TLSv1,',
    );
  });
});

describe('cipher suites', () => {
  const ciphers = async (given: object) => (await tls(given))?.ciphers;

  test('Java names become those of OpenSSL', async () => {
    const names = {
      TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: 'ECDHE-RSA-AES128-GCM-SHA256',
      TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384: 'ECDHE-ECDSA-AES256-SHA384',
      TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-RSA-CHACHA20-POLY1305',
      TLS_RSA_WITH_AES_128_CBC_SHA: 'AES128-SHA',
      TLS_AES_256_GCM_SHA384: 'TLS_AES_256_GCM_SHA384',
      'DHE-RSA-AES128-GCM-SHA256': 'DHE-RSA-AES128-GCM-SHA256',
    };
    expect(await ciphers({ includeCipherSuites: Object.keys(names) })).toBe(Object.values(names).join(':'));
  });

  test('what is excluded is left out, and what nobody has is not missed', async () => {
    expect(await ciphers({})).toBeUndefined();
    const suites = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384'];
    expect(await ciphers({ includeCipherSuites: suites, excludeCipherSuites: [suites[0], 'SSL_X_WITH_Y'] })).toBe(
      suites[1],
    );
    const rest = await ciphers({ excludeCipherSuites: ['TLS_AES_128_GCM_SHA256', 'TLS_RSA_WITH_AES_128_CBC_SHA'] });
    expect(rest?.split(':')).not.toContain('TLS_AES_128_GCM_SHA256');
    expect(rest).toMatch(/HIGH.*:!AES128-SHA$/);
  });

  test('nothing left, or nothing known', async () => {
    const name = 'TLS_AES_128_GCM_SHA256';
    await expect(tls({ includeCipherSuites: [name], excludeCipherSuites: [name] })).rejects.toThrow(
      'leave nothing to offer',
    );
    await expect(tls({ includeCipherSuites: 'TLS_NO_SUCH' })).rejects.toThrow(
      'the cipher suite TLS_NO_SUCH is not known',
    );
  });
});

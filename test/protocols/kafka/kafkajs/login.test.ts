import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, createServer, type Server, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Login, Tls } from '../../../../src/protocols/kafka/client.ts';
import { openSocket, sasl } from '../../../../src/protocols/kafka/kafkajs/login.ts';
import { loadKafkajs, type Authentication } from '../../../../src/protocols/kafka/kafkajs/package.ts';
import { tlsOptions } from '../../../../src/protocols/kafka/tls.ts';

describe('TLS', () => {
  // A key and a certificate for localhost.
  const pfx = readFileSync(join(import.meta.dirname, '../../fixtures/server.p12'));
  const passphrase = 'millrace';
  let server: Server;
  let port: number;
  let ca: string;

  beforeAll(async () => {
    server = createServer({ pfx, passphrase, requestCert: true, rejectUnauthorized: false });
    server.on('tlsClientError', () => undefined);
    await once(server.listen(0), 'listening');
    ({ port } = server.address() as { port: number });
    const socket = connect({ port, rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { raw } = socket.getPeerCertificate();
    ca = `-----BEGIN CERTIFICATE-----\n${raw.toString('base64')}\n-----END CERTIFICATE-----\n`;
    socket.destroy();
  });
  afterAll(() => void server.close());

  /** Undefined if it is let in, or why not. */
  const attempt = (servername: string, tls: Tls) =>
    new Promise<string | undefined>(resolve => {
      const socket = openSocket({
        host: 'localhost',
        port,
        // As if the broker had this name.
        ssl: { ...tlsOptions(tls), servername },
        onConnect: () => {
          socket.destroy();
          resolve(undefined);
        },
      });
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    });

  it('wants the authority, and the name of the broker in its certificate', async () => {
    expect(await attempt('localhost', { ca })).toBeUndefined();
    expect(await attempt('localhost', {})).toMatch(/SELF_SIGNED|UNABLE_TO_VERIFY/);
    expect(await attempt('elsewhere', { ca })).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
  });

  it('takes any name when told so, but no other authority', async () => {
    expect(await attempt('elsewhere', { ca, verifyHostname: false })).toBeUndefined();
    expect(await attempt('elsewhere', { verifyHostname: false })).toMatch(/SELF_SIGNED|UNABLE_TO_VERIFY/);
  });

  it('shows a certificate of a PKCS#12 file', async () => {
    const seen = once(server, 'secureConnection') as Promise<[TLSSocket]>;
    const socket = openSocket({
      host: 'localhost',
      port,
      ssl: tlsOptions({ ca, pfx, passphrase }),
      onConnect: () => undefined,
    });
    const [accepted] = await seen;
    expect(accepted.getPeerCertificate().raw).toBeInstanceOf(Buffer);
    socket.destroy();
  });
});

describe('logins', () => {
  const logger = { debug: () => undefined, error: () => undefined };
  /** What the broker gets to see; it answers with these bytes behind their length. */
  const shown = async (login: Login, answer: string) => {
    const sent: string[] = [];
    const length = Buffer.alloc(4);
    length.writeInt32BE(answer.length);
    const saslAuthenticate: Authentication['saslAuthenticate'] = async ({ request, response }) => {
      const message = await request.encode();
      expect(message.readInt32BE(0)).toBe(message.length - 4);
      sent.push(message.subarray(4).toString());
      return response.parse(await response.decode(Buffer.concat([length, Buffer.from(answer)])));
    };
    const { authenticationProvider } = sasl(login, loadKafkajs());
    const authenticator = authenticationProvider({ host: 'broker', port: 9092, logger, saslAuthenticate });
    await authenticator.authenticate();
    await authenticator.authenticate();
    return sent;
  };

  it('read secrets each time', async () => {
    let asked = 0;
    const password = () => `secret-${++asked}`;
    expect(await shown({ mechanism: 'plain', username: 'alice', password }, '')).toEqual([
      '\0alice\0secret-1',
      '\0alice\0secret-2',
    ]);
    const token = () => Promise.resolve(`token-${++asked}`);
    expect(await shown({ mechanism: 'oauthbearer', token }, '')).toEqual([
      'n,,\x01auth=Bearer token-3\x01\x01',
      'n,,\x01auth=Bearer token-4\x01\x01',
    ]);
  });

  it('by a token that is refused fail, and say why but not with what', async () => {
    const token = () => Promise.resolve('my-token');
    const refused = shown({ mechanism: 'oauthbearer', token }, '{"status":"invalid_token"}');
    await expect(refused).rejects.toMatchObject({
      code: 'MR_KAFKA_LOGIN',
      message: expect.stringMatching(/^(?!.*my-token).*broker:9092.*invalid_token/) as string,
    });
  });
});

/**
 * Certificates for a run, made with the `openssl` program (3.0 or later): Node cannot make any.
 *
 * @module
 */
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** PEM. Keys are PKCS#8 without a password. */
export interface Certificates {
  readonly ca: string;
  /** Of 127.0.0.1 and localhost. */
  readonly server: { readonly key: string; readonly cert: string };
  /** Of `CN=alice`. */
  readonly client: { readonly key: string; readonly cert: string };
  /** Key, certificate and authority of the server in one file, as Java likes it. */
  readonly serverFile: string;
  readonly caFile: string;
}

/** Makes an authority, and keys and certificates by it, in an empty folder. They are good for two days. */
export const makeCertificates = async (folder: string): Promise<Certificates> => {
  const make = async (name: string, subject: string, ...more: string[]) => {
    const [key, cert] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
    const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    const args = ['req', '-x509', ...fresh, '-subj', `/CN=${subject}`, '-keyout', key, '-out', cert, ...more];
    await promisify(execFile)('openssl', args);
    return { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') };
  };
  const { cert: ca } = await make('ca', 'an authority of tests');
  const caFile = join(folder, 'ca.crt');
  const signed = ['-CA', caFile, '-CAkey', join(folder, 'ca.key')];
  const server = await make('server', 'localhost', ...signed, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
  const client = await make('client', 'alice', ...signed);
  const serverFile = join(folder, 'server.pem');
  await writeFile(serverFile, server.key + server.cert + ca);
  return { ca, server, client, serverFile, caFile };
};

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { parseOptions } from '../../../src/core/options.ts';
import { quietLog } from '../../../src/core/scope.ts';
import type { Login } from '../../../src/protocols/kafka/client.ts';
import {
  checkKafka,
  connectionFields,
  connectionOf,
  consumerFields,
  consumerOf,
  producerFields,
  producerOf,
} from '../../../src/protocols/kafka/properties.ts';

const schema = z.object({ ...connectionFields, ...producerFields, ...consumerFields }).superRefine(checkKafka);
type Given = Partial<z.input<typeof schema>>;
const parse = (given: Given) => parseOptions('kafka', schema, { bootstrapServers: 'b1:9092', ...given });
const connect = (given: Given) => connectionOf(parse(given), quietLog);
const refusal = (given: Given): string => {
  try {
    parse(given);
  } catch (error) {
    expect((error as { code: string }).code).toBe('MR_CONFIG');
    return (error as Error).message;
  }
  throw new Error('it was taken');
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-kafka-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});
const file = async (name: string, content: string | Buffer): Promise<string> => {
  await writeFile(join(directory, name), content);
  return join(directory, name);
};

describe('brokers', () => {
  it('are given as Flume has them, or as an array', async () => {
    expect((await connect({ bootstrapServers: 'b1:9092, b2:9093' as never })).brokers).toEqual(['b1:9092', 'b2:9093']);
    expect((await connect({ bootstrapServers: ['[::1]:9092'] })).brokers).toEqual(['[::1]:9092']);
  });

  it.each(['b1', 'b1:', 'kafka://b1:9092', '::1:9092', 'b1:9092:1'])('have a host and a port, unlike %s', broker => {
    expect(refusal({ bootstrapServers: ['ok:1', broker] })).toBe(
      `kafka: bootstrapServers: expected host:port of some brokers, found "${broker}"`,
    );
  });

  it('are at least one', () => {
    expect(refusal({ bootstrapServers: [] })).toContain('expected host:port of some brokers');
  });
});

describe('properties of the producer', () => {
  it('have safe defaults', () => {
    expect(producerOf('all', 'none', {})).toEqual({
      acks: 'all',
      idempotent: true,
      compression: 'none',
      requestTimeout: 30_000,
      maxRequestSize: 1_048_576,
      metadataMaxAge: 300_000,
    });
  });

  it('become settings', () => {
    const { producer } = parse({
      producer: { 'request.timeout.ms': '5000', 'max.request.size': ' 10 ', 'metadata.max.age.ms': '7', retries: '0' },
    });
    expect(producerOf('1', 'zstd', producer)).toEqual({
      acks: 1,
      idempotent: false,
      compression: 'zstd',
      requestTimeout: 5000,
      maxRequestSize: 10,
      metadataMaxAge: 7,
    });
  });

  it('say whether the producer is idempotent, as far as that goes with acks', () => {
    expect(producerOf('all', 'none', { 'enable.idempotence': 'False' }).idempotent).toBe(false);
    expect(producerOf('all', 'none', { 'enable.idempotence': 'true' }).idempotent).toBe(true);
    expect(producerOf('0', 'none', { 'enable.idempotence': 'false' })).toMatchObject({ acks: 0, idempotent: false });
    expect(() => producerOf('1', 'none', { 'enable.idempotence': 'true' })).toThrow(
      'enable.idempotence needs acks = all, and acks is 1.',
    );
  });

  it.each<[string, string, RegExp]>([
    [
      'request.timeout.ms',
      '5s',
      /^kafka: producer: request\.timeout\.ms: expected a whole number of at least 1, found "5s"/,
    ],
    ['request.timeout.ms', '0', /expected a whole number of at least 1, found "0"/],
    ['linger.mss', '5', /a producer has no such property; did you mean linger\.ms\?/],
    ['whatever', '5', /whatever: a producer has no such property$/],
    ['constructor', '5', /constructor: a producer has no such property$/],
    ['fetch.max.bytes', '5', /it is a property of a consumer, not of a producer/],
    ['acks', '1', /expected one of all, -1, found "1".*channel/],
    ['transactional.id', 't', /exactlyOnce/],
    ['interceptor.classes', 'x.Y', /Classes of Java cannot run here/],
    [
      'value.serializer',
      'x.Y',
      /expected org\.apache\.kafka\.common\.serialization\.ByteArraySerializer, found "x\.Y"/,
    ],
    ['partitioner.class', 'x.Y', /partitionIdHeader/],
    ['sasl.mechanism', 'GSSAPI', /Kerberos \(GSSAPI\) is not built in/],
    ['ssl.keystore.type', 'JKS', /keytool -importkeystore/],
    ['ssl.enabled.protocols', 'TLSv1', /expected one of TLSv1\.2/],
    ['security.protocol', 'TLS', /expected one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, found "TLS"/],
    ['security.protocol', 'SASL_SSL', /SASL_SSL needs sasl\.jaas\.config as well/],
    ['ssl.keystore.key', 'x', /needs ssl\.keystore\.certificate\.chain/],
  ])('are refused where they cannot be kept: %s = %s', (name, value, message) => {
    expect(refusal({ producer: { [name]: value } })).toMatch(message);
  });

  it('that Flume sets itself are taken', () => {
    parse({
      producer: {
        'key.serializer': 'org.apache.kafka.common.serialization.StringSerializer',
        'value.serializer': 'org.apache.kafka.common.serialization.ByteArraySerializer',
        'linger.ms': '100',
        'batch.size': '16384',
        'max.in.flight.requests.per.connection': '1',
        'delivery.timeout.ms': '120000',
        acks: '-1',
      },
      consumer: {
        'key.deserializer': 'org.apache.kafka.common.serialization.StringDeserializer',
        'value.deserializer': 'org.apache.kafka.common.serialization.ByteArrayDeserializer',
        'enable.auto.commit': 'false',
        'partition.assignment.strategy': 'org.apache.kafka.clients.consumer.RangeAssignor',
      },
    });
  });
});

describe('properties of the consumer', () => {
  it('become settings', () => {
    const { consumer } = parse({
      consumer: {
        'session.timeout.ms': '6000',
        'heartbeat.interval.ms': '2000',
        'max.poll.interval.ms': '9000',
        'fetch.min.bytes': '2',
        'fetch.max.bytes': '3',
        'max.partition.fetch.bytes': '4',
        'fetch.max.wait.ms': '0',
        'metadata.max.age.ms': '5',
        'isolation.level': 'READ_UNCOMMITTED',
        'auto.offset.reset': 'Earliest',
      },
    });
    expect(consumerOf(consumer)).toEqual({
      sessionTimeout: 6000,
      heartbeatInterval: 2000,
      rebalanceTimeout: 9000,
      minBytes: 2,
      maxBytes: 3,
      maxBytesPerPartition: 4,
      maxWait: 0,
      metadataMaxAge: 5,
      readCommitted: false,
      offsetReset: 'earliest',
    });
    expect(consumerOf({})).toMatchObject({ sessionTimeout: 30_000, readCommitted: true, offsetReset: undefined });
  });

  it('are refused where they cannot be kept', () => {
    expect(refusal({ consumer: { 'auto.offset.reset': 'oldest', 'group.id': 'g' } })).toBe(
      'kafka: consumer: auto.offset.reset: expected one of earliest, latest, none, found "oldest". Where to begin without an offset, or with one ' +
        'that is not there any more; none: that is an error; consumer: group.id: it cannot be set here. Set kafka.consumer.group.id, or groupId in code',
    );
  });
});

const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule';
const plain = 'org.apache.kafka.common.security.plain.PlainLoginModule';
const oauth = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule';
const sasl = (mechanism: string, jaas: string) => ({
  'security.protocol': 'SASL_PLAINTEXT',
  'sasl.mechanism': mechanism,
  'sasl.jaas.config': jaas,
});
const loginOf = async (mechanism: string, jaas: string): Promise<Login> => {
  const { login } = await connect({ consumer: sasl(mechanism, jaas) });
  if (login === undefined) throw new Error('no login');
  return login;
};
const passwordOf = (login: Login) => (login.mechanism === 'oauthbearer' ? login.token() : login.password());

describe('a login', () => {
  it.each([
    ['PLAIN', plain, 'plain'],
    ['SCRAM-SHA-256', scram, 'scram-sha-256'],
    ['scram-sha-512', scram, 'scram-sha-512'],
  ])('by %s', async (mechanism, module, expected) => {
    const login = await loginOf(mechanism, `${module} required username="al\\"ice" password=s3cr=t ;`);
    expect(login).toMatchObject({ mechanism: expected, username: 'al"ice' });
    expect(await passwordOf(login)).toBe('s3cr=t');
  });

  it('has a password that is read each time', async () => {
    const path = await file('pw', 'old\n');
    vi.stubEnv('KAFKA_USER', 'alice');
    const login = await loginOf('PLAIN', `${plain} required username="env:KAFKA_USER" password="file:${path}";`);
    expect(login).toMatchObject({ username: 'alice' });
    expect(await passwordOf(login)).toBe('old');
    await file('pw', 'new');
    expect(await passwordOf(login)).toBe('new');
  });

  it('may be in a file as a whole', async () => {
    const path = await file('jaas', `${plain} required username="alice" password="old";\n`);
    const login = await loginOf('PLAIN', `file:${path}`);
    await file('jaas', `${plain} required username="alice" password="new";\n`);
    expect(await passwordOf(login)).toBe('new');
  });

  it('by token', async () => {
    const path = await file('token', 'abc.def.ghi\n');
    expect(await passwordOf(await loginOf('OAUTHBEARER', `${oauth} required token="file:${path}";`))).toBe(
      'abc.def.ghi',
    );
    const made = await passwordOf(
      await loginOf('OAUTHBEARER', `${oauth} required unsecuredLoginStringClaim_sub="alice";`),
    );
    const [head, claims, signature] = made.split('.');
    const decoded = (part = '') => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>;
    expect(decoded(head)).toEqual({ alg: 'none' });
    expect(decoded(claims)).toMatchObject({ sub: 'alice' });
    expect(signature).toBe('');
  });

  it.each([
    ['no semicolon', `${plain} required username="u" password="hunter2"`, 'what follows password is neither'],
    ['no module', 'username="u" password="hunter2";', 'the login module and the word `required` are missing'],
    [
      'Kerberos',
      'com.sun.security.auth.module.Krb5LoginModule required x="hunter2";',
      'the login module com.sun.security.auth.module.Krb5LoginModule is not built in',
    ],
    ['an open quote', `${plain} required username="u" password="hunter2;`, 'what follows username is neither'],
  ])('is refused at once if there is %s, without its secrets', (_, jaas, message) => {
    const found = refusal({ consumer: sasl('PLAIN', jaas) });
    expect(found).toContain(`consumer: sasl.jaas.config: ${message}`);
    expect(found).not.toContain('hunter2');
  });

  it.each([
    ['PLAIN', `${scram} required username="u" password="hunter2";`, 'sasl.mechanism PLAIN does not go with'],
    ['SCRAM-SHA-256', `${scram} required username="u";`, 'the ScramLoginModule needs password="…"'],
    [
      'PLAIN',
      `${plain} required username="u" password="env:MILLRACE_NONE";`,
      'there is no environment variable MILLRACE_NONE',
    ],
    ['PLAIN', 'file:/no/such/file', 'sasl.jaas.config: ENOENT'],
  ])('is refused when it is needed: %s, %s', async (mechanism, jaas, message) => {
    const used = loginOf(mechanism, jaas).then(passwordOf);
    await expect(used).rejects.toMatchObject({
      code: 'MR_CONFIG',
      message: expect.stringContaining(message) as string,
    });
    await expect(used).rejects.not.toMatchObject({ message: expect.stringContaining('hunter2') as string });
  });

  it('is not needed without SASL', async () => {
    expect((await connect({ consumer: { 'security.protocol': 'PLAINTEXT' } })).login).toBeUndefined();
  });

  it('may be given in code, but not twice', async () => {
    const login: Login = { mechanism: 'plain', username: 'u', password: () => 'p' };
    expect((await connect({ login })).login).toBe(login);
    await expect(connect({ login, producer: { 'security.protocol': 'SSL' } })).rejects.toThrow(
      'together with tls or login',
    );
  });
});

const pem = (what: string) => `-----BEGIN ${what}-----\nMIIB\n-----END ${what}-----\n`;
const ssl = (more: Record<string, string>) => ({ producer: { 'security.protocol': 'SSL', ...more } });

describe('TLS', () => {
  it('is off, unless it was asked for', async () => {
    const ca = await file('ca.pem', pem('CERTIFICATE'));
    expect((await connect({ producer: { 'ssl.truststore.location': ca } })).tls).toBeUndefined();
    expect((await connect(ssl({}))).tls).toEqual({ verifyHostname: true });
  });

  it('trusts what is in PEM', async () => {
    const ca = await file('ca.pem', pem('CERTIFICATE'));
    expect((await connect(ssl({ 'ssl.truststore.location': ca, 'ssl.truststore.type': 'pem' }))).tls?.ca).toEqual(
      Buffer.from(pem('CERTIFICATE')),
    );
    expect((await connect(ssl({ 'ssl.truststore.certificates': pem('CERTIFICATE') }))).tls?.ca).toBe(
      pem('CERTIFICATE'),
    );
  });

  it('has a key in PEM', async () => {
    const both = pem('PRIVATE KEY') + pem('CERTIFICATE');
    const store = await file('client.pem', both);
    vi.stubEnv('KEY_PW', 'pw');
    const { tls } = await connect(ssl({ 'ssl.keystore.location': store, 'ssl.key.password': 'env:KEY_PW' }));
    expect(tls).toMatchObject({ cert: Buffer.from(both), key: Buffer.from(both), passphrase: 'pw' });
    const key = await file('key.pem', pem('PRIVATE KEY'));
    expect(
      (await connect(ssl({ 'ssl.keystore.key': `file:${key}`, 'ssl.keystore.certificate.chain': pem('CERTIFICATE') })))
        .tls,
    ).toMatchObject({ cert: pem('CERTIFICATE'), key: pem('PRIVATE KEY').trimEnd() });
  });

  it('has a key in PKCS12', async () => {
    const [key, cert, store] = ['key.pem', 'cert.pem', 'client.p12'].map(name => join(directory, name)) as [
      string,
      string,
      string,
    ];
    const openssl = (command: string) => execFileSync('openssl', command.split(' '), { stdio: 'ignore' });
    openssl(
      `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=c -keyout ${key} -out ${cert}`,
    );
    openssl(`pkcs12 -export -inkey ${key} -in ${cert} -passout pass:pw -out ${store}`);
    const { tls } = await connect(ssl({ 'ssl.keystore.location': store, 'ssl.keystore.password': 'pw' }));
    expect(tls).toMatchObject({ passphrase: 'pw' });
    expect(tls?.pfx?.[0]).toBe(0x30);
    expect(tls?.cert).toBeUndefined();
    await expect(connect(ssl({ 'ssl.truststore.location': store }))).rejects.toThrow(
      `is of type PKCS12, and certificates of CAs are read as PEM only. Write its certificates with \`keytool -list -rfc -keystore ${store} > ca.pem\``,
    );
  });

  it.each<[string, boolean]>([
    ['ssl.endpoint.identification.algorithm=', false],
    ['ssl.endpoint.identification.algorithm=https', true],
    ['ssl.disableTLSHostnameVerification=true', false],
    ['ssl.disableTLSHostnameVerification=false', true],
  ])('looks at names or not: %s', async (property, looks) => {
    const [name = '', value = ''] = property.split('=');
    expect((await connect(ssl({ [name]: value }))).tls?.verifyHostname).toBe(looks);
  });

  it('says how to convert what only Java reads', async () => {
    const jks = await file('client.jks', Buffer.from('feedfeed00000002', 'hex'));
    await expect(connect(ssl({ 'ssl.keystore.location': jks }))).rejects.toThrow(
      `ssl.keystore.location: ${jks} is of type JKS, which only Java reads. Convert it with \`keytool -importkeystore -srckeystore ${jks} -destkeystore ${directory}/client.p12`,
    );
    await expect(connect(ssl({ 'ssl.truststore.location': jks }))).rejects.toThrow(
      `is of type JKS, which only Java reads. Write its certificates with \`keytool -list -rfc -keystore ${jks} > ca.pem\``,
    );
    const text = await file('text', 'hello');
    await expect(connect(ssl({ 'ssl.keystore.location': text }))).rejects.toThrow('is neither PEM nor PKCS12');
    await expect(connect(ssl({ 'ssl.keystore.location': '/no/such' }))).rejects.toThrow(
      '/no/such cannot be read: ENOENT',
    );
  });
});

describe('one connection for a producer and a consumer', () => {
  it('takes what either of them says', async () => {
    const { clientId, connectionTimeout, tls } = await connect({
      producer: { 'client.id': 'p', 'security.protocol': 'SSL' },
      consumer: { 'client.id': 'c', 'socket.connection.setup.timeout.ms': '7' },
    });
    expect({ clientId, connectionTimeout, tls }).toEqual({
      clientId: 'p',
      connectionTimeout: 7,
      tls: { verifyHostname: true },
    });
  });

  it('refuses what they say differently about getting in', async () => {
    const options: Given = { producer: { 'security.protocol': 'SSL' }, consumer: { 'security.protocol': 'PLAINTEXT' } };
    await expect(connect(options)).rejects.toThrow(
      'kafka.producer.security.protocol and kafka.consumer.security.protocol differ',
    );
  });
});

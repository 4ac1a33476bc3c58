/**
 * Real Apache Flume 1.11.0 as a process, to measure and to test against. Its jars come from Maven Central into
 * `bench/.cache/flume` on first use (about 50 MB, half a minute).
 *
 * @module
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jars } from './jars.ts';
import { freePort, poll, start, type Running } from './processes.ts';

const log4j = `<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers>
    <Logger name="org.apache.flume" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
`;

const artifacts = [
  'org.apache.flume:flume-ng-node:1.11.0',
  'org.apache.flume.flume-ng-sources:flume-taildir-source:1.11.0',
  'org.apache.logging.log4j:log4j-slf4j-impl:2.18.0',
  'org.apache.logging.log4j:log4j-core:2.18.0',
  'org.apache.logging.log4j:log4j-api:2.18.0',
];
const shared = {
  title: 'real Flume',
  // Flume's own poms leave these open to newer patches of mixed versions.
  boms: ['io.netty:netty-bom:4.1.72.Final', 'com.fasterxml.jackson:jackson-bom:2.13.2.20220328'],
  files: { 'log4j2.xml': log4j },
};
const plain = jars({ ...shared, name: 'flume', artifacts });
const withKafka = jars({
  ...shared,
  name: 'flume-kafka',
  artifacts: [
    ...artifacts,
    'org.apache.flume.flume-ng-sources:flume-kafka-source:1.11.0',
    'org.apache.flume.flume-ng-channels:flume-kafka-channel:1.11.0',
    'org.apache.flume.flume-ng-sinks:flume-ng-kafka-sink:1.11.0',
  ],
});

/** Why real Flume cannot run here, or undefined. */
export const flumeMissing = plain.missing;
/** The class path of Flume; fetches what is not there. */
export const flumeClasspath = plain.classpath;
/** The same with Kafka's components. */
export const flumeKafkaClasspath = withKafka.classpath;

export interface FlumeOptions {
  /** The text of the properties file. */
  readonly conf: string;
  /** Default `a1`. */
  readonly agent?: string;
  /** Where `/metrics` is served; default: a free port. */
  readonly metricsPort?: number;
  /** Default `-Xmx512m`; the launcher's own 20 MB are too few for most flows. */
  readonly jvm?: readonly string[];
  /** Kafka's source, channel and sink as well: twice the jars. Default false. */
  readonly kafka?: boolean;
}

/** Flume's `/metrics`: `CHANNEL.c1` → counters, all text. */
export type FlumeMetrics = Readonly<Record<string, Readonly<Record<string, string>>>>;

export interface Flume extends Running {
  readonly metricsPort: number;
  /**
   * Resolves when the metrics show a channel, rejects when the agent ends first. Sources and sinks start a moment later
   * and many have no metrics: wait for what you need (a port, a file) as well.
   */
  readonly ready: Promise<void>;
  readonly metrics: () => Promise<FlumeMetrics>;
}

/** Asks `/metrics` every 20 ms until the sink has taken `events` from channel c1. */
export const taken = (metrics: () => Promise<FlumeMetrics>, events: number): Promise<true> =>
  poll<true>(`the sink did not get ${events} events`, async () =>
    Number((await metrics())['CHANNEL.c1']?.['EventTakeSuccessCount']) >= events ? true : undefined,
  );

/** Starts a real Flume agent. `stop()` sends SIGTERM, on which Flume ends with 143. */
export const flume = async ({
  conf,
  agent = 'a1',
  metricsPort,
  jvm = ['-Xmx512m'],
  kafka = false,
}: FlumeOptions): Promise<Flume> => {
  const classpath = await (kafka ? withKafka : plain).classpath();
  const port = metricsPort ?? (await freePort());
  const dir = await mkdtemp(join(tmpdir(), 'flume-'));
  const file = join(dir, 'flume.conf');
  await writeFile(file, conf);
  const running = start(
    'java',
    [
      ...jvm,
      '-Djava.net.preferIPv4Stack=true',
      '-Dflume.monitoring.type=http',
      `-Dflume.monitoring.port=${port}`,
      '-cp',
      classpath,
      'org.apache.flume.node.Application',
      ...['-n', agent, '-f', file, '--no-reload-conf'],
    ],
    { cwd: dir },
  );
  void running.exited.then(() => rm(dir, { recursive: true, force: true }));
  const metrics = async () =>
    (await (
      await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(5000) })
    ).json()) as FlumeMetrics;
  const ready = poll(
    'real Flume did not start',
    async () => (Object.keys(await metrics()).some(key => key.startsWith('CHANNEL.')) ? true : undefined),
    { interval: 50, until: running.exited },
  ).then(
    () => undefined,
    (cause: unknown) => Promise.reject(new Error(`${(cause as Error).message}\n${running.output()}`)),
  );
  // Whoever does not await it still sees no unhandled rejection.
  ready.catch(() => undefined);
  return { ...running, metricsPort: port, ready, metrics };
};

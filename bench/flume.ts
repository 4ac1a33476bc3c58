/**
 * Real Apache Flume 1.11.0 as a process, to measure and to test against. Its jars come from Maven Central into
 * `bench/.cache/flume` on first use (about 50 MB, half a minute).
 *
 * @module
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { benchDir, freePort, poll, start, type Running } from './processes.ts';

const home = join(benchDir, '.cache', 'flume');

const artifacts = [
  'org.apache.flume:flume-ng-node:1.11.0',
  'org.apache.flume.flume-ng-sources:flume-taildir-source:1.11.0',
  'org.apache.logging.log4j:log4j-slf4j-impl:2.18.0',
  'org.apache.logging.log4j:log4j-core:2.18.0',
  'org.apache.logging.log4j:log4j-api:2.18.0',
];
// Flume's own poms leave these open to newer patches of mixed versions.
const boms = ['io.netty:netty-bom:4.1.72.Final', 'com.fasterxml.jackson:jackson-bom:2.13.2.20220328'];

const dependency = (coordinates: string, more = ''): string => {
  const [group, artifact, version] = coordinates.split(':');
  return `<dependency><groupId>${group!}</groupId><artifactId>${artifact!}</artifactId><version>${version!}</version>${more}</dependency>`;
};

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>flume</artifactId><version>1</version>
  <dependencyManagement><dependencies>
    ${boms.map(bom => dependency(bom, '<type>pom</type><scope>import</scope>')).join('\n    ')}
  </dependencies></dependencyManagement>
  <dependencies>
    ${artifacts.map(artifact => dependency(artifact)).join('\n    ')}
  </dependencies>
</project>
`;

const log4j = `<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers>
    <Logger name="org.apache.flume" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
`;

const runs = (command: string, flag: string) => spawnSync(command, [flag], { stdio: 'ignore' }).status === 0;

/** Why real Flume cannot run here, or undefined. */
export const flumeMissing = (): string | undefined => {
  if (!runs('java', '-version')) return 'real Flume needs Java 8 or later: apt-get install default-jre-headless';
  if (!existsSync(join(home, 'lib')) && !runs('mvn', '-v'))
    return 'fetching real Flume needs Maven: apt-get install maven';
  return undefined;
};

let fetched: Promise<string> | undefined;

/** The class path of Flume; fetches what is not there. Safe when several processes ask at once. */
export const flumeClasspath = (): Promise<string> =>
  (fetched ??= (async () => {
    const lib = join(home, 'lib');
    if (!existsSync(lib)) {
      await mkdir(home, { recursive: true });
      const fresh = await mkdtemp(join(home, 'fetch-'));
      await writeFile(join(fresh, 'pom.xml'), pom);
      const args = ['-q', '-B', 'dependency:copy-dependencies', '-DoutputDirectory=lib', '-DincludeScope=runtime'];
      await promisify(execFile)('mvn', args, { cwd: fresh, timeout: 600_000 });
      await writeFile(join(fresh, 'lib', 'log4j2.xml'), log4j);
      // Appears whole or not at all; whoever comes second keeps the first one's.
      await rename(join(fresh, 'lib'), lib).catch((cause: unknown) => {
        if (!existsSync(lib)) throw cause;
      });
      await rm(fresh, { recursive: true });
    }
    const jars = (await readdir(lib)).filter(name => name.endsWith('.jar')).sort();
    return [lib, ...jars.map(jar => join(lib, jar))].join(delimiter);
  })());

export interface FlumeOptions {
  /** The text of the properties file. */
  readonly conf: string;
  /** Default `a1`. */
  readonly agent?: string;
  /** Where `/metrics` is served; default: a free port. */
  readonly metricsPort?: number;
  /** Default `-Xmx512m`; the launcher's own 20 MB are too few for most flows. */
  readonly jvm?: readonly string[];
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
export const flume = async ({ conf, agent = 'a1', metricsPort, jvm = ['-Xmx512m'] }: FlumeOptions): Promise<Flume> => {
  const classpath = await flumeClasspath();
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

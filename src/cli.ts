#!/usr/bin/env node
/**
 * The command line: `agent`, `validate`, `channel`, `list`, `help`, `version`.
 *
 * Exit status: 0 all is well, 1 the configuration has errors, or what it names is not there (`--connect`), or events of a channel are missing or damaged, 2 the arguments
 * are wrong, 3 the agent or channel could not drain, or the channel's directory is in use or its disk refused something.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { startAgent, type Agent } from './agent/agent.ts';
import { splitArguments } from './agent/arguments.ts';
import { drainChannel, drainedAsText } from './agent/channel-drain.ts';
import {
  inspectChannel,
  inspectionAsJson,
  inspectionAsText,
  repairChannel,
  verdictAsText,
  verifyChannel,
  type ChannelArguments,
} from './agent/channel-report.ts';
import { componentHelp, componentList } from './agent/help.ts';
import { agentLog } from './agent/log.ts';
import { check, type Checked } from './agent/plan.ts';
import { probe } from './agent/probe.ts';
import { isRemote } from './agent/properties.ts';
import { builtIn } from './agent/registry.ts';
import { printProblems, problemsAsJson } from './agent/report.ts';
import { systemClock } from './core/clock.ts';
import { systemDisk as disk } from './core/disk.ts';
import { MillraceError, systemCode, toError } from './core/errors.ts';
import { serveMetrics, type Monitor } from './monitor/server.ts';

const status = { ok: 0, badConfiguration: 1, notSound: 1, badArguments: 2, notDrained: 3, tryAgain: 3 } as const;

const { system, ignored, rest } = splitArguments(process.argv.slice(2));

const number = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('expected a whole number.');
  return Number(text);
};

const every = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];

interface AgentArguments {
  readonly name: string;
  readonly confFile?: readonly string[];
  readonly confUri?: readonly string[];
  readonly conf?: string;
  readonly httpPort?: number;
  readonly stopTimeout: number;
  readonly dryrun?: true;
  readonly connect?: true;
}

/** Files, or with `-u` what is at `http:` and `https:` addresses; `-u` overrides `-f`, as in Flume. */
const filesOf = ({ confFile = [], confUri = [] }: Pick<AgentArguments, 'confFile' | 'confUri'>): readonly string[] => {
  const other = confUri.find(uri => /^(?!file:)[a-z][a-z+.-]+:/i.test(uri) && !isRemote(uri));
  if (other !== undefined) throw new Error(`${other}: expected file:, http: or https:, or a path.`);
  // It would be in every message, and in the list of processes.
  if (confUri.some(uri => isRemote(uri) && URL.canParse(uri) && new URL(uri).password !== ''))
    throw new Error('a password in an address is not taken; protect the configuration in another way.');
  const files = confUri.length > 0 ? confUri.map(uri => uri.replace(/^file:(\/\/)?/, '')) : confFile;
  if (files.length === 0) throw new Error('no configuration was given: add --conf-file <file>.');
  return files;
};

type Given = Pick<AgentArguments, 'confFile' | 'confUri' | 'connect'> & { readonly name?: string };

const checked = async (given: Given): Promise<Checked> => {
  const lookups = { env: process.env, system };
  const found = await check({ files: filesOf(given), agent: given.name, registry: builtIn, lookups });
  return given.connect === true ? { ...found, problems: [...found.problems, ...(await probe(found.plans))] } : found;
};

const hasErrors = ({ problems }: Checked): boolean => problems.some(({ severity }) => severity === 'error');

const agent = async (given: AgentArguments): Promise<void> => {
  // Events are in buffers outside of a heap that is small, and V8 collects all of a small heap for every few megabytes of them:
  // 25 times in a second at 3 M lines/s through a file channel, 3 times with this, which makes it 30 % faster.
  setFlagsFromString('--heap-growing-percent=300');
  const configuration = await checked(given);
  if (configuration.problems.length > 0)
    process.stderr.write(`${printProblems(configuration.problems, { colour: process.stderr.isTTY })}\n`);
  if (configuration.plan === undefined || hasErrors(configuration)) {
    process.exitCode = status.badConfiguration;
    return;
  }
  if (given.dryrun === true) return;
  const log = agentLog();
  if (ignored.length > 0) log.info(`${ignored.join(' ')}: for a JVM, which this is not; ignored.`);
  const running = startAgent(configuration.plan, { log });
  const monitor = await monitored(running, given, log);
  let stopping = false;
  const stop = async (signal: NodeJS.Signals) => {
    if (stopping) {
      log.warn(`${signal} again: ending at once.`);
      running.abort();
      process.exit(status.notDrained);
    }
    stopping = true;
    log.info(`${signal}: draining for at most ${given.stopTimeout} s; once more to end at once.`);
    try {
      await running.stop({ timeout: given.stopTimeout * 1000 });
      log.info(`agent ${given.name} has stopped.`);
    } catch (thrown) {
      log.error(toError(thrown).message);
      process.exitCode = status.notDrained;
    }
    await monitor?.close();
    process.exit();
  };
  process.on('SIGTERM', signal => void stop(signal)).on('SIGINT', signal => void stop(signal));
  log.info(`agent ${given.name} runs: ${describePlan(configuration.plan)}. Stop it with Ctrl-C or SIGTERM.`);
  // Sources that have ended, and no monitor: an agent stays until it is told to go.
  setInterval(() => undefined, 2 ** 30);
};

const describePlan = ({ sources, channels, sinks }: NonNullable<Checked['plan']>): string =>
  [sources, channels, sinks]
    .filter(components => components.length > 0)
    .map(components => components.map(({ name, component }) => `${name} (${component.type})`).join(', '))
    .join(' → ');

const monitored = async (
  running: Agent,
  { httpPort }: AgentArguments,
  log: ReturnType<typeof agentLog>,
): Promise<Monitor | undefined> => {
  const type = system['flume.monitoring.type'];
  if (type !== undefined && type !== 'http') log.warn(`-Dflume.monitoring.type=${type} is not built in; only http is.`);
  const port = httpPort ?? (type === 'http' ? Number(system['flume.monitoring.port'] ?? 41414) : undefined);
  if (port === undefined) return undefined;
  try {
    const monitor = await serveMetrics(running, { port });
    log.info(`metrics are at http://localhost:${monitor.address.port}/metrics`);
    return monitor;
  } catch (thrown) {
    log.error(`no metrics: ${toError(thrown).message}`);
    return undefined;
  }
};

const validate = async (given: Given & { readonly format: string }): Promise<void> => {
  const configuration = await checked(given);
  const { problems } = configuration;
  if (given.format === 'json') process.stdout.write(`${problemsAsJson(problems)}\n`);
  else process.stdout.write(`${printProblems(problems, { colour: process.stdout.isTTY })}\n`);
  if (hasErrors(configuration)) process.exitCode = status.badConfiguration;
};

/** Runs one of the commands for a channel's directory; what it throws is printed, and makes the status. */
const onChannel =
  <G extends ChannelArguments>(act: (given: G) => Promise<void>) =>
  async (dirs: readonly string[], { key, ...rest }: { readonly key?: readonly string[] }): Promise<void> => {
    // `| head` ends reading; that is no error.
    process.stdout.on('error', error => {
      if (systemCode(error) !== 'EPIPE') throw error;
    });
    try {
      await act({ ...rest, dirs, keys: key ?? [] } as ChannelArguments as G);
    } catch (thrown) {
      process.stderr.write(`error: ${toError(thrown).message}\n`);
      const { code, retriable } = thrown as Partial<MillraceError>;
      process.exitCode =
        code === 'MR_DATA_LOST' ? status.notSound : retriable === true ? status.tryAgain : status.badArguments;
    }
  };

const print = (text: string): void => void process.stdout.write(`${text}\n`);

const inspect = async ({ format, ...given }: ChannelArguments & { format: string }): Promise<void> => {
  const inspection = await inspectChannel(given, disk);
  print(format === 'json' ? inspectionAsJson(inspection) : inspectionAsText(inspection, new Date()));
};

const verify = async ({ format, ...given }: ChannelArguments & { format: string }): Promise<void> => {
  const verdict = await verifyChannel(given, disk);
  print(
    format === 'json' ? problemsAsJson(verdict.problems) : verdictAsText(verdict, { colour: process.stdout.isTTY }),
  );
  if (verdict.problems.some(({ severity }) => severity === 'error')) process.exitCode = status.notSound;
};

const repair = async ({
  dryRun = false,
  force = false,
  ...given
}: ChannelArguments & { dryRun?: boolean; force?: boolean }): Promise<void> => {
  const { text, lost } = await repairChannel({ ...given, dryRun, force }, disk);
  print(text);
  if (lost > 0) process.exitCode = status.notSound;
};

const drain = async ({
  keep = false,
  force = false,
  ...given
}: ChannelArguments & { to?: string; format: 'text' | 'json'; keep?: boolean; force?: boolean }): Promise<void> => {
  const stopping = new AbortController();
  const stop = () => stopping.abort();
  process.on('SIGINT', stop).on('SIGTERM', stop);
  const say = (text: string) => void process.stderr.write(`${text}\n`);
  const { stdout } = process;
  const context = { disk, clock: systemClock, stdout, stopped: stopping.signal, say };
  const drained = await drainChannel({ ...given, keep, force }, context);
  say(drainedAsText(drained, { keep }));
  if (drained.lost > 0) process.exitCode = status.notSound;
  else if (stopping.signal.aborted && drained.left > 0) process.exitCode = status.notDrained;
};

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const program = new Command('millrace')
  .description('Reliable event flows. Runs existing Flume configurations.')
  .version(version, '-v, --version')
  .helpCommand(false)
  .exitOverride();

program
  .command('agent')
  .alias('node')
  .description('run an agent')
  .requiredOption('-n, --name <name>', 'the agent to run, out of the configuration')
  .option('-f, --conf-file <file>', 'configuration; may be repeated, later ones override', every)
  .option('-u, --conf-uri <uri>', 'the same at a file:, http: or https: address', every)
  .option('-c, --conf <dir>', 'accepted for compatibility: there is no JVM to set up')
  .option('-C, --classpath <path>', 'accepted for compatibility')
  .option('--plugins-path <dirs>', 'accepted for compatibility')
  .option('--no-reload-conf', 'accepted: a configuration is read once')
  .option('-d, --dryrun', 'check the configuration and exit')
  .option('--connect', 'try what it names first, as validate does, and do not start if something is missing')
  .option('--http-port <port>', 'serve /metrics, /metrics/prometheus, /healthz and /readyz', number)
  .option('--stop-timeout <seconds>', 'how long a stop may drain', number, 30)
  .addHelpText(
    'after',
    '\n-Dname=value sets a system property, for ${sys:name} and -Dflume.monitoring.type=http -Dflume.monitoring.port=<port>.',
  )
  .action(agent);

program
  .command('validate')
  .description('check a configuration: every problem at once, with its place')
  .option('-n, --name <name>', 'only this agent')
  .option('-f, --conf-file <file>', 'configuration; may be repeated', every)
  .option('-u, --conf-uri <uri>', 'the same at a file:, http: or https: address', every)
  .option('--connect', 'if it has no errors, try what it names: brokers, logins, topics, rights; changes nothing there')
  .option('--format <format>', 'text or json', 'text')
  .addHelpText(
    'after',
    '\nExit status 1 if there are errors. Without --connect nothing is contacted. With it, each component that can try what it\n' +
      'needs does so for at most 30 s, and notes say what is there: for now those for Kafka.',
  )
  .action(validate);

const channel = program
  .command('channel')
  .helpCommand(false)
  .description("look into a file channel's directory, check it, repair it, empty it");

const channelCommand = (name: string, description: string): Command =>
  channel
    .command(name)
    .argument('<dir...>', 'its dir, or all of its dataDirs')
    .description(description)
    .option('--checkpoint-dir <dir>', 'its checkpointDir, if that is not the first directory')
    .option('--key <name=where>', 'key of an encrypted channel: file:<path> or env:<variable>; may be repeated', every);

const formats = (...names: readonly string[]) =>
  new Option('--format <format>', names.join(' or ')).choices(names).default(names[0]);
const force = ['--force', 'go on although files of it are missing'] as const;

channelCommand('inspect', 'what is in it; read-only, also while it is in use')
  .addOption(formats('text', 'json'))
  .action(onChannel(inspect));

channelCommand('verify', 'read all of it, and say what is damaged; read-only, also while it is in use')
  .addOption(formats('text', 'json'))
  .action(onChannel(verify));

channelCommand('repair', 'keep damaged files aside, and what is sound in them in new ones')
  .option('--dry-run', 'only say what would be done')
  .option(...force)
  .action(onChannel(repair));

channelCommand('drain', 'write what it holds to standard output, and let go of it')
  .option('--to <file>', 'write to this file, which must be new, and sync it')
  .addOption(formats('text', 'json'))
  .option('--keep', 'only read; also while it is in use')
  .option(...force)
  .action(onChannel(drain));

program
  .command('list')
  .description('list the components that are built in')
  .action(async () => void process.stdout.write(await componentList(builtIn)));

program
  .command('help')
  .argument('[component]', 'alias or class name')
  .description('explain a component and its options')
  .action(async (component: string | undefined) => {
    if (component === undefined) return program.outputHelp();
    process.stdout.write(await componentHelp(component, builtIn));
  });

program
  .command('version')
  .description('print the version')
  .action(() => void process.stdout.write(`millrace ${version}\n`));

try {
  await program.parseAsync(rest, { from: 'user' });
} catch (thrown) {
  if (thrown instanceof CommanderError) process.exitCode = thrown.exitCode === 0 ? status.ok : status.badArguments;
  else {
    process.stderr.write(`error: ${toError(thrown).message}\n`);
    process.exitCode = status.badArguments;
  }
}

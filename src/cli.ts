#!/usr/bin/env node
/**
 * The command line: `agent`, `validate`, `list`, `help`, `version`.
 *
 * Exit status: 0 all is well, 1 the configuration has errors, 2 the arguments are wrong, 3 the agent could not drain.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { startAgent, type Agent } from './agent/agent.ts';
import { splitArguments } from './agent/arguments.ts';
import { componentHelp, componentList } from './agent/help.ts';
import { agentLog } from './agent/log.ts';
import { check, type Checked } from './agent/plan.ts';
import { builtIn } from './agent/registry.ts';
import { printProblems, problemsAsJson } from './agent/report.ts';
import { toError } from './core/errors.ts';
import { serveMetrics, type Monitor } from './monitor/server.ts';

const status = { ok: 0, badConfiguration: 1, badArguments: 2, notDrained: 3 } as const;

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
}

/** Local files: `-u` with `file:` or a plain path overrides `-f`, as in Flume. */
const filesOf = ({ confFile = [], confUri = [] }: Pick<AgentArguments, 'confFile' | 'confUri'>): readonly string[] => {
  const remote = confUri.find(uri => /^(?!file:)[a-z][a-z+.-]+:/i.test(uri));
  if (remote !== undefined) throw new Error(`${remote}: only files are read yet; fetch it and use --conf-file.`);
  const files = confUri.length > 0 ? confUri.map(uri => uri.replace(/^file:(\/\/)?/, '')) : confFile;
  if (files.length === 0) throw new Error('no configuration was given: add --conf-file <file>.');
  return files;
};

const checked = (files: readonly string[], agent: string | undefined): Promise<Checked> =>
  check({ files, agent, registry: builtIn, lookups: { env: process.env, system } });

const report = ({ problems }: Checked, output: NodeJS.WriteStream): void => {
  if (problems.length > 0) output.write(`${printProblems(problems, { colour: output.isTTY })}\n`);
};

const agent = async (given: AgentArguments): Promise<void> => {
  const configuration = await checked(filesOf(given), given.name);
  report(configuration, process.stderr);
  if (configuration.plan === undefined) {
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

const validate = async (given: {
  confFile?: readonly string[];
  confUri?: readonly string[];
  name?: string;
  format: string;
}): Promise<void> => {
  const configuration = await checked(filesOf(given), given.name);
  if (given.format === 'json') process.stdout.write(`${problemsAsJson(configuration.problems)}\n`);
  else process.stdout.write(`${printProblems(configuration.problems, { colour: process.stdout.isTTY })}\n`);
  if (configuration.problems.some(({ severity }) => severity === 'error')) process.exitCode = status.badConfiguration;
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
  .option('-u, --conf-uri <uri>', 'the same as file: URI or path', every)
  .option('-c, --conf <dir>', 'accepted for compatibility: there is no JVM to set up')
  .option('-C, --classpath <path>', 'accepted for compatibility')
  .option('--plugins-path <dirs>', 'accepted for compatibility')
  .option('--no-reload-conf', 'accepted: a configuration is read once')
  .option('-d, --dryrun', 'check the configuration and exit')
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
  .option('-u, --conf-uri <uri>', 'the same as file: URI or path', every)
  .option('--format <format>', 'text or json', 'text')
  .action(validate);

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

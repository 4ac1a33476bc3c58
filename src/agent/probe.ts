/**
 * Trying what the components of a plan need elsewhere, before they run.
 *
 * @module
 */
import type { ComponentInfo, Finding } from '../core/component.ts';
import { MillraceError, toError } from '../core/errors.ts';
import { quietLog } from '../core/scope.ts';
import { fieldsOf, type Planned } from './component-options.ts';
import type { Plan } from './plan.ts';
import { inFileOrder, Problems, type Problem } from './report.ts';

/** How long a component may take, in ms. */
export const probeTimeout = 30_000;

interface Probed extends Planned<ComponentInfo> {
  readonly section: string;
  readonly fed: boolean;
  readonly drained: boolean;
}

const componentsOf = ({ sources, channels, sinks }: Plan): readonly Probed[] => [
  ...sources.map(source => ({ ...source, section: 'sources', fed: false, drained: true })),
  ...channels.map(channel => ({
    ...channel,
    section: 'channels',
    fed: sources.some(({ channels: into }) => into.includes(channel.name)),
    drained: sinks.some(sink => sink.channel === channel.name),
  })),
  ...sinks.map(sink => ({ ...sink, section: 'sinks', fed: true, drained: false })),
];

/** Lets every component that can try what it needs, all at once. What they found, in file order. */
export const probe = async (plans: readonly Plan[], { timeout = probeTimeout } = {}): Promise<readonly Problem[]> => {
  const problems = new Problems();
  await Promise.all(
    plans.flatMap(plan =>
      componentsOf(plan).map(async component => {
        const where = `${plan.agent}.${component.section}.${component.name}`;
        for (const finding of await findingsOf(component, timeout)) {
          const { severity, message, option = '', code = 'MR_CONFIG', advice } = finding;
          const { places } = component;
          const key = fieldsOf(component.component).find(({ name }) => name === option)?.key;
          problems.add(
            severity,
            places[option] ?? places['type'],
            `${where}${key === undefined ? '' : `.${key}`}: ${message}`,
            {
              code,
              ...(advice !== undefined && { advice }),
            },
          );
        }
      }),
    ),
  );
  return inFileOrder(problems.all);
};

const findingsOf = async (
  { component, options, fed, drained }: Probed,
  timeout: number,
): Promise<readonly Finding[]> => {
  if (component.probe === undefined) return [];
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      late.abort();
      reject(new MillraceError('MR_IO', `there was no answer within ${timeout / 1000} s`));
    }, timeout);
  });
  try {
    const context = { log: quietLog, signal: late.signal, fed, drained };
    return await Promise.race([component.probe(options, context), tooLong]);
  } catch (thrown) {
    const { message } = toError(thrown);
    return [{ severity: 'error', ...(thrown instanceof MillraceError && { code: thrown.code }), message }];
  } finally {
    clearTimeout(timer);
  }
};

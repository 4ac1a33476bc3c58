import type { Agent, Metrics } from './agents.ts';
import type { Cluster, Positions } from './brokers.ts';

/** What agents and brokers said at a time. */
export interface Look {
  readonly at: number;
  readonly metrics: readonly (Metrics | undefined)[];
  readonly positions: Positions | undefined;
}

export const look = async (agents: readonly Agent[], asked: Promise<Positions | undefined>): Promise<Look> => {
  const metrics = Promise.all(agents.map(agent => agent.metrics()));
  return { positions: await asked, metrics: await metrics, at: performance.now() };
};

export const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

/** A metric of all components of a kind. */
const count = (metrics: Metrics | undefined, kind: string, key: string): number =>
  sum(Object.entries(metrics ?? {}).map(([name, of]) => (name.startsWith(`${kind}.`) ? Number(of[key]) : 0)));

const ledger = (metrics: Metrics): string => {
  const terms = (...keys: string[]) =>
    keys
      .map(key => [key, count(metrics, 'FLOW', key)] as const)
      .filter(([key, n]) => n !== 0 || key === 'accepted' || key === 'held');
  const side = (keys: readonly (readonly [string, number])[]) => keys.map(([key, n]) => `${n} ${key}`).join(' + ');
  return `${side(terms('accepted', 'copied'))} = ${side(terms('delivered', 'held', 'rejected', 'filtered', 'dropped', 'kept'))}`;
};

const widths = [14, 8, 8, 8];
const row = (...cells: (string | number)[]) => cells.map((cell, i) => String(cell).padEnd(widths[i] ?? 0)).join('');

/** Rates are those since the look before. */
export const table = (agents: readonly Agent[], cluster: Cluster, before: Look, now: Look): string => {
  const seconds = (now.at - before.at) / 1000;
  const ofAgent = ({ name, pid }: Agent, i: number) => {
    const metrics = now.metrics[i];
    if (metrics === undefined) return row(name, pid() ?? '-');
    // Counters of an agent that has started again begin anew.
    const rate = (kind: string, key: string) =>
      Math.round(Math.max(0, count(metrics, kind, key) - count(before.metrics[i], kind, key)) / seconds);
    const [taken, passedOn] = [rate('SOURCE', 'EventAcceptedCount'), rate('SINK', 'EventDrainSuccessCount')];
    return row(name, pid() ?? '-', taken, passedOn, ledger(metrics));
  };
  const lag = now.positions?.map(({ committed, end }) => end - committed).join('  ');
  return [
    row('', 'pid', 'in/s', 'out/s', 'ledger'),
    ...agents.map(ofAgent),
    ...cluster.pids().map((pid, i) => row(`broker-${i + 1}`, pid ?? '-')),
    `lag in records, of each partition: ${lag ?? 'the brokers do not say'}`,
  ].join('\n');
};

/** Nothing is on its way. */
export const settled = ({ metrics, positions }: Look): boolean =>
  positions?.every(({ committed, end }) => committed === end) === true &&
  metrics.every(of => of !== undefined && count(of, 'CHANNEL', 'ChannelSize') === 0);

/**
 * What a workload is: contestants that do the same work, each in fresh processes, and the columns that describe a run.
 *
 * @module
 */

/** One measured run of one contestant: a number per column. */
export type Sample = Readonly<Record<string, number>>;

/** What a contestant is given for one run. */
export interface Run {
  /** Empty, made for this run, removed after it. */
  readonly dir: string;
  /** What `prepare` made, shared by all runs; read only. */
  readonly shared: string;
  readonly quick: boolean;
  /** One of the workload's cases; empty if it has none. */
  readonly case: string;
}

export interface Contestant {
  readonly name: string;
  /** Why it cannot run here, and what to do about it. */
  readonly missing?: () => string | undefined;
  /** Starts the processes, measures, stops them. Throws if the work was not done in full. */
  run(run: Run): Promise<Sample>;
}

export interface Column {
  readonly key: string;
  readonly title: string;
  readonly show: (value: number) => string;
}

export interface Workload {
  readonly name: string;
  readonly title: string;
  /** What is measured, from when to when. Printed under the table. */
  readonly definition: string;
  /** The first column is what contestants are compared by; larger is better. */
  readonly columns: readonly Column[];
  /** The same contestants under several conditions. */
  readonly cases?: readonly string[];
  /** Names of contestants that the others are divided by, in the same case of the same run. */
  readonly baselines: readonly string[];
  /** Default: 5, or 3 with `--quick`. */
  readonly rounds?: number;
  /** Makes input that all contestants share, before the first run. */
  readonly prepare?: (shared: string) => Promise<void>;
  readonly contestants: readonly Contestant[];
}

/** `1.86 M`, `649 k`, `12.3`. */
export const count = (value: number): string => {
  if (!Number.isFinite(value)) return '–';
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (value >= 1e3) return `${(value / 1e3).toPrecision(3)} k`;
  return value.toPrecision(3);
};

const fixed = (digits: number) => (value: number) => (Number.isFinite(value) ? value.toFixed(digits) : '–');

export const rate = (title: string): Column => ({ key: 'rate', title, show: count });
export const column = (key: string, title: string, digits = 0): Column => ({ key, title, show: fixed(digits) });
/** What every process is asked for; see proc.ts. */
export const peakRss = column('rss', 'peak RSS, MB');
export const cpuSeconds = column('cpu', 'CPU, s', 2);

/**
 * What a law is, and how it is tried: random programs from a seed, the smallest failing one as the message, and a check
 * that what the law is about did happen.
 *
 * @module
 */
import type fc from 'fast-check';

/** The laws; docs/guarantees.md explains them. */
export const laws = {
  S1: 'a delivery is settled once: the first settle wins, a later one returns false, is counted and changes nothing',
  S2: 'an ack means that responsibility has moved',
  S3: 'bounded: never more unsettled than maxInFlight, in deliveries, events and bytes',
  S4: 'no loss: what was neither acked nor rejected comes again',
  S5: 'no invention: every event was accepted before, byte for byte and header for header',
  S6: 'events leave in the order in which they were accepted, and a nack changes it as declared',
  S7: 'fencing: settling a delivery of an older session returns false and changes nothing',
  L1: 'no lost wake-up: settling lets the next one out, never from within next(), and a redelivery waits',
  L2: 'nothing waits for a later delivery without a timer',
  L3: 'complete means that nothing is outstanding, and it comes',
  C1: 'a channel never holds more than its capacity in events and bytes',
  C2: 'a put is atomic: all of its events become visible, or none',
  C4: 'without nacks, crashes or competing consumers: exactly once, first in first out',
  X1: 'every event that leaves without reaching a sink is counted: the books balance',
} as const;
export type LawId = keyof typeof laws;

export interface LawRun {
  /** Decides everything that is random; default 1, so that a law does the same each time. */
  readonly seed?: number;
  /** With `seed`: exactly the program that a failure's message names. */
  readonly path?: string;
  /** Random programs to try. */
  readonly runs?: number;
}

/** One law for one component. */
export interface Law {
  readonly id: LawId;
  /** The id and what it says, to be the name of a test. */
  readonly name: string;
  /** Resolves if the law held; rejects with what broke it, the smallest program that breaks it, and how to replay that. */
  run(options?: LawRun): Promise<void>;
}

/** What all kits may be told about a component. */
export interface LawSpec {
  /** For messages. */
  readonly name: string;
  /**
   * Random programs per law; default 100 on the fake clock, 12 on the real one. There it is chance who is quicker, so up to
   * ten times as many are tried until everything has been seen that a law is about.
   */
  readonly runs?: number;
  /** `real` for components with sockets or files, which a fake clock cannot hurry. Default `fake`. */
  readonly clock?: 'fake' | 'real';
  /** How long a component may take before it counts as stuck, in ms; default 60 000 of fake time, 10 000 of real time. */
  readonly patience?: number;
  /**
   * `strict` (default): after a nack nothing overtakes. `selective`: first attempts leave in order, redeliveries may come
   * late. `none`: no order.
   */
  readonly order?: 'strict' | 'selective' | 'none';
  /** Order is kept among events of the same key; default: among all. */
  readonly key?: (event: { readonly headers: Readonly<Record<string, string>>; readonly body: Buffer }) => string;
  /** `lines`: printable bodies without newlines. Default `bytes`: anything. */
  readonly bodies?: 'bytes' | 'lines';
  /** False if headers do not come through: events have none then, and only bodies are compared. Default true. */
  readonly headers?: boolean;
}

/** Something that must have happened at least once, or a law was not tried at all. */
export type Sight =
  | 'a nack'
  | 'a reject'
  | 'a partial failure'
  | 'a redelivery'
  | 'a second settle'
  | 'a stale settle'
  | 'a synchronous settle'
  | 'a full window'
  | 'a full channel'
  | 'a put larger than the transaction capacity'
  | 'a put that waited for room'
  | 'two consumers'
  | 'a reopening with something outstanding'
  | 'an end with something outstanding'
  | 'a completion'
  | 'an undisturbed run'
  | 'an event that left without reaching a sink'
  | 'a quiet moment with the window used up'
  | 'a destination that was down'
  | 'two events';

/** What one program found out. */
export class Report {
  /** The first thing that broke each law. */
  readonly broken = new Map<LawId, string>();
  readonly seen = new Set<Sight>();
  /** Second settlements that the program made on purpose. */
  secondSettles = 0;

  violate(law: LawId, what: string): void {
    if (!this.broken.has(law)) this.broken.set(law, what);
  }

  saw(sight: Sight): void {
    this.seen.add(sight);
  }
}

/** On the real clock: how often as many programs are tried until a law has seen what it is about. */
const mostRounds = 10;

export type FastCheck = typeof fc;

/** How a kind of component is tried. */
export interface Trial<Program> {
  /** `channelLaws`, and so on. */
  readonly kit: string;
  readonly spec: LawSpec;
  /** The laws that apply, and what a run has to have seen. */
  readonly laws: Partial<Record<LawId, readonly Sight[]>>;
  program(fc: FastCheck, law: LawId): fc.Arbitrary<Program>;
  play(program: Program, report: Report): Promise<void>;
  print(program: Program): string;
}

const loadFastCheck = async (): Promise<FastCheck> => {
  try {
    return (await import('fast-check')).default;
  } catch (cause) {
    throw new Error('the laws of millrace/testing need fast-check: npm install --save-dev fast-check', { cause });
  }
};

/** The laws of a trial, each to be run by itself. */
export const lawsOf = <Program>(trial: Trial<Program>): Law[] =>
  (Object.entries(trial.laws) as [LawId, readonly Sight[]][]).map(([id, sights]) => ({
    id,
    name: `${id} ${laws[id]}`,
    run: options => tryLaw(trial, id, sights, options),
  }));

const tryLaw = async <Program>(
  trial: Trial<Program>,
  id: LawId,
  sights: readonly Sight[],
  { seed: first = 1, path, runs = trial.spec.runs ?? (trial.spec.clock === 'real' ? 12 : 100) }: LawRun = {},
): Promise<void> => {
  const fc = await loadFastCheck();
  // A replay shows one program, which need not have seen everything.
  const rounds = path === undefined && trial.spec.clock === 'real' ? mostRounds : 1;
  const seen = new Set<Sight>();
  const property = fc.asyncProperty(trial.program(fc, id), async program => {
    const report = new Report();
    await trial.play(program, report);
    for (const sight of report.seen) seen.add(sight);
    const broken = report.broken.get(id);
    if (broken !== undefined) throw new Error(broken);
  });
  const title = `${trial.kit} of ${trial.spec.name}: ${id} ${laws[id]}`;
  let missing = sights;
  for (let seed = first; seed < first + rounds && (seed === first || missing.length > 0); seed++) {
    const checked = await fc.check(property, { seed, numRuns: runs, ...(path !== undefined && { path }) });
    if (checked.failed) {
      const program = checked.counterexample === null ? 'none' : trial.print(checked.counterexample[0]);
      const cause = checked.errorInstance;
      throw new Error(
        `${title}\n  broken: ${cause instanceof Error ? cause.message : String(cause)}\n  program: ${program}\n` +
          `  replay: ${trial.kit}(${trial.spec.name}) ${id} run({ seed: ${seed}, path: ${JSON.stringify(checked.counterexamplePath)} })`,
        { cause },
      );
    }
    missing = path === undefined ? sights.filter(sight => !seen.has(sight)) : [];
  }
  if (missing.length > 0)
    throw new Error(
      `${title}\n  says nothing: in ${rounds * runs} runs from seed ${first} there was not once ${missing.join(', not ')}.`,
    );
};

/**
 * The laws for whole pipelines: your stages, between a source and a sink that do everything that can happen to them.
 *
 * @module
 */
import { defer, Observable, retry, tap, type OperatorFunction } from 'rxjs';
import type { Clock } from '../core/clock.ts';
import type { Delivery, Outcome } from '../core/delivery.ts';
import { event, headers, type FlumeEvent } from '../core/event.ts';
import { run, type Flow } from '../core/flow.ts';
import { inScope, Scope } from '../core/scope.ts';
import { FakeClock } from './fake-clock.ts';
import { lawsOf, type FastCheck, type Law, type Report } from './laws/law.ts';
import { recordingLog } from './recording-log.ts';
import { recordingSink, type RecordingSink, type SinkStep } from './recording-sink.ts';
import { scriptedSource, type ScriptedSource, type SourceStep } from './scripted-source.ts';
import { seededRandom } from './seeded-random.ts';

const flowFaults = ['wait', 'nack', 'reject', 'throw', 'reopen', 'stop', 'abort'] as const;

/**
 * What may go wrong. `wait`: the sink, and your code where it calls {@link Trouble.mayWait}, take their time. `nack`, `reject`:
 * the sink says so, of all events or some. `throw`: your code fails where it calls {@link Trouble.mayThrow}. `reopen`: the source
 * breaks and is subscribed again. `stop`, `abort`: the flow ends while it works, and the next one goes on with the same source.
 */
export type FlowFault = (typeof flowFaults)[number];

/** What a pipeline under test is lent, so that its own code can fail as well. */
export interface Trouble {
  /** The time of the test; no real time passes. */
  readonly clock: Clock;
  /** A number from 0 up to 1, from the seed. */
  readonly random: () => number;
  /** Throws now and then. */
  readonly mayThrow: () => void;
  /** Takes a random time, often none. */
  readonly mayWait: () => Promise<void>;
}

export interface FlowLawsOptions<A = FlumeEvent, B = A> {
  /** For messages. */
  readonly name?: string;
  /** Default: all. */
  readonly faults?: readonly FlowFault[];
  /** Makes the event of a number. No two may be alike. Default: a body with the number, and a header `key` of `a`, `b` or `c`. */
  readonly event?: (number: number) => A;
  /** What has to come out for an event: none if it is filtered, several if it is expanded. Default: the event itself. */
  readonly expect?: (event: A) => readonly B[];
  /** `strict` (default): events come out, for the first time, in the order in which they went in. */
  readonly order?: 'strict' | 'none';
  /** Order is kept among events of the same key; default: among all. */
  readonly key?: (event: B) => string;
  /** Random programs per law; default 100. */
  readonly runs?: number;
}

/** What happens in one run. Everything in it is finite: after that, nothing fails any more, and all laws must hold. */
interface Program {
  readonly seed: number;
  readonly faults: readonly FlowFault[];
  readonly steps: readonly ({ readonly emit: number } | { readonly wait: number } | 'break')[];
  /** The source never completes: nothing but time pushes out what the flow holds. */
  readonly idle: boolean;
  readonly pushing: boolean;
  readonly maxInFlight: number;
  readonly sink: readonly { readonly outcome: Outcome; readonly after: number; readonly failed: readonly number[] }[];
  readonly throws: readonly boolean[];
  readonly waits: readonly number[];
  /** Flows that are ended early, and when. */
  readonly cuts: readonly { readonly how: 'stop' | 'abort'; readonly after: number }[];
}

const programs = (fc: FastCheck, faults: readonly FlowFault[]) => {
  const ms = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 200 }));
  return fc.record<Program>({
    seed: fc.nat(),
    faults: fc.oneof(fc.constant([]), fc.subarray([...faults])),
    steps: fc.array(
      fc.oneof(
        { weight: 6, arbitrary: fc.record({ emit: fc.integer({ min: 1, max: 5 }) }) },
        { weight: 1, arbitrary: fc.record({ wait: ms }) },
        { weight: 1, arbitrary: fc.constant('break' as const) },
      ),
      { maxLength: 16 },
    ),
    idle: fc.boolean(),
    pushing: fc.boolean(),
    maxInFlight: fc.integer({ min: 1, max: 5 }),
    sink: fc.array(
      fc.record({
        outcome: fc.constantFrom<Outcome>('ack', 'nack', 'reject'),
        after: ms,
        failed: fc.array(fc.nat({ max: 9 }), { maxLength: 3 }),
      }),
      { maxLength: 12 },
    ),
    throws: fc.array(fc.boolean(), { maxLength: 12 }),
    waits: fc.array(ms, { maxLength: 12 }),
    cuts: fc.array(fc.record({ how: fc.constantFrom('stop' as const, 'abort' as const), after: ms }), { maxLength: 2 }),
  });
};

/** How long the clock may run until everything is done. */
const patience = 3_600_000;

const keys = ['a', 'b', 'c'].map(key => headers({ key }));
const numbered = (number: number): FlumeEvent => event(String(number), keys[(number * 7) % 3]);

const printed = (value: unknown): string => {
  const { body, headers: head } = value as Partial<FlumeEvent>;
  if (!Buffer.isBuffer(body)) return JSON.stringify(value);
  return `${body.toString('latin1')} ${JSON.stringify(Object.entries(head ?? {}).sort())}`;
};

/**
 * Tries a pipeline. `makeFlow` returns the stages under test as one operator, new ones for each flow; `pipe(a, b, c)` of rxjs makes
 * one of several. What it keeps outside of memory must be lent per call, or each run meets the last one's content.
 *
 * S1: no stage settles twice · S4: nothing is lost, but by an abort that counts it · S5: nothing is invented · S6: order of first
 * occurrences · C4: exactly once, and twice only after a fault · L1: it never hangs · L2: nor when its source just falls silent ·
 * L3: it completes, with nothing outstanding and no timer left · X1: the books balance whenever nobody is at work.
 *
 * Needs fast-check.
 *
 * @example
 *     for (const law of flowLaws(({ mayThrow }) => pipe(intercept(tap(mayThrow)), memoryChannel()))) test(law.name, () => law.run());
 */
export function flowLaws(
  makeFlow: (trouble: Trouble) => OperatorFunction<Delivery, Delivery>,
  options?: FlowLawsOptions,
): Law[];
export function flowLaws<A = FlumeEvent, B = A>(
  makeFlow: (trouble: Trouble) => OperatorFunction<Delivery<A>, Delivery<B>>,
  options: FlowLawsOptions<A, B>,
): Law[];
export function flowLaws<A, B>(
  makeFlow: (trouble: Trouble) => OperatorFunction<Delivery<A>, Delivery<B>>,
  options: FlowLawsOptions<A, B> = {},
): Law[] {
  const { name = 'flow', faults = flowFaults, order = 'strict', runs } = options;
  const wants = (fault: FlowFault, sight: 'a nack' | 'a reject' | 'an end with something outstanding') =>
    faults.includes(fault) ? [sight] : [];
  return lawsOf<Program>({
    kit: 'flowLaws',
    spec: { name, ...(runs !== undefined && { runs }) },
    laws: {
      S1: ['two events'],
      S4: [...wants('nack', 'a nack'), ...wants('reject', 'a reject')],
      S5: ['two events'],
      ...(order !== 'none' && { S6: ['two events'] as const }),
      C4: ['an undisturbed run'],
      L1: ['a completion'],
      L2: ['two events'],
      L3: ['a completion', ...wants('stop', 'an end with something outstanding')],
      X1: ['two events'],
    },
    program: fc => programs(fc, faults),
    play: (program, report) => new FlowTrial<A, B>(program, report, makeFlow, options).play(),
    print: program => JSON.stringify(program),
  });
}

/** One run of one program. */
class FlowTrial<A, B> {
  readonly #program: Program;
  readonly #report: Report;
  readonly #makeFlow: (trouble: Trouble) => OperatorFunction<Delivery<A>, Delivery<B>>;
  readonly #expect: (event: A) => readonly B[];
  /** Which events have an order among them; undefined if none have. */
  readonly #key: ((event: B) => string) | undefined;
  readonly #clock = new FakeClock();
  /** Timers of the program, which nobody cancels when a flow is aborted. */
  #timers = 0;
  readonly #ownClock: Clock = {
    now: () => this.#clock.now(),
    soon: callback => this.#clock.soon(callback),
    cancel: timer => this.#clock.cancel(timer),
    after: (ms, callback) => {
      this.#timers++;
      return this.#clock.after(ms, () => {
        this.#timers--;
        callback();
      });
    },
  };
  readonly #random: () => number;
  readonly #source: ScriptedSource<A>;
  readonly #emissions: number;
  readonly #sinks: RecordingSink<B>[] = [];
  readonly #flows: Flow[] = [];
  /** When something went wrong on purpose. */
  readonly #faults: number[] = [];
  /** When what has to come out went in for the first time. */
  readonly #since = new Map<string, number>();
  #settled = 0;
  #thrown = 0;
  #waited = 0;

  constructor(
    program: Program,
    report: Report,
    makeFlow: (trouble: Trouble) => OperatorFunction<Delivery<A>, Delivery<B>>,
    { event: make, expect = one => [one as unknown as B], order, key = () => '' }: FlowLawsOptions<A, B>,
  ) {
    this.#program = program;
    this.#report = report;
    this.#makeFlow = makeFlow;
    this.#expect = expect;
    this.#key = order === 'none' ? undefined : key;
    this.#random = seededRandom(program.seed);
    let number = 0;
    const makeEvent = make ?? (numbered as unknown as (number: number) => A);
    const script = program.steps.flatMap((step): SourceStep<A>[] => {
      if (step === 'break') return this.#may('reopen') ? [{ fail: new Error('the program breaks the source') }] : [];
      return ['wait' in step ? step : { emit: Array.from({ length: step.emit }, () => makeEvent(number++)) }];
    });
    this.#emissions = program.steps.filter(step => typeof step === 'object' && 'emit' in step).length;
    this.#source = scriptedSource(program.idle ? [...script, 'idle'] : script, {
      pushing: program.pushing,
      maxInFlight: { deliveries: program.maxInFlight },
      redelivery: { initial: 10, max: 100 },
      drainTimeout: 1000,
    });
  }

  async play(): Promise<void> {
    const cuts = this.#program.cuts.filter(({ how }) => this.#may(how));
    for (const cut of [...cuts, undefined]) if (!(await this.#run(cut))) return;
    this.#judge();
  }

  /** One flow over the source, to its end; false if that does not come. */
  async #run(cut: Program['cuts'][number] | undefined): Promise<boolean> {
    const clock = this.#clock;
    const report = this.#report;
    const sink = recordingSink<B>((delivery, index) => this.#sinkStep(delivery, index), {
      clock: this.#ownClock,
    });
    const scope = new Scope({ clock, random: this.#random, log: recordingLog() });
    const flow = inScope(scope, () => run(this.#lively(), this.#makeFlow(this.#trouble), sink));
    this.#sinks.push(sink);
    this.#flows.push(flow);
    const state = { over: false };
    const end = () => (state.over = true);
    flow.done.then(end, end);
    const watch = (condition: () => boolean) => () => {
      this.#watch(flow, sink);
      return condition();
    };
    const idle = () => clock.pending === 0;

    const start = clock.now();
    const quiet = () => this.#source.position() === this.#emissions && flow.ledger.held === 0;
    const waitsFor = cut === undefined && this.#program.idle ? quiet : () => state.over;
    await clock.until(
      watch(() => waitsFor() || idle()),
      cut?.after ?? patience,
    );
    if (cut === undefined && !waitsFor()) {
      const what = `after ${clock.now() - start} ms ${flow.ledger.held} events are held and nothing is under way`;
      report.violate(this.#program.idle ? 'L2' : 'L1', this.#program.idle ? `the source is silent, and ${what}` : what);
    }
    if (!state.over) this.#cut(flow, cut?.how ?? 'stop');
    await clock.until(
      watch(() => state.over || idle()),
      patience,
    );
    if (!state.over) {
      report.violate('L3', `${cut?.how ?? 'a stop'} did not end the flow: ${flow.ledger.held} events are held`);
      return false;
    }
    await clock.flush();
    this.#watch(flow, sink);
    const left = clock.pending - this.#timers;
    if (left > 0) report.violate('L3', `${left} timers are left after the end`);
    if (flow.ledger.settledTwice > 0) report.violate('S1', `${flow.ledger.settledTwice} deliveries were settled twice`);
    if (sink.ended === 'complete') report.saw('a completion');
    return true;
  }

  #cut(flow: Flow, how: 'stop' | 'abort'): void {
    if (flow.ledger.held > 0) this.#report.saw('an end with something outstanding');
    this.#faults.push(this.#clock.now());
    // How it ends is seen at the sink.
    if (how === 'stop') void flow.stop({ timeout: Infinity }).catch(() => undefined);
    else flow.abort();
  }

  #may(fault: FlowFault): boolean {
    return this.#program.faults.includes(fault);
  }

  /** The source, watched, and opened again when it breaks. */
  #lively(): Observable<Delivery<A>> {
    const pause = defer(() => {
      this.#faults.push(this.#clock.now());
      return new Observable<void>(subscriber => {
        const timer = this.#clock.after(10, () => subscriber.next());
        return () => this.#clock.cancel(timer);
      });
    });
    return this.#source.pipe(
      retry({ delay: () => pause }),
      tap(({ events }) => {
        for (const one of events.flatMap(this.#expect)) {
          const key = printed(one);
          if (!this.#since.has(key)) this.#since.set(key, this.#clock.now());
        }
      }),
    );
  }

  readonly #trouble: Trouble = {
    clock: this.#clock,
    random: () => this.#random(),
    mayThrow: () => {
      if (this.#program.throws[this.#thrown++] !== true || !this.#may('throw')) return;
      this.#faults.push(this.#clock.now());
      throw new Error('the program lets it fail');
    },
    mayWait: async () => {
      const ms = this.#program.waits[this.#waited++] ?? 0;
      if (ms > 0 && this.#may('wait')) await new Promise<void>(resolve => void this.#ownClock.after(ms, resolve));
    },
  };

  #sinkStep(delivery: Delivery<B>, index: number): SinkStep {
    if (index > 0 || delivery.length > 1) this.#report.saw('two events');
    const step = this.#program.sink[this.#settled++];
    if (step === undefined) return 'ack';
    const after = this.#may('wait') ? step.after : 0;
    if (step.outcome === 'ack' || !this.#may(step.outcome)) return { outcome: 'ack', after };
    this.#report.saw(step.outcome === 'nack' ? 'a nack' : 'a reject');
    this.#faults.push(this.#clock.now() + after);
    return { outcome: step.outcome, after, ...(step.failed.length > 0 && { failed: step.failed }) };
  }

  /** What must hold whenever nobody is at work. */
  #watch({ ledger }: Flow, sink: RecordingSink<B>): void {
    if (ledger.difference !== 0)
      this.#report.violate('X1', `the books are ${ledger.difference} off: ${JSON.stringify(ledger.snapshot())}`);
    if (sink.ended === undefined || sink.ended === 'aborted') return;
    if (sink.ended !== 'complete')
      this.#report.violate('L3', `the flow broke, though no source did for good: ${String(sink.ended.error)}`);
    else if (sink.unsettled().length > 0)
      this.#report.violate('L3', `complete came with ${sink.unsettled().length} deliveries unsettled`);
  }

  /** What must hold at the end, over all flows. */
  #judge(): void {
    const report = this.#report;
    const received = this.#sinks.flatMap(sink => sink.received);
    if (this.#faults.length === 0) report.saw('an undisturbed run');

    const due = new Map<string, { readonly place: number; readonly count: number }>();
    for (const one of this.#source.accepted.flatMap(this.#expect)) {
      const { place, count } = due.get(printed(one)) ?? { place: due.size, count: 0 };
      due.set(printed(one), { place, count: count + 1 });
    }

    const seen = new Map<string, number>();
    const latest = new Map<string, { readonly place: number; readonly what: string }>();
    for (const { events, at } of received) {
      for (const one of events) {
        const what = printed(one);
        const wanted = due.get(what);
        if (wanted === undefined) {
          report.violate('S5', `${what} came out, and nothing that went in makes it`);
          continue;
        }
        const times = (seen.get(what) ?? 0) + 1;
        seen.set(what, times);
        if (times > wanted.count && !this.#explained(what, at))
          report.violate('C4', `${what} came ${times} times, and no fault explains it`);
        if (times > 1 || this.#key === undefined) continue;
        const lane = this.#key(one);
        const before = latest.get(lane);
        if (before !== undefined && before.place > wanted.place)
          report.violate('S6', `${what} came for the first time after ${before.what}, which was accepted later`);
        else latest.set(lane, { place: wanted.place, what });
      }
    }
    this.#judgeLoss(received.map(({ events, outcome }) => ({ events, rejected: outcome === 'reject' })));
  }

  /** Everything that went in was acked, but what the sink rejected, and what a flow that was aborted counted as dropped. */
  #judgeLoss(received: readonly { readonly events: readonly B[]; readonly rejected: boolean }[]): void {
    const left = new Map<string, number>();
    for (const sink of this.#sinks)
      for (const one of sink.acked) left.set(printed(one), (left.get(printed(one)) ?? 0) + 1);
    const rejected = new Set(received.filter(one => one.rejected).flatMap(({ events }) => events.map(printed)));
    const lost = this.#source.accepted.filter(one =>
      this.#expect(one).some(wanted => {
        const what = printed(wanted);
        const count = left.get(what) ?? 0;
        left.set(what, count - 1);
        return count < 1 && !rejected.has(what);
      }),
    );
    const dropped = this.#flows.reduce(
      (sum, { ledger }, at) => sum + (this.#sinks[at]?.ended === 'aborted' ? ledger.dropped : 0),
      0,
    );
    if (lost.length <= dropped) return;
    const counted = dropped > 0 ? `, and ${dropped} of them were counted as dropped` : '';
    this.#report.violate(
      'S4',
      `${lost.length} of ${this.#source.accepted.length} events were lost${counted}: ${lost.slice(0, 5).map(printed).join(', ')}`,
    );
  }

  /** Something went wrong while the event was on its way. */
  #explained(what: string, at: number): boolean {
    return this.#faults.some(fault => fault >= (this.#since.get(what) ?? 0) && fault <= at);
  }
}

import type { Observable, Subscription } from 'rxjs';
import type { Delivery } from '../../core/delivery.ts';
import type { FlumeEvent } from '../../core/event.ts';
import type { MaxInFlight, Redelivery } from '../../core/outlet.ts';
import { inScope, type Scope } from '../../core/scope.ts';
import { Book, named } from './book.ts';
import { Consumer } from './consumer.ts';
import { quickly } from './feeder.ts';
import { lawsOf, type Law, type LawId, type LawSpec, type Report, type Sight } from './law.ts';
import { print, programOf, type Command, type Program, type Weights } from './program.ts';
import { Rig } from './rig.ts';
import { World } from './world.ts';

/** What a source under test is told. */
export interface SourceTuning {
  readonly maxInFlight: MaxInFlight;
  readonly redelivery: Redelivery;
}

/** A source under test, and the ends of its origin that a test holds. */
export interface SourceUnderTest {
  readonly source: Observable<Delivery>;
  /** Puts events where the source finds them: sends them, appends them. */
  feed?(events: readonly FlumeEvent[]): void | Promise<void>;
  /** What it emits by itself, if it is not fed. */
  readonly events?: readonly FlumeEvent[];
  /** No more input: the source completes. Left out for a source that goes on until it is stopped. */
  end?(): void | Promise<void>;
  /** What its origin takes for done: the events that were answered so, or how many are before a position that is written. */
  confirmed?(): readonly FlumeEvent[] | number;
  /** Breaks the present session: it errors, and the next one goes on. */
  fail?(cause: Error): void;
  /** Called at the end of each run. */
  close?(): void | Promise<void>;
}

export interface SourceSpec extends LawSpec {
  readonly make: (tuning: SourceTuning) => SourceUnderTest | Promise<SourceUnderTest>;
  /** If it cannot be told one. */
  readonly maxInFlight?: MaxInFlight;
  /** False if the next session cannot read again what this one left unsettled. Default true. */
  readonly replayable?: boolean;
  /** It tells its origin of a nack, and does not deliver again by itself. Default false. */
  readonly reports?: boolean;
}

interface SourceProgram extends Program {
  /** A reject is kept and tried again, or dropped. */
  readonly keepsRejected: boolean;
  /** At the end it is told to stop, rather than that its input has ended. */
  readonly stops: boolean;
}

interface Session {
  readonly scope: Scope;
  readonly consumer: Consumer;
  readonly subscription: Subscription;
  /** How it ended, if not by itself. */
  ended: 'unsubscribed' | 'aborted' | 'failed' | undefined;
  /** It was told to fail. */
  fails: boolean;
}

class SourceRig extends Rig {
  readonly #spec: SourceSpec;
  readonly #program: SourceProgram;
  readonly #under: SourceUnderTest;
  readonly #maxInFlight: MaxInFlight;
  /** The last one is the present one. */
  readonly #sessions: Session[] = [];
  /** It was told to stop: what has not come out by now comes in another session. */
  #stopped = false;

  constructor(
    spec: SourceSpec,
    program: SourceProgram,
    report: Report,
    world: World,
    under: SourceUnderTest,
    maxInFlight: MaxInFlight,
  ) {
    super(world, new Book(report, spec), report);
    this.#spec = spec;
    this.#program = program;
    this.#under = under;
    this.#maxInFlight = maxInFlight;
    this.book.add(under.events ?? []);
    this.join();
  }

  static async make(spec: SourceSpec, program: SourceProgram, report: Report): Promise<SourceRig> {
    const world = new World(spec, program.seed);
    const maxInFlight = spec.maxInFlight ?? program.window;
    const redelivery: Redelivery = {
      ...quickly,
      order: spec.order === 'strict' || spec.order === undefined ? 'strict' : 'selective',
      onReject: program.keepsRejected ? 'keep' : 'drop',
    };
    const under = await world.finish(
      inScope(world.scope(), () => spec.make({ maxInFlight, redelivery })),
      'make()',
    );
    return new SourceRig(spec, program, report, world, under, maxInFlight);
  }

  override async play(program: SourceProgram): Promise<void> {
    try {
      await this.world.flush();
      await super.play(program);
      if (!this.#stopped || this.#spec.replayable === false) return;
      this.#stopped = false;
      this.join();
      await this.finish(false);
    } finally {
      this.#abort();
      await this.world.until(() => this.#sessions.every(({ scope }) => scope.sourcesOpen === 0));
      await this.#under.close?.();
    }
  }

  protected async put({ drafts }: Extract<Command, { do: 'put' }>): Promise<void> {
    if (this.#under.feed === undefined) return;
    const { events } = this.book.make(drafts);
    this.book.add(events);
    await this.world.finish(this.#under.feed(events), 'feed()');
    await this.world.react(() => this.live().length > 0 || this.finished);
  }

  protected override get finished(): boolean {
    // What a stop has left unread comes in another session.
    const present = this.consumers.at(-1);
    return this.book.due.every(({ last }) => this.#stopped && last?.consumer !== present);
  }

  protected override get ended(): boolean {
    return this.consumers.at(-1)?.ended !== undefined;
  }

  protected async end(): Promise<void> {
    const { stops } = this.#program;
    if (!stops && this.#under.end !== undefined) await this.world.finish(this.#under.end(), 'end()');
    else if (stops || this.#under.events === undefined) {
      this.#stopped = true;
      this.#sessions.at(-1)?.scope.finishSources();
    }
  }

  protected override wastesCredit(): boolean {
    const [present] = this.consumers.slice(-1);
    const others = this.consumers.some(consumer => consumer !== present && consumer.live().length > 0);
    return !others && present?.hasRoom === true && this.book.due.some(({ seen }) => seen === 0);
  }

  /** Unsubscribes, which drains in the background, and subscribes again. */
  protected override leave(): void {
    const present = this.#sessions.at(-1);
    if (present === undefined) return;
    present.ended = 'unsubscribed';
    present.subscription.unsubscribe();
    this.join();
  }

  protected override lingers(): boolean {
    return this.#sessions.some(({ ended, consumer }) => ended !== undefined && consumer.live().length > 0);
  }

  protected override switchDestination(up: boolean): void {
    const present = this.#sessions.at(-1);
    if (up || present === undefined || this.#under.fail === undefined) return;
    present.fails = true;
    this.#under.fail(new Error('the program breaks it'));
  }

  /** Gives up what is unsettled. */
  protected override async reopen(): Promise<void> {
    this.#abort();
    if (this.#spec.replayable === false) {
      await this.world.until(() => this.#sessions.every(({ scope }) => scope.sourcesOpen === 0));
      for (const item of this.book.due) item.state = 'refused';
    }
    this.join();
  }

  protected override join(): void {
    const { reports = false, order = 'strict' } = this.#spec;
    const scope = this.world.scope();
    const consumer = new Consumer(this.book, this.world, this.report, {
      order,
      reports,
      fromEmitter: true,
      maxInFlight: this.#maxInFlight,
      keepsRejected: this.#program.keepsRejected && !reports,
      onTaken: () => {
        if (this.lingers()) this.report.violate('S7', 'a new session emitted while one before it can still be settled');
      },
      onComplete: () => {
        if (!this.finished) this.report.violate('L3', `complete came with ${this.book.due.length} events unsettled`);
      },
      onError: cause => {
        session.ended = 'failed';
        if (session.fails) this.world.clock.soon(() => this.join());
        else this.report.violate('L3', `it ended with an error: ${String(cause)}`);
      },
    });
    this.consumers.push(consumer);
    const subscription = inScope(scope, () => this.#under.source.subscribe(consumer));
    const session: Session = { scope, consumer, subscription, ended: undefined, fails: false };
    this.#sessions.push(session);
  }

  protected override inspect(): void | Promise<void> {
    const confirmed = this.#under.confirmed?.() ?? 0;
    const items =
      typeof confirmed === 'number'
        ? this.book.items.slice(0, confirmed)
        : confirmed.flatMap(one => this.book.itemsOf(one));
    const early = items.find(({ state }) => state === 'due' || (state === 'refused' && typeof confirmed !== 'number'));
    if (early !== undefined) {
      const law = early.last?.settled === true ? 'S7' : 'S2';
      this.report.violate(
        law,
        `its origin takes ${items.length} events for done, and ${named(early)} is among them but is not`,
      );
    }
    if (this.#sessions.some(({ ended, consumer }) => ended === 'aborted' && consumer.live().length > 0))
      this.report.violate('S7', 'a delivery of a session that was aborted can still be settled');
    return super.inspect();
  }

  protected override async finish(endsEarly: boolean): Promise<void> {
    await super.finish(endsEarly);
    const { items } = this.book;
    if (this.#under.confirmed === undefined || items.some(({ state }) => state !== 'done')) return;
    if (!(await this.world.until(() => this.#confirmed >= items.length)))
      this.report.violate(
        'L3',
        `it has ended, and its origin takes ${this.#confirmed} of ${items.length} events for done`,
      );
  }

  get #confirmed(): number {
    const confirmed = this.#under.confirmed?.() ?? 0;
    return typeof confirmed === 'number' ? confirmed : confirmed.length;
  }

  protected override checkLoss(): void {
    if (!this.finished) super.checkLoss();
  }

  #abort(): void {
    for (const session of this.#sessions) {
      // A source that no flow knows of is only unsubscribed, and drains.
      if (session.scope.sourcesOpen > 0) session.ended = 'aborted';
      session.scope.abortSources();
      session.subscription.unsubscribe();
    }
  }
}

const usual: Weights = {
  put: 8,
  settle: 12,
  again: 1,
  stale: 1,
  mode: 1,
  wait: 4,
  quiet: 1,
  leave: 1,
  reopen: 1,
  down: 1,
};
const weights: Partial<Record<LawId, Weights>> = {
  S1: { ...usual, again: 6 },
  S7: { ...usual, stale: 8, reopen: 3 },
};

const sights: Partial<Record<LawId, readonly Sight[]>> = {
  S1: ['a second settle', 'a nack'],
  S2: ['a nack', 'a reject'],
  S3: ['a full window', 'a nack'],
  S4: ['a nack', 'a reopening with something outstanding'],
  S5: ['two events'],
  S6: ['two events', 'a nack'],
  S7: ['a stale settle', 'a reopening with something outstanding'],
  L1: ['a synchronous settle', 'a full window'],
  L3: ['a completion', 'an end with something outstanding'],
  X1: ['a nack', 'a reject'],
};

/**
 * The laws of sources. A source that redelivers by itself is also seen doing that.
 *
 * @example
 *     const spec = {
 *       name: 'lines',
 *       make: tuning => {
 *         const queue = new Queue();
 *         return { source: queueSource(queue, tuning), feed: events => queue.push(...events), end: () => queue.end() };
 *       },
 *     };
 *     for (const law of sourceLaws(spec)) test(law.name, () => law.run());
 */
export const sourceLaws = (spec: SourceSpec): Law[] => {
  const redelivers = spec.reports !== true;
  const real = spec.clock === 'real';
  // What a session loses that drains in the background cannot be told from here.
  const drains = !real && spec.replayable !== false;
  return lawsOf<SourceProgram>({
    kit: 'sourceLaws',
    spec,
    laws: Object.fromEntries(
      Object.entries(sights).map(([id, seen]) => [
        id,
        redelivers && seen.includes('a nack') ? [...seen, 'a redelivery'] : seen,
      ]),
    ),
    program: (fc, law) => {
      const some = weights[law] ?? usual;
      return fc
        .tuple(
          programOf(fc, drains ? some : { ...some, leave: 0, down: 0 }, undefined, real ? 20 : 40),
          fc.record({ keepsRejected: fc.boolean(), stops: fc.boolean() }),
        )
        .map(([program, more]) => ({ ...program, ...more }));
    },
    play: async (program, report) => (await SourceRig.make(spec, program, report)).play(program),
    print: program =>
      `${print(program)}; ${program.stops ? 'is stopped at the end' : 'ends by itself'}; ${program.keepsRejected ? 'keeps' : 'drops'} what is rejected`,
  });
};

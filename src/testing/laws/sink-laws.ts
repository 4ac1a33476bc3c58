import type { FlumeEvent } from '../../core/event.ts';
import type { FlowSink } from '../../core/flow.ts';
import { inScope } from '../../core/scope.ts';
import type { SinkOptions } from '../../core/sink.ts';
import { Book, named } from './book.ts';
import { Feeder, quickly } from './feeder.ts';
import { lawsOf, type Law, type LawId, type LawSpec, type Report, type Sight } from './law.ts';
import { print, programOf, type Command, type Program, type Weights } from './program.ts';
import { Rig } from './rig.ts';
import { World } from './world.ts';

/** What a sink under test is told: to retry soon. */
export type SinkTuning = Required<Pick<SinkOptions, 'retry'>>;

/** A sink under test, and its destination as a test sees it. */
export interface SinkUnderTest {
  readonly sink: FlowSink<FlumeEvent>;
  /**
   * Everything that the destination has, in its order, repetitions included; with `headers: false` bodies are enough.
   * Synchronously, if that is possible: then an ack is checked at the very moment.
   */
  written(): readonly Partial<FlumeEvent>[] | Promise<readonly Partial<FlumeEvent>[]>;
  /** Makes the destination fail, and work again. */
  switch?(up: boolean): void;
  /** Called at the end of each run. */
  close?(): void | Promise<void>;
}

export interface SinkSpec extends LawSpec {
  readonly make: (tuning: SinkTuning) => SinkUnderTest | Promise<SinkUnderTest>;
  /** What the destination will never take, and the sink therefore has to reject. Default: nothing. */
  readonly refuses?: (event: FlumeEvent) => boolean;
}

interface SinkProgram extends Program {
  /** At the end the sink is aborted. */
  readonly aborts: boolean;
}

class SinkRig extends Rig {
  readonly #spec: SinkSpec;
  readonly #program: SinkProgram;
  readonly #under: SinkUnderTest;
  readonly #feeder: Feeder;
  readonly #left: () => void;
  #up = true;
  #cut = false;
  #done = false;
  /** How much of what is written has been looked at. */
  #looked = 0;
  protected override readonly stuck: readonly LawId[] = ['L1', 'L2'];

  constructor(spec: SinkSpec, program: SinkProgram, report: Report, world: World, under: SinkUnderTest) {
    super(world, new Book(report, spec), report);
    this.#spec = spec;
    this.#program = program;
    this.#under = under;
    this.#feeder = new Feeder(this.book, world, {
      maxInFlight: program.window,
      drains: true,
      onAcked: () => {
        const written = under.written();
        if (!(written instanceof Promise)) this.#look(written);
      },
    });
    // Nothing to break, so nothing to be seen of that.
    if (under.switch === undefined) report.saw('a destination that was down');
    under.sink.done.then(
      () => this.#isDone(),
      () => this.#isDone(),
    );
    const scope = world.scope();
    under.sink.attach?.(scope);
    const subscription = inScope(scope, () => this.#feeder.deliveries.subscribe(under.sink));
    this.#left = () => subscription.unsubscribe();
  }

  static async make(spec: SinkSpec, program: SinkProgram, report: Report): Promise<SinkRig> {
    const world = new World(spec, program.seed);
    const under = await world.finish(
      inScope(world.scope(), () => spec.make({ retry: { initial: quickly.initial ?? 10, max: quickly.max ?? 100 } })),
      'make()',
    );
    return new SinkRig(spec, program, report, world, under);
  }

  override async play(program: SinkProgram): Promise<void> {
    try {
      await super.play(program);
    } finally {
      this.#left();
      await this.#under.close?.();
    }
  }

  protected put({ drafts, asBlock }: Extract<Command, { do: 'put' }>): void {
    if (this.#cut) return;
    const { items } = this.#feeder.put(this.book.make(drafts, asBlock));
    for (const item of items) {
      if (this.#spec.refuses?.(item.event) !== true) continue;
      item.state = 'refused';
      this.report.saw('a reject');
    }
  }

  protected override switchDestination(up: boolean): void {
    if (this.#under.switch === undefined) return;
    if (!up && !this.finished) this.report.saw('a destination that was down');
    this.#up = up;
    this.#under.switch(up);
  }

  protected override get ready(): boolean {
    return this.#up;
  }

  protected override get finished(): boolean {
    return this.#feeder.inFlight === 0 && (this.#cut || this.#feeder.served);
  }

  protected override get ended(): boolean {
    return this.#done;
  }

  /** The stream ends by itself, or in the middle of things, as `take` ends it. */
  protected end(): void {
    if (this.finished) return this.#feeder.end();
    this.#cut = true;
    if (this.#program.aborts) this.#under.sink.abort?.();
    else this.#under.sink.complete();
    this.#left();
  }

  protected override async inspect(): Promise<void> {
    if (this.#feeder.inFlight > 1) this.report.saw('a full window');
    this.#look(await this.#under.written());
    return super.inspect();
  }

  protected override checkLoss(): void {
    // What was cut off was not promised to anybody.
    if (!this.#cut) super.checkLoss();
  }

  #isDone(): void {
    this.#done = true;
    this.report.saw('a completion');
    if (!this.finished) this.report.violate('L3', `done came with ${this.#feeder.inFlight} deliveries unsettled`);
  }

  #look(written: readonly Partial<FlumeEvent>[]): void {
    for (const one of written.slice(this.#looked)) {
      const item = this.book.recognise(one);
      if (item === undefined) continue;
      if (item.rank > 0) this.report.saw('two events');
      if (item.state === 'refused')
        this.report.violate('S5', `event ${named(item)} was written, which the destination refuses`);
      const early = this.#spec.order === 'none' ? undefined : this.book.before(item, ({ seen }) => seen === 0);
      if (early !== undefined && item.seen === 0)
        this.report.violate(
          'S6',
          `event ${named(item)} was written before ${named(early)}, which was accepted before it`,
        );
      item.seen++;
      item.state = 'done';
    }
    this.#looked = written.length;
    for (const { outcome, items } of this.book.offers) {
      const early = outcome === 'acked' ? items.find(({ state }) => state === 'due') : undefined;
      if (early !== undefined)
        this.report.violate('S2', `a delivery was acked, and ${named(early)}, which was in it, is not written`);
    }
  }
}

const usual: Weights = { put: 12, wait: 10, quiet: 1, down: 3, up: 3 };

const sights: Partial<Record<LawId, readonly Sight[]>> = {
  S1: ['a destination that was down'],
  S2: ['a destination that was down', 'two events'],
  S4: ['a destination that was down', 'two events'],
  S5: ['two events'],
  S6: ['two events', 'a destination that was down'],
  L1: ['a full window', 'a destination that was down'],
  L2: ['two events'],
  L3: ['a completion', 'an end with something outstanding'],
  X1: ['two events', 'an end with something outstanding'],
};

/**
 * The laws of sinks.
 *
 * @example
 *     const spec = {
 *       name: 'table',
 *       make: tuning => {
 *         const rows = [];
 *         return { sink: createSink(events => void rows.push(...events), tuning), written: () => rows };
 *       },
 *     };
 *     for (const law of sinkLaws(spec)) test(law.name, () => law.run());
 */
export const sinkLaws = (spec: SinkSpec): Law[] =>
  lawsOf<SinkProgram>({
    kit: 'sinkLaws',
    spec,
    laws:
      spec.refuses === undefined
        ? sights
        : { ...sights, S4: ['a reject'], X1: ['a reject', 'an end with something outstanding'] },
    program: fc =>
      fc
        .tuple(programOf(fc, usual, undefined, spec.clock === 'real' ? 15 : 40), fc.record({ aborts: fc.boolean() }))
        .map(([program, more]) => ({ ...program, ...more })),
    play: async (program, report) => (await SinkRig.make(spec, program, report)).play(program),
    print: program => `${print(program)}${program.aborts ? '; aborts rather than completes' : ''}`,
  });

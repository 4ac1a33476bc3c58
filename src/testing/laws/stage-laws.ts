import type { OperatorFunction, Subscription } from 'rxjs';
import type { Delivery } from '../../core/delivery.ts';
import type { FlumeEvent } from '../../core/event.ts';
import { inScope } from '../../core/scope.ts';
import { Book, named } from './book.ts';
import { Consumer } from './consumer.ts';
import { Feeder } from './feeder.ts';
import { lawsOf, type Law, type LawId, type LawSpec, type Report, type Sight } from './law.ts';
import { print, programOf, type Command, type Program, type Weights } from './program.ts';
import { Rig } from './rig.ts';
import { World } from './world.ts';

export interface StageSpec extends LawSpec {
  /** A new stage. It may fail, wait, drop and multiply, as long as `expect` says what comes out in the end. */
  readonly make: () => OperatorFunction<Delivery, Delivery>;
  /** What must come out for an event; each one different from all others. Default: the event itself. */
  readonly expect?: (event: FlumeEvent) => readonly FlumeEvent[];
}

class StageRig extends Rig {
  readonly #spec: StageSpec;
  readonly #feeder: Feeder;
  #subscription: Subscription | undefined;
  protected override readonly stuck: readonly LawId[] = ['L1', 'L2'];

  constructor(spec: StageSpec, program: Program, report: Report) {
    const world = new World(spec, program.seed);
    const book = new Book(report, spec, spec.expect);
    super(world, book, report);
    this.#spec = spec;
    this.#feeder = new Feeder(book, world, {
      maxInFlight: program.window,
      onAcked: ({ items }) => {
        const early = items.find(({ state }) => state === 'due');
        if (early !== undefined)
          report.violate(
            'S2',
            `a delivery was acked upstream while ${named(early)}, which was in it, is unsettled downstream`,
          );
      },
    });
    this.#open();
  }

  protected put({ drafts, asBlock }: Extract<Command, { do: 'put' }>): void {
    this.#feeder.put(this.book.make(drafts, asBlock));
  }

  protected end(): void {
    this.#feeder.end();
  }

  /** Only the last session has to complete. */
  protected override get ended(): boolean {
    return this.consumers.at(-1)?.ended !== undefined;
  }

  protected override reopen(): void {
    this.#subscription?.unsubscribe();
    this.#open();
  }

  protected override inspect(): void | Promise<void> {
    if (!this.#feeder.served && this.live().length > 0) this.report.saw('a full window');
    return super.inspect();
  }

  #open(): void {
    const { book, world, report } = this;
    const consumer = new Consumer(book, world, report, {
      order: this.#spec.order ?? 'strict',
      onComplete: () => {
        if (!this.finished) report.violate('L3', `complete came with ${book.due.length} events still to come out`);
      },
    });
    this.consumers.push(consumer);
    this.#subscription = inScope(world.scope(), () => this.#spec.make()(this.#feeder.deliveries).subscribe(consumer));
  }
}

const usual: Weights = { put: 10, settle: 12, again: 1, stale: 1, mode: 1, wait: 4, quiet: 1, reopen: 1 };
const weights: Partial<Record<LawId, Weights>> = {
  S1: { ...usual, again: 6 },
  S7: { ...usual, stale: 8, reopen: 3 },
  L2: { ...usual, quiet: 6, settle: 6 },
};

const sights: Partial<Record<LawId, readonly Sight[]>> = {
  S1: ['a second settle', 'a nack'],
  S2: ['a nack', 'a reject', 'a partial failure'],
  S4: ['a nack', 'a redelivery', 'a reopening with something outstanding'],
  S5: ['two events', 'a redelivery'],
  S6: ['two events', 'a nack', 'a redelivery'],
  S7: ['a stale settle', 'a reopening with something outstanding'],
  L1: ['a synchronous settle', 'a full window', 'a redelivery'],
  L2: ['a quiet moment with the window used up'],
  L3: ['a completion', 'an end with something outstanding'],
  X1: ['an event that left without reaching a sink', 'a redelivery'],
};

/**
 * The laws of anything between a source and a sink: interceptors, operators.
 *
 * @example
 *     for (const law of stageLaws({ name: 'upper', make: () => intercept(map(upper)), expect: e => [upper(e)] }))
 *       test(law.name, () => law.run());
 */
export const stageLaws = (spec: StageSpec): Law[] =>
  lawsOf<Program>({
    kit: 'stageLaws',
    spec,
    laws: sights,
    program: (fc, law) => programOf(fc, weights[law] ?? usual),
    play: (program, report) => new StageRig(spec, program, report).play(program),
    print,
  });

/**
 * A component under test between what feeds it and what it feeds: plays the commands of a program, and looks around after
 * each of them.
 *
 * @module
 */
import type { Book } from './book.ts';
import type { Consumer, Taken } from './consumer.ts';
import type { LawId, Report } from './law.ts';
import type { Command, Program } from './program.ts';
import type { World } from './world.ts';

/** More rounds than any program has events, even if each of them is delivered a few times. */
const mostRounds = 5000;

export abstract class Rig {
  readonly consumers: Consumer[] = [];
  protected readonly world: World;
  protected readonly book: Book;
  protected readonly report: Report;

  constructor(world: World, book: Book, report: Report) {
    this.world = world;
    this.book = book;
    this.report = report;
  }

  // --- what each kind of component does in its own way

  protected abstract put(command: Extract<Command, { do: 'put' }>): void | Promise<void>;
  /** The input is over. */
  protected abstract end(): void | Promise<void>;
  protected reopen?(): void | Promise<void>;
  protected leave?(at: number): void | Promise<void>;
  protected join?(): void | Promise<void>;
  protected switchDestination?(up: boolean): void;
  /** Nothing is left to come out or to be settled. */
  protected get finished(): boolean {
    return this.book.due.length === 0 && this.book.open.length === 0;
  }
  /** True once the component has said that it has ended. */
  protected get ended(): boolean {
    return this.consumers.every(({ ended }) => ended !== undefined);
  }
  /** Which laws it breaks to leave something lying while nobody owes it anything. */
  protected readonly stuck: readonly LawId[] = ['L1'];

  // --- the same for all

  async play({ commands, endsEarly }: Pick<Program, 'commands' | 'endsEarly'>): Promise<void> {
    for (const command of commands) {
      await this.#act(command);
      await this.world.flush();
      await this.inspect();
    }
    await this.finish(endsEarly);
  }

  protected live(): Taken[] {
    return this.consumers.flatMap(consumer => consumer.live());
  }

  /** What holds at any quiet moment. */
  protected inspect(): void | Promise<void> {
    const { ledger } = this.world;
    if (ledger.difference !== 0)
      this.report.violate('X1', `the books are off by ${ledger.difference}: ${JSON.stringify(ledger.snapshot())}`);
    if (ledger.settledTwice !== this.report.secondSettles)
      this.report.violate('S1', `${ledger.settledTwice} second settles were counted, of ${this.report.secondSettles}`);
    if (ledger.filtered + ledger.rejected + ledger.dropped > 0)
      this.report.saw('an event that left without reaching a sink');
  }

  protected async finish(endsEarly: boolean): Promise<void> {
    if (endsEarly) {
      if (!this.finished) this.report.saw('an end with something outstanding');
      await this.end();
      await this.world.flush();
    }
    if (!(await this.heal(() => this.finished))) this.#saysStuck();
    if (!endsEarly) {
      // Whoever only waits for something to happen goes on now; what does not come is lost.
      await this.put({ do: 'put', input: 0, drafts: [{ size: 1, filler: 0, head: 0 }], asBlock: false });
      await this.heal(() => this.finished);
    }
    await this.inspect();
    this.checkLoss();
    if (!endsEarly) await this.end();
    if (!(await this.heal(() => this.ended)))
      this.report.violate('L3', 'its input has ended and everything is settled, but it did not complete');
    await this.world.flush();
    await this.inspect();
    if (this.world.pending > 0)
      this.report.violate('L3', `it has ended, but ${this.world.pending} of its timers still wait`);
    this.#checkVanished();
  }

  /** Everything works now, and all that comes is acked, until `goal`. False if that does not come about. */
  protected async heal(goal: () => boolean): Promise<boolean> {
    this.switchDestination?.(true);
    for (const consumer of this.consumers) consumer.mode = 'hold';
    for (let round = 0; round < mostRounds; round++) {
      for (const taken of this.live()) if (taken.delivery.live) taken.consumer.settle(taken, 'ack');
      if (!(await this.world.until(() => goal() || this.live().length > 0))) return false;
      if (goal()) return true;
    }
    this.report.violate('L3', `it goes on delivering after ${mostRounds} rounds in which everything was acked`);
    return false;
  }

  protected checkLoss(): void {
    const { due } = this.book;
    if (due.length > 0)
      this.report.violate(
        'S4',
        `${due.length} of ${this.book.items.length} events were neither delivered nor given up, though everything else was acked`,
      );
  }

  /** Everything was settled: whoever was put in and has not come out must be in the books. */
  #checkVanished(): void {
    const { filtered, rejected, dropped, kept } = this.world.ledger;
    const vanished = this.book.offers.flatMap(offer =>
      offer.outcome !== 'acked'
        ? []
        : offer.events.filter(one => this.book.itemsOf(one).every(({ seen }) => seen === 0)),
    );
    const counted = filtered + rejected + dropped + kept;
    if (this.finished && vanished.length > counted)
      this.report.violate(
        'X1',
        `${vanished.length} events did not come out, but only ${counted} are counted as filtered, rejected, dropped or kept`,
      );
  }

  #saysStuck(): void {
    const { due, open } = this.book;
    const what = `nothing is unsettled downstream and time has passed, but ${due.length} events have not come out and ${open.length} deliveries are unsettled upstream`;
    for (const law of this.stuck) this.report.violate(law, what);
  }

  async #act(command: Command): Promise<void> {
    switch (command.do) {
      case 'put':
        return this.put(command);
      case 'settle':
        return this.#settle(this.live(), command.at, command.as, command.failed ?? undefined);
      case 'again':
        return this.#settle(
          this.#taken(({ settled }) => settled),
          command.at,
          command.as,
        );
      case 'stale':
        return this.#settle(
          this.#taken(({ settled, delivery }) => !settled && !delivery.live),
          command.at,
          command.as,
        );
      case 'mode': {
        const consumer = this.consumers[command.at % this.consumers.length];
        if (consumer !== undefined) consumer.mode = command.mode;
        return undefined;
      }
      case 'wait':
        return this.world.pass(command.ms);
      case 'quiet':
        return this.#quiet();
      case 'leave':
        return this.leave?.(command.at);
      case 'join':
        return this.join?.();
      case 'reopen':
        if (this.live().length > 0) this.report.saw('a reopening with something outstanding');
        return this.reopen?.();
      case 'down':
      case 'up':
        return this.switchDestination?.(command.do === 'up');
    }
  }

  #taken(which: (taken: Taken) => boolean): Taken[] {
    return this.consumers.flatMap(({ taken }) => taken.filter(which));
  }

  #settle(among: readonly Taken[], at: number, as: 'ack' | 'nack' | 'reject', failed?: readonly number[]): void {
    const taken = among[at % among.length];
    taken?.consumer.settle(taken, as, failed);
  }

  /** Nothing may lie around for lack of a later delivery: either it has come out, or it comes with time. */
  async #quiet(): Promise<void> {
    if (!this.ready || this.consumers.some(({ mode }) => mode === 'nack')) return;
    if (!(await this.world.until(() => this.finished || this.live().length > 0))) this.#saysStuck();
    if (!(await this.world.until(() => !this.wastesCredit())))
      this.report.violate(
        'L1',
        'there is credit for more, and there is more, but nothing comes until something is settled',
      );
    if (!(await this.world.until(() => !this.lingers())))
      this.report.violate('L3', `a session that was unsubscribed can still be settled after ${this.world.patience} ms`);
    if (this.live().length > 0 && this.book.due.length > 1) this.report.saw('a quiet moment with the window used up');
  }

  /** A session that is to end has not. */
  protected lingers(): boolean {
    return false;
  }

  /** More could be in flight than is. Only emitters know their credit. */
  protected wastesCredit(): boolean {
    return false;
  }

  /** Somebody is there to take what comes out. */
  protected get ready(): boolean {
    return this.consumers.length > 0;
  }
}

import type { Subscription } from 'rxjs';
import type { Channel, OutputOptions } from '../../core/channel.ts';
import { Batch } from '../../core/event.ts';
import { inScope } from '../../core/scope.ts';
import { Book, named, type Item, type Offer } from './book.ts';
import { Consumer } from './consumer.ts';
import { Feeder, quickly } from './feeder.ts';
import { lawsOf, type Law, type LawId, type LawSpec, type Report, type Sight } from './law.ts';
import { print, programOf, type Command, type Program, type Weights } from './program.ts';
import { Rig } from './rig.ts';
import { World } from './world.ts';

/** What a channel under test is told; small, so that it is often full. */
export interface ChannelLimits {
  /** Events. */
  readonly capacity: number;
  /** Events per put. */
  readonly transactionCapacity: number;
  /** Bytes of bodies and headers. */
  readonly byteCapacity: number;
  /** Seconds that a put waits for room. */
  readonly keepAlive: number | undefined;
}

/** As much of a channel as the laws are about. */
export type ChannelUnderTest = Pick<Channel, 'output' | 'depth' | 'end' | 'close' | 'closed'> & {
  input(): Pick<ReturnType<Channel['input']>, 'next' | 'error' | 'complete' | 'closed'>;
};

export interface ChannelSpec<Place = undefined> extends LawSpec {
  /** A new channel with these limits; in a place, if there is one. */
  readonly make: (limits: ChannelLimits, place: Place) => ChannelUnderTest | Promise<ChannelUnderTest>;
  /** Limits that it cannot be told. */
  readonly limits?: Partial<ChannelLimits>;
  /** Its content survives `close`, and the next channel made in the same place has it. Default false. */
  readonly durable?: boolean;
  /** Where the channels of one run are: a folder, a server. */
  readonly place?: () => Place | Promise<Place>;
  /** Takes a place away at the end of a run. */
  readonly remove?: (place: Place) => void | Promise<void>;
}

interface ChannelProgram extends Program {
  readonly limits: ChannelLimits;
  readonly inputs: number;
  readonly batchSize: number;
  /** Sources are told of a nack, and do not offer again. */
  readonly reports: boolean;
  readonly keepsRejected: boolean;
  /** At the end the channel is closed with what it holds, rather than drained. */
  readonly closes: boolean;
}

/** Consumers at a time. */
const mostConsumers = 3;

class ChannelRig<Place> extends Rig {
  readonly #spec: ChannelSpec<Place>;
  readonly #program: ChannelProgram;
  readonly #limits: ChannelLimits;
  readonly #place: Place;
  readonly #feeders: Feeder[];
  readonly #subscriptions = new Map<Consumer, Subscription>();
  #inputs: Subscription[] = [];
  #channel!: ChannelUnderTest;
  #present: Consumer[] = [];
  protected override readonly stuck: readonly LawId[] = ['L1', 'L2'];
  /** In the order in which they came, each time. */
  readonly #came: Item[] = [];
  #closed = false;
  /** Consumers have competed. */
  #contested = false;
  /** Something happened after which C4 promises nothing. */
  #disturbed = false;

  constructor(spec: ChannelSpec<Place>, program: ChannelProgram, report: Report, place: Place) {
    const world = new World(spec, program.seed);
    super(world, new Book(report, spec), report);
    this.#spec = spec;
    this.#program = program;
    this.#limits = { ...program.limits, ...spec.limits };
    this.#place = place;
    this.#feeders = Array.from(
      { length: program.inputs },
      (_, input) =>
        new Feeder(this.book, world, {
          maxInFlight: { deliveries: 3 },
          reports: program.reports,
          lane: `${input}`,
          onAcked: () => this.#acked(),
        }),
    );
  }

  override async play(program: ChannelProgram): Promise<void> {
    await this.#open();
    this.join();
    await super.play(program);
  }

  protected put({ input, drafts, asBlock }: Extract<Command, { do: 'put' }>): void {
    const offer = this.#feeders[input % this.#feeders.length]?.put(this.book.make(drafts, asBlock));
    for (const item of offer?.items ?? [])
      if (Batch.of([item.event]).byteLength > this.#limits.byteCapacity) item.state = 'refused';
    if (drafts.length > this.#limits.transactionCapacity) this.report.saw('a put larger than the transaction capacity');
  }

  protected end(): void {
    for (const feeder of this.#feeders) feeder.end();
  }

  protected override get ended(): boolean {
    return this.#closed && this.#present.every(({ ended }) => ended !== undefined);
  }

  protected override get ready(): boolean {
    return this.#present.length > 0;
  }

  protected override wastesCredit(): boolean {
    return this.#present.some(({ hasRoom }) => hasRoom) && this.#held().some(({ seen }) => seen === 0);
  }

  protected override leave(at: number): void {
    const consumer = this.#present[at % this.#present.length];
    if (consumer === undefined) return;
    if (consumer.live().length > 0) this.#disturbed = true;
    this.#subscriptions.get(consumer)?.unsubscribe();
    this.#present = this.#present.filter(one => one !== consumer);
  }

  protected override join(): void {
    const { window, batchSize, keepsRejected } = this.#program;
    const { order = 'strict' } = this.#spec;
    if (this.#present.length === mostConsumers) return;
    const consumer = new Consumer(this.book, this.world, this.report, {
      maxInFlight: window,
      // Competitors decide each for itself when to deliver again.
      order: this.#contested && order === 'strict' ? 'selective' : order,
      keepsRejected,
      fromEmitter: true,
      onTaken: ({ items }) => this.#taken(items),
      onComplete: () => {
        if (this.#held().length > 0) this.report.violate('L3', `complete came with ${this.#held().length} events held`);
      },
    });
    const options: OutputOptions = {
      batchSize,
      maxInFlight: window,
      redelivery: {
        ...quickly,
        order: order === 'strict' ? 'strict' : 'selective',
        onReject: keepsRejected ? 'keep' : 'drop',
      },
    };
    this.consumers.push(consumer);
    this.#present.push(consumer);
    if (this.#present.length > 1) this.#contest();
    const output = inScope(this.world.scope(), () => this.#channel.output(options).subscribe(consumer));
    this.#subscriptions.set(consumer, output);
  }

  protected override async reopen(): Promise<void> {
    if (this.#spec.durable !== true) return;
    await this.#close();
    await this.#open();
    this.join();
  }

  protected override async finish(endsEarly: boolean): Promise<void> {
    if (this.#program.closes) {
      await this.#close(endsEarly);
      if (this.#spec.durable !== true) return this.inspect();
      await this.#open();
    }
    if (this.#present.length === 0) this.join();
    await super.finish(endsEarly);
    if (this.#disturbed || this.book.items.some(({ state }) => state === 'refused')) return;
    if (this.book.items.length > 5) this.report.saw('an undisturbed run');
    const wrong = this.book.items.find(({ seen }) => seen !== 1);
    if (wrong !== undefined) this.report.violate('C4', `event ${named(wrong)} came out ${wrong.seen} times`);
    const last = new Map<string, number>();
    for (const item of this.#came) {
      if (item.rank < (last.get(item.key) ?? 0)) this.report.violate('C4', `event ${named(item)} came out late`);
      last.set(item.key, item.rank);
    }
  }

  protected override inspect(): void | Promise<void> {
    const { capacity, byteCapacity } = this.#limits;
    const { depth } = this.#channel;
    const held = this.#held();
    const bytes = held.length === 0 ? 0 : Batch.of(held.map(item => item.event)).byteLength;
    if (Math.max(depth.events, held.length) > capacity)
      this.report.violate(
        'C1',
        `it holds ${held.length} events, by its own count ${depth.events}; at most ${capacity} fit`,
      );
    if (Math.max(depth.bytes, bytes) > byteCapacity)
      this.report.violate(
        'C1',
        `it holds ${bytes} bytes, by its own count ${depth.bytes}; at most ${byteCapacity} fit`,
      );
    // What is being put may be there already.
    const kept = this.world.ledger.kept + this.book.open.reduce((sum, { items }) => sum + items.length, 0);
    if (kept < 0) this.report.violate('X1', `it opened with ${-kept} events more than it had when it was closed`);
    if (this.book.open.length > 0 && depth.events > 0) this.report.saw('a full channel');
    const torn = this.book.offers.find(
      offer => offer.outcome === 'refused' && this.#isOnePut(offer) && offer.items.some(({ seen }) => seen > 0),
    );
    if (torn !== undefined)
      this.report.violate('C2', `a put of ${torn.items.length} events was nacked, but some of them came out`);
    return super.inspect();
  }

  async #open(): Promise<void> {
    this.#channel = await this.world.finish(
      inScope(this.world.scope(), () => this.#spec.make(this.#limits, this.#place)),
      'make()',
    );
    const channel = this.#channel;
    this.#closed = false;
    channel.closed.then(
      () => (this.#closed ||= channel === this.#channel),
      (cause: unknown) => this.report.violate('L3', `it did not close: ${String(cause)}`),
    );
    this.#inputs = this.#feeders.map(({ deliveries }) => {
      const input = channel.input();
      return inScope(this.world.scope(), () => deliveries.subscribe(input));
    });
  }

  /** The channel and all that is around it end at once; or the channel first, under the eyes of its sources. */
  async #close(channelFirst = false): Promise<void> {
    if (this.live().length > 0) this.report.saw('a reopening with something outstanding');
    this.#disturbed = true;
    if (!channelFirst) for (const input of this.#inputs) input.unsubscribe();
    await this.world.finish(this.#channel.close(), 'close()');
    if (!(await this.world.until(() => this.#feeders.every(({ inFlight }) => inFlight === 0))))
      this.report.violate('L1', 'it was closed, and deliveries that waited for room are left waiting');
    for (const input of this.#inputs) input.unsubscribe();
    if (this.live().length > 0)
      this.report.violate('S7', 'a delivery could still be settled after the channel was closed');
    for (const consumer of this.#present) this.#subscriptions.get(consumer)?.unsubscribe();
    this.#present = [];
    await this.world.flush();
  }

  #contest(): void {
    this.#contested = this.#disturbed = true;
    this.report.saw('two consumers');
    for (const consumer of this.consumers) if (consumer.order === 'strict') consumer.order = 'selective';
  }

  /** What the channel is responsible for: accepted, and not done with. */
  #held(): Item[] {
    return this.book.offers.flatMap(({ outcome, items }) =>
      outcome === undefined ? [] : items.filter(({ state }) => state === 'due'),
    );
  }

  /** Called while a put is acked: by now it must be in. */
  #acked(): void {
    const { events } = this.#channel.depth;
    const held = this.#held().length;
    if (held > events)
      this.report.violate('S2', `it has acked ${held} events that are not done with, but holds ${events}`);
  }

  /** Small enough to be put in one go. */
  #isOnePut({ events }: Offer): boolean {
    const { transactionCapacity, byteCapacity } = this.#limits;
    return events.length <= transactionCapacity && Batch.of(events).byteLength <= byteCapacity;
  }

  /** Whatever came out of a put that is not acked yet, all of that put must be in. */
  #taken(items: readonly Item[]): void {
    this.#came.push(...items);
    const visible = new Set<Offer>();
    for (const { offer } of items) {
      if (offer?.outcome === undefined && offer !== undefined && this.#isOnePut(offer)) visible.add(offer);
    }
    const due = [...visible].flatMap(offer => offer.items.filter(({ state }) => state === 'due'));
    const owed = this.#held().length + due.length;
    const { events } = this.#channel.depth;
    if (visible.size > 0 && owed > events)
      this.report.violate('C2', `events of a put came out while only ${events} of ${owed} were in`);
  }
}

const usual: Weights = {
  put: 12,
  settle: 14,
  again: 1,
  stale: 1,
  mode: 1,
  wait: 4,
  quiet: 1,
  leave: 1,
  join: 1,
  reopen: 1,
};
const calm: Weights = { put: 12, settle: 14, mode: 1, wait: 4, quiet: 1 };
const weights: Partial<Record<LawId, Weights>> = {
  S1: { ...usual, again: 6 },
  S6: { ...usual, join: 0 },
  S7: { ...usual, stale: 8, leave: 4, join: 4 },
  L2: { ...usual, quiet: 6 },
  C4: calm,
};

const sights: Partial<Record<LawId, readonly Sight[]>> = {
  S1: ['a second settle', 'a nack'],
  S2: ['a full channel', 'a nack'],
  S3: ['a full window', 'a nack'],
  S4: ['a full channel', 'a nack', 'a redelivery', 'two consumers'],
  S5: ['two events', 'a redelivery'],
  S6: ['two events', 'a nack', 'a redelivery'],
  S7: ['a stale settle'],
  L1: ['a synchronous settle', 'a full channel', 'a full window', 'a redelivery'],
  L2: ['a quiet moment with the window used up'],
  L3: ['a completion', 'an end with something outstanding'],
  C1: ['a full channel', 'a nack'],
  C2: ['a full channel', 'a put larger than the transaction capacity'],
  C4: ['an undisturbed run', 'a full channel'],
  X1: ['an event that left without reaching a sink', 'a reopening with something outstanding'],
};

/**
 * The laws of channels.
 *
 * @example
 *     for (const law of channelLaws({ name: 'mine', make: limits => createChannel(new MyStore(limits), limits) }))
 *       test(law.name, () => law.run());
 */
export const channelLaws = <Place = undefined>(spec: ChannelSpec<Place>): Law[] =>
  lawsOf<ChannelProgram>({
    kit: 'channelLaws',
    spec,
    laws: sights,
    program: (fc, law) => {
      const limits = fc
        .tuple(
          fc.integer({ min: 1, max: 12 }),
          fc.integer({ min: 1, max: 12 }),
          fc.constantFrom(40, 80, 300, 5000),
          fc.constantFrom(undefined, undefined, 1),
        )
        .map(([capacity, part, byteCapacity, keepAlive]) => ({
          capacity,
          transactionCapacity: Math.min(part, capacity),
          byteCapacity,
          keepAlive: law === 'C4' ? undefined : keepAlive,
        }));
      const more = fc.record({
        limits,
        inputs: fc.constantFrom(1, 1, 2),
        batchSize: fc.integer({ min: 1, max: 6 }),
        reports: fc.boolean(),
        keepsRejected: fc.boolean(),
        closes: law === 'C4' ? fc.constant(false) : fc.constantFrom(false, false, true),
      });
      const program = programOf(fc, weights[law] ?? usual, law === 'C4' ? ['ack'] : undefined);
      return fc.tuple(program, more).map(([one, other]) => ({ ...one, ...other }));
    },
    play: async (program, report) => {
      const place = (await spec.place?.()) as Place;
      try {
        await new ChannelRig(spec, program, report, place).play(program);
      } finally {
        await spec.remove?.(place);
      }
    },
    print: ({ limits, inputs, batchSize, reports, keepsRejected, closes, ...program }) =>
      `${JSON.stringify({ ...limits, inputs, batchSize })}, ${print(program)}` +
      `${reports ? '; sources do not offer again' : ''}${keepsRejected ? '; rejects are kept' : ''}${closes ? '; is closed at the end' : ''}`,
  });

/**
 * What all of a simulated graph shares: time, chance, what goes wrong, what was seen, and the first law that was broken.
 */
import type { Ledger } from '../../../src/core/ledger.ts';
import { Metrics, type ComponentKind, type Counters } from '../../../src/core/metrics.ts';
import { Scope } from '../../../src/core/scope.ts';
import { FakeClock, recordingLog, seededRandom, type LawId } from '../../../src/testing/index.ts';
import { faults, type Fault, type GraphSpec } from './graph.ts';

/** What has to happen at least once in all graphs together, or they prove nothing. */
export const sights = [
  ...faults,
  'a buried event',
  'a duplicate',
  'a filtered event',
  'a full channel',
  'a full window',
  'a late settlement',
  'a redelivery',
  'a rejected event',
  'a restart',
  'a stage that rejects',
  'a stop that took too long',
  'a stop with work outstanding',
  'an abort with work outstanding',
  'an event given up by policy',
  'an event that an abort dropped',
  'an undisturbed run',
  'events in a block',
  'outputs that compete',
  'through a channel between flows',
  'through deadLetter',
  'through expand',
  'through filter',
  'through keyed',
  'through mapBatch',
  'through mark',
  'through memory',
  'through rebatch',
  'through replicate',
  'through route',
] as const;
export type Sight = (typeof sights)[number];

/** Remembers the gauges of all channels, also of those inside of flows. */
class WatchedMetrics extends Metrics {
  readonly channels: Counters[] = [];

  override register<C extends Counters>(kind: ComponentKind, name: string, counters: C): C {
    if (kind === 'CHANNEL') this.channels.push(counters);
    return super.register(kind, name, counters);
  }
}

export class World {
  readonly clock = new FakeClock(0);
  readonly log = recordingLog();
  readonly trace: string[] = [];
  readonly seen = new Set<Sight>();
  readonly ledgers = new Set<Ledger>();
  /** Events of sources that somebody rejected, or something that was made of them. */
  readonly rejected = new Set<string>();
  /** The first thing that went against a law. */
  broken: { readonly law: LawId; readonly what: string } | undefined;
  /** True in the first phase. Then everything heals, and all promises have to be kept. */
  faulty = true;
  /** Something has gone wrong on purpose. */
  disturbed = false;
  readonly #faults: ReadonlySet<Fault>;
  readonly #random: () => number;
  readonly #metrics = new WatchedMetrics();
  readonly #onHeal: (() => void)[] = [];

  constructor(spec: GraphSpec) {
    this.#faults = new Set(spec.faults);
    this.#random = seededRandom(spec.seed);
  }

  /** With books of its own. */
  scope(): Scope {
    const { clock, log } = this;
    const scope = new Scope({ clock, log, random: this.#random, metrics: this.#metrics });
    this.ledgers.add(scope.ledger);
    return scope;
  }

  may(fault: Fault): boolean {
    return this.#faults.has(fault);
  }

  /** Whether it goes wrong now. */
  roll(fault: Fault, probability: number): boolean {
    if (!this.faulty || !this.may(fault) || this.#random() >= probability) return false;
    this.disturb(fault);
    return true;
  }

  disturb(fault: Sight): void {
    this.disturbed = true;
    this.saw(fault);
  }

  upTo(max: number): number {
    return Math.floor(this.#random() * max);
  }

  wait(ms: number): Promise<void> {
    return new Promise(resolve => void this.clock.after(ms, resolve));
  }

  heal(): void {
    this.faulty = false;
    this.note('everything heals');
    for (const act of this.#onHeal.splice(0)) act();
  }

  /** Now, if everything has healed already. */
  onHeal(act: () => void): void {
    if (this.faulty) this.#onHeal.push(act);
    else act();
  }

  note(what: string): void {
    this.trace.push(`${this.clock.now()} ${what}`);
  }

  saw(sight: Sight): void {
    this.seen.add(sight);
  }

  violate(law: LawId, what: string): void {
    if (this.broken !== undefined) return;
    this.broken = { law, what };
    this.note(`${law} is broken: ${what}`);
  }

  /** What must hold whenever nobody is at work. */
  inspect(): void {
    for (const ledger of this.ledgers) {
      if (ledger.difference !== 0)
        this.violate('X1', `books are ${ledger.difference} off: ${JSON.stringify(ledger.snapshot())}`);
      if (ledger.settledTwice > 0) this.violate('S1', `${ledger.settledTwice} deliveries were settled twice`);
    }
    for (const { ChannelSize = 0, ChannelCapacity = 0 } of this.#metrics.channels) {
      if (ChannelSize > ChannelCapacity)
        this.violate('C1', `a channel of ${ChannelCapacity} events holds ${ChannelSize}`);
      if (ChannelSize === ChannelCapacity) this.saw('a full channel');
    }
  }
}

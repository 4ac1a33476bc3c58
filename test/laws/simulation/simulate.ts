/**
 * Builds a random graph, lets it go wrong, lets it heal, and holds it to its promises.
 */
import { concatMap, map, merge, Observable, retry, tap, toArray, type OperatorFunction } from 'rxjs';
import type { Channel } from '../../../src/core/channel.ts';
import { own, settle, type Delivery } from '../../../src/core/delivery.ts';
import { MillraceError, toError } from '../../../src/core/errors.ts';
import { Batch, event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { run, type Flow, type FlowSink } from '../../../src/core/flow.ts';
import { inScope, type Scope } from '../../../src/core/scope.ts';
import { createSink } from '../../../src/core/sink.ts';
import { memoryChannel } from '../../../src/operators/channels/memory.ts';
import { deadLetter } from '../../../src/operators/dead-letter.ts';
import { intercept } from '../../../src/operators/intercept.ts';
import { keyed } from '../../../src/operators/keyed.ts';
import { mapBatch } from '../../../src/operators/map-batch.ts';
import { rebatch } from '../../../src/operators/rebatch.ts';
import type { Destination } from '../../../src/operators/routing/destination.ts';
import { replicate } from '../../../src/operators/routing/replicate.ts';
import { route } from '../../../src/operators/routing/route.ts';
import {
  recordingSink,
  scriptedSource,
  type ScriptedSource,
  type SinkStep,
  type SourceStep,
} from '../../../src/testing/index.ts';
import {
  branchOf,
  type ChannelSpec,
  type EmitterSpec,
  type GraphSpec,
  type OutputSpec,
  type PipelineSpec,
  type SinkSpec,
  type SourceSpec,
  type StageSpec,
  type TailSpec,
} from './graph.ts';
import { Order, originOf, Place, print, type Due, type Passing } from './place.ts';
import { World, type Sight } from './world.ts';

type Stage = OperatorFunction<Delivery, Delivery>;

/** Parts of a graph that a test replaces by broken ones. */
export interface Planted {
  /** Put before the stages of each flow. */
  readonly stage?: () => Stage;
  readonly memoryChannel?: typeof memoryChannel;
  readonly createSink?: typeof createSink;
}

/** How an event got to where it is in the model. */
interface Way {
  readonly origin: string;
  readonly rank: number;
  /** Events of one lane keep their order; undefined if it is lost. */
  readonly lane: string | undefined;
  /** More than one emitter is right before it. */
  readonly several: boolean;
  /** False on the way to where it need not come. */
  readonly must: boolean;
  /** What the emitter before it does with a reject. */
  readonly onReject: EmitterSpec['onReject'];
  readonly rejectable: readonly Passing[];
  readonly buriable: readonly Passing[];
}

/** A source that outlives the flows it is in. */
interface Input {
  readonly source: ScriptedSource;
  readonly deliveries: Observable<Delivery>;
  readonly emissions: number;
}

/** A flow that is started again when it was ended early. */
interface Running {
  readonly name: string;
  readonly start: () => Flow;
  flow: Flow;
  over: boolean;
  /** It was ended, so that it may fail. */
  ending: boolean;
  restarts: boolean;
}

const keys = ['a', 'b', 'c'];

/** A number that has nothing to do with anything else. */
const hash = (text: string): number => {
  let sum = 7;
  for (let i = 0; i < text.length; i++) sum = (Math.imul(sum, 31) + text.charCodeAt(i)) | 0;
  return sum >>> 4;
};

const isPoison = (one: FlumeEvent): boolean => hash(originOf(one)) % 7 === 0;

const marked = ({ body, headers: head }: FlumeEvent, at: string): FlumeEvent =>
  event(body, headers({ ...head, [at]: '1' }));

const expanded = ({ body, headers: head }: FlumeEvent, at: string): FlumeEvent[] =>
  Array.from({ length: 1 + (hash(`${at}${body.toString()}`) % 2) }, (_, i) => event(`${body.toString()}+${i}`, head));

const passes = ({ body }: FlumeEvent, at: string): boolean => hash(`${at}${body.toString()}`) % 4 > 0;

/** Behind another emitter. */
const emitted = (way: Way, { order, onReject }: EmitterSpec): Way => ({
  ...way,
  onReject,
  several: false,
  lane: order === 'strict' ? way.lane : undefined,
});

const dueOf = ({ origin, rank, lane, must, rejectable, buriable }: Way, dead = false): Due => {
  const counts = { least: must ? 1 : 0, most: 1, written: 0 };
  return { origin, rank, lane, rejectable, buriable, dead, ...counts };
};

/** Long enough for anything to get done once everything has healed. */
const patience = 600_000;

class Simulation {
  readonly #spec: GraphSpec;
  readonly #planted: Planted;
  readonly #world: World;
  readonly #places = new Map<string, Place>();
  readonly #rejectedAt = new Map<string, Set<string>>();
  readonly #channels: Channel[];
  readonly #scopes = new Map<string, Scope>();
  readonly #inputs: Input[][];
  readonly #running: Running[] = [];
  readonly #atEnd: (() => void)[] = [];

  constructor(spec: GraphSpec, planted: Planted) {
    this.#spec = spec;
    this.#planted = planted;
    this.#world = new World(spec);
    this.#channels = spec.channels.map(({ channel }, i) =>
      inScope(this.#scope(`c${i}`), () => this.#memory.create(this.#capacity(channel), { name: `c${i}` })),
    );
    this.#inputs = spec.inputs.map(({ sources, pipeline }, i) =>
      sources.map((source, j) => this.#input(source, `i${i}s${j}`, pipeline, `i${i}`, sources.length > 1)),
    );
  }

  async run(): Promise<World> {
    const world = this.#world;
    const { clock } = world;
    const watch = (condition: () => boolean) => () => {
      world.inspect();
      return condition() || world.broken !== undefined;
    };
    this.#start();
    await clock.until(
      watch(() => false),
      this.#spec.healAt,
    );
    world.heal();
    const settled = () =>
      this.#running.every(({ ending }) => !ending) &&
      this.#inputs.every((inputs, i) => inputs.every(input => this.#isDone(input)) && this.#mayEnd(i));
    if (!(await clock.until(watch(settled), patience))) world.violate('L1', this.#whatIsStuck());
    const inputs = this.#running.slice(0, this.#inputs.length);
    for (const { over, flow } of inputs) if (!over) this.#stop(flow);
    await this.#end(inputs, watch);
    for (const [i, channel] of this.#channels.entries()) {
      channel.end();
      await this.#end(
        this.#running.filter(({ name }) => name.startsWith(`c${i}.`)),
        watch,
      );
    }
    // What was left behind by flows that were aborted comes to its end.
    await clock.advance(5000);
    world.inspect();
    if (world.broken === undefined) this.#judge();
    return world;
  }

  // --- building

  get #memory(): typeof memoryChannel {
    return this.#planted.memoryChannel ?? memoryChannel;
  }

  #scope(flow: string): Scope {
    const name = this.#spec.books === 'shared' ? 'all' : flow;
    let scope = this.#scopes.get(name);
    if (scope === undefined) this.#scopes.set(name, (scope = this.#world.scope()));
    return scope;
  }

  #capacity({ capacity, transactionCapacity, impatient }: ChannelSpec) {
    return {
      capacity,
      transactionCapacity: Math.min(capacity, transactionCapacity),
      // A delivery that never fits would be offered, in part, for ever.
      ...(impatient && this.#world.may('full') && { keepAlive: capacity > 24 ? 0 : 1 }),
    };
  }

  #input(spec: SourceSpec, name: string, pipeline: PipelineSpec, at: string, several: boolean): Input {
    const world = this.#world;
    let number = 0;
    let emissions = 0;
    const batch = (count: number) => {
      const shared = headers({ key: keys[emissions++ % keys.length] as string, from: name });
      const bodies = Array.from({ length: count }, () => `${name}.${number++}`);
      if (!spec.blocks)
        return bodies.map(body => event(body, headers({ key: keys[hash(body) % 3] as string, from: name })));
      const bytes = Buffer.from(`${bodies.join('\n')}\n`);
      let end = -1;
      return Batch.ofBlock({
        bytes,
        ends: Uint32Array.from(bodies, body => (end += body.length + 1)),
        headers: shared,
      });
    };
    const steps = spec.steps.flatMap((step): SourceStep[] => {
      if (step === 'break') return world.may('break') ? [{ fail: new Error('the source breaks') }] : [];
      return [typeof step === 'number' ? { emit: batch(step) } : step];
    });
    const source = scriptedSource(spec.idle ? [...steps, 'idle' as const] : steps, {
      name,
      pushing: spec.pushing,
      maxInFlight: { deliveries: spec.deliveries, events: spec.events },
      redelivery: { ...spec.emitter, initial: 10, max: 200 },
      drainTimeout: 700,
    });
    const known = new Set<string>();
    let rank = 0;
    let unsettled: Delivery[] = [];
    const accept = tap((delivery: Delivery) => {
      world.note(`${name} emits ${delivery.events.map(({ body }) => body.toString()).join(' ')} (${delivery.attempt})`);
      unsettled = [...unsettled.filter(({ live }) => live), delivery];
      const events = unsettled.reduce((sum, { length }) => sum + length, 0);
      if (delivery.block !== undefined) world.saw('events in a block');
      if (unsettled.length === spec.deliveries) world.saw('a full window');
      if (unsettled.length > spec.deliveries || (unsettled.length > 1 && events > spec.events))
        world.violate('S3', `${name} has ${unsettled.length} deliveries of ${events} events unsettled`);
      for (const one of delivery.events) {
        const origin = one.body.toString();
        if (known.has(origin)) continue;
        known.add(origin);
        this.#expect(pipeline, at, one, {
          origin,
          rank: rank++,
          lane: spec.emitter.order === 'strict' ? name : undefined,
          several,
          must: true,
          onReject: spec.emitter.onReject,
          rejectable: [],
          buriable: [],
        });
      }
    });
    return {
      source,
      emissions,
      deliveries: this.#interrupted(source, name, spec.cuts).pipe(
        accept,
        map(delivery => this.#probe(delivery)),
      ),
    };
  }

  /** Sees why a source has to emit again. */
  #probe(delivery: Delivery): Delivery {
    return own(delivery, delivery.batch, (outcome, cause, failed) => {
      if (cause instanceof MillraceError && cause.code === 'MR_CHANNEL_FULL') this.#world.saw('full');
      return settle(delivery, outcome, cause, failed);
    });
  }

  /** Subscribed again when it breaks, and when it is unsubscribed, which it is at times. */
  #interrupted(source: ScriptedSource, name: string, cuts: readonly number[]): Observable<Delivery> {
    const world = this.#world;
    const { clock } = world;
    const left = world.may('cut') ? [...cuts] : [];
    const pause = (what: Sight) =>
      new Observable<void>(subscriber => {
        world.disturb(what);
        world.note(`${name}: ${what}`);
        const timer = clock.after(10, () => subscriber.next());
        return () => clock.cancel(timer);
      });
    const cut = new Error('cut');
    const once = new Observable<Delivery>(subscriber => {
      const subscription = source.subscribe({
        next: delivery => subscriber.next(delivery),
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => subscriber.complete(),
      });
      const after = world.faulty ? left.shift() : undefined;
      const timer =
        after === undefined
          ? undefined
          : clock.after(after, () => {
              if (!world.faulty || subscriber.closed) return;
              subscription.unsubscribe();
              subscriber.error(cut);
            });
      return () => {
        clock.cancel(timer);
        subscription.unsubscribe();
      };
    });
    return once.pipe(retry({ delay: cause => pause(cause === cut ? 'cut' : 'break') }));
  }

  #place(name: string): Place {
    let place = this.#places.get(name);
    if (place === undefined) this.#places.set(name, (place = new Place(name, this.#world)));
    return place;
  }

  #stage(spec: StageSpec, at: string): Stage {
    const world = this.#world;
    switch (spec.op) {
      case 'mark':
        return intercept(
          toArray(),
          concatMap(all => {
            this.#mayThrow(all, at);
            return all;
          }),
          concatMap(async one => {
            if (spec.async && world.roll('slow', 0.3)) await world.wait(1 + world.upTo(50));
            return marked(one, at);
          }),
          { concurrency: spec.concurrency },
        );
      case 'mapBatch':
        return mapBatch(({ events }) => {
          this.#mayThrow(events, at);
          return events.map(one => marked(one, at));
        });
      case 'filter':
        return mapBatch(({ events }) => events.filter(one => passes(one, at)));
      case 'expand':
        return mapBatch(({ events }) => events.flatMap(one => expanded(one, at)));
      case 'rebatch':
        return rebatch(spec);
      case 'keyed':
        return keyed({
          by: one => one.headers['key'],
          concurrency: spec.concurrency,
          maxInFlightPerKey: spec.perKey,
        });
      case 'memory':
        return this.#memory({ ...this.#capacity(spec.channel), ...this.#output(spec.output) }, { name: at });
      case 'deadLetter':
        return deadLetter(this.#sink(spec.sink, this.#place(at)), {
          ...(world.may('nack') && { maxAttempts: spec.maxAttempts }),
        });
    }
  }

  #output({ batchSize, deliveries, emitter }: OutputSpec) {
    return { batchSize, maxInFlight: { deliveries }, redelivery: { ...emitter, initial: 10, max: 200 } };
  }

  #mayThrow(events: readonly FlumeEvent[], at: string): void {
    const world = this.#world;
    if (world.roll('throw', 0.1)) throw new Error(`${at} fails`);
    if (!world.may('poison') || !world.roll('throw', 0.05)) return;
    world.saw('a stage that rejects');
    const rejected = this.#rejectedAt.get(at) ?? new Set();
    this.#rejectedAt.set(at, rejected);
    for (const one of events) {
      rejected.add(print(one));
      world.rejected.add(originOf(one));
    }
    throw new MillraceError('MR_BAD_INPUT', `${at} can never take this`);
  }

  #stages(specs: readonly StageSpec[], at: string): Stage {
    const stages = specs.map((spec, i) => this.#stage(spec, `${at}.${i}`));
    if (this.#planted.stage !== undefined) stages.unshift(this.#planted.stage());
    return source => stages.reduce<Observable<Delivery>>((below, stage) => stage(below), source);
  }

  #tail(tail: TailSpec, at: string, behind: number): FlowSink<FlumeEvent> {
    const world = this.#world;
    const branch = ({ stages, tail: end }: PipelineSpec, i: string): Destination => {
      const here = `${at}/${i}`;
      return deliveries => this.#stages(stages, here)(deliveries).subscribe(this.#tail(end, here, behind));
    };
    const retrying = (attempts: number) => ({
      retry: { initial: 10, max: 200, ...(world.may('nack') && { attempts }) },
      maxInFlight: { deliveries: 3 },
      optionalBuffer: { events: 5, drain: 300 },
    });
    if (tail.to === 'replicate') {
      return replicate(
        tail.branches.map((one, i) => branch(one, String(i))),
        {
          ...retrying(tail.attempts),
          optional: tail.optional.map((one, i) => branch(one, `optional${i}`)),
        },
      );
    }
    if (tail.to === 'route') {
      const branches = tail.branches.map((one, i) => branch(one, String(i)));
      return route(one => String(branchOf(one.headers['key'] as string, branches.length)), {
        ...retrying(tail.attempts),
        cases: Object.fromEntries(branches.map((one, i) => [String(i), one])),
      });
    }
    const channel = this.#channelBehind(tail, behind);
    return channel === undefined
      ? this.#sink(tail.sink, this.#place(at))
      : (this.#channels[channel] as Channel).input();
  }

  /** Channels feed only channels behind them, so that nothing runs in circles. */
  #channelBehind(tail: TailSpec, behind: number): number | undefined {
    const count = this.#channels.length - behind;
    return tail.to !== 'channel' || count === 0 ? undefined : behind + (tail.channel % count);
  }

  #sink(spec: SinkSpec, place: Place): FlowSink<FlumeEvent> {
    return spec.kind === 'writer' ? this.#writer(spec, place) : this.#raw(place);
  }

  #writer({ concurrency, attempts }: SinkSpec, place: Place): FlowSink<FlumeEvent> {
    const world = this.#world;
    const order = concurrency === 1 ? new Order() : undefined;
    return (this.#planted.createSink ?? createSink)(
      {
        write: ({ events }) => {
          place.receive(events, 1);
          if (world.faulty && world.may('poison') && events.some(isPoison)) {
            world.disturb('poison');
            if (events.length === 1) place.reject(events);
            throw new MillraceError('MR_BAD_INPUT', `${place.name} can never write this`);
          }
          const late = async (ms: number) => {
            await world.wait(ms);
            place.write(events, order);
          };
          if (world.roll('hang', 0.03)) return new Promise<void>(resolve => world.onHeal(resolve)).then(() => late(1));
          if (world.roll('fail', 0.15)) throw new Error(`${place.name} fails`);
          if (world.roll('fail', 0.15))
            return world.wait(5).then(() => Promise.reject(new Error(`${place.name} fails late`)));
          if (world.roll('slow', 0.4)) return late(1 + world.upTo(80));
          place.write(events, order);
          return undefined;
        },
      },
      {
        name: place.name,
        concurrency,
        retry: { initial: 10, max: 100, ...(world.may('nack') && { attempts }) },
      },
    );
  }

  #raw(place: Place): FlowSink<FlumeEvent> {
    const world = this.#world;
    const { clock } = world;
    const decide = (delivery: Delivery, index: number): SinkStep => {
      world.ledgers.add(delivery.ledger);
      place.receive(delivery.events, delivery.attempt);
      const after = world.roll('slow', 0.4) ? 1 + world.upTo(80) : 0;
      if (world.roll('hang', 0.03)) {
        world.onHeal(() => sink.received[index]?.settle('ack'));
        return 'hold';
      }
      const failed = world.roll('reject', 0.1) || world.roll('nack', 0.15) ? [world.upTo(8), world.upTo(8)] : undefined;
      if (failed === undefined) return { outcome: 'ack', after };
      const outcome = world.may('reject') && (!world.may('nack') || world.upTo(2) === 0) ? 'reject' : 'nack';
      world.note(`${place.name} is going to ${outcome} ${failed.join()}`);
      if (outcome === 'reject') for (const one of delivery.events) world.rejected.add(originOf(one));
      return { outcome, after, ...(world.upTo(2) === 0 && { failed }) };
    };
    const sink = recordingSink(decide, { clock });
    this.#atEnd.push(() => {
      place.write(sink.acked);
      place.reject(sink.rejected);
    });
    return sink;
  }

  // --- what has to come out

  /** Follows an event to all places where it comes out. */
  #expect({ stages, tail }: PipelineSpec, at: string, one: FlumeEvent, way: Way, behind = 0): void {
    let passing = [{ one, way }];
    for (const [i, stage] of stages.entries())
      passing = passing.flatMap(before => this.#through(stage, `${at}.${i}`, before.one, before.way));
    for (const end of passing) this.#arrive(tail, at, end.one, end.way, behind);
  }

  #through(stage: StageSpec, at: string, one: FlumeEvent, way: Way): { one: FlumeEvent; way: Way }[] {
    const here = { at, what: print(one) };
    const givenUp = way.onReject === 'drop' ? { ...way, rejectable: [...way.rejectable, here] } : way;
    this.#world.saw(`through ${stage.op}`);
    switch (stage.op) {
      case 'mark':
      case 'mapBatch':
        return [{ one: marked(one, at), way: givenUp }];
      case 'filter':
        return passes(one, at) ? [{ one, way }] : [];
      case 'expand':
        return expanded(one, at).map(part => ({ one: part, way }));
      case 'rebatch':
        return [{ one, way: way.several ? { ...way, lane: undefined } : way }];
      case 'keyed':
        return [
          { one, way: { ...way, several: true, lane: way.lane && `${way.lane} ${one.headers['key'] as string}` } },
        ];
      case 'memory':
        return [{ one, way: emitted(way, stage.output.emitter) }];
      case 'deadLetter':
        this.#place(at).expect(here.what, dueOf({ ...givenUp, must: false, lane: undefined }, true));
        return [{ one, way: { ...givenUp, buriable: [...way.buriable, here] } }];
    }
  }

  #arrive(tail: TailSpec, at: string, one: FlumeEvent, way: Way, behind: number): void {
    const branch = (pipeline: PipelineSpec, i: number) =>
      this.#expect(
        pipeline,
        `${at}/${i}`,
        one,
        { ...way, several: false, lane: way.lane && `${way.lane}/${i}` },
        behind,
      );
    if (tail.to === 'replicate' || tail.to === 'route') this.#world.saw(`through ${tail.to}`);
    if (tail.to === 'replicate') {
      tail.branches.forEach((pipeline, i) => branch(pipeline, i));
      // What an optional branch had no room for may come with a later attempt, and in no order.
      tail.optional.forEach((pipeline, i) =>
        this.#expect(pipeline, `${at}/optional${i}`, one, { ...way, must: false, lane: undefined }, behind),
      );
      return;
    }
    if (tail.to === 'route') {
      const i = branchOf(one.headers['key'] as string, tail.branches.length);
      branch(tail.branches[i] as PipelineSpec, i);
      return;
    }
    const channel = this.#channelBehind(tail, behind);
    if (channel === undefined) {
      const here = { at, what: print(one) };
      const givenUp = way.onReject === 'drop' ? { ...way, rejectable: [...way.rejectable, here] } : way;
      this.#place(at).expect(here.what, dueOf(givenUp));
      return;
    }
    const { output, outputs, pipeline } = this.#spec.channels[channel] as GraphSpec['channels'][number];
    this.#world.saw('through a channel between flows');
    if (outputs > 1) this.#world.saw('outputs that compete');
    const through = emitted(way, output.emitter);
    const alone = outputs === 1 ? through : { ...through, lane: undefined };
    this.#expect(pipeline, `c${channel}`, one, alone, channel + 1);
  }

  // --- running

  #start(): void {
    const { spec, world } = { spec: this.#spec, world: this.#world };
    spec.inputs.forEach(({ pipeline }, i) => {
      const at = `i${i}`;
      const sources = merge(...(this.#inputs[i] as Input[]).map(({ deliveries }) => deliveries));
      this.#launch(at, at, () => run(sources, this.#stages(pipeline.stages, at), this.#tail(pipeline.tail, at, 0)));
    });
    spec.channels.forEach(({ output, outputs, pipeline }, i) => {
      const channel = this.#channels[i] as Channel;
      // Sources come and go; the channel stays open until the end.
      channel.input();
      const at = `c${i}`;
      for (let n = 0; n < outputs; n++) {
        this.#launch(`${at}.${n}`, at, () =>
          run(
            channel.output(this.#output(output)),
            this.#stages(pipeline.stages, at),
            this.#tail(pipeline.tail, at, i + 1),
          ),
        );
      }
    });
    for (const { at, flow, how, timeout, pause } of spec.ends) {
      if (!world.may(how)) continue;
      world.clock.after(at, () => {
        const running = this.#running[flow % this.#running.length] as Running;
        if (!world.faulty || running.over || running.ending) return;
        this.#cut(running, how, timeout, pause);
      });
    }
  }

  #launch(name: string, at: string, start: () => Flow): void {
    const begin = () => inScope(this.#scope(at), start);
    const running: Running = { name, start: begin, flow: begin(), over: false, ending: false, restarts: false };
    this.#running.push(running);
    this.#follow(running);
  }

  #follow(running: Running): void {
    const { flow } = running;
    const end = (cause?: unknown) => {
      if (running.flow !== flow) return;
      running.over = true;
      this.#world.note(`${running.name} has ended${cause === undefined ? '' : `: ${toError(cause).message}`}`);
      if (cause !== undefined && !running.ending)
        this.#world.violate('L3', `${running.name} broke: ${toError(cause).message}`);
    };
    flow.done.then(() => end(), end);
  }

  #cut(running: Running, how: 'stop' | 'abort', timeout: number, pause: number): void {
    const world = this.#world;
    running.ending = true;
    world.disturb(how);
    world.note(`${running.name}: ${how}`);
    if (running.flow.ledger.held > 0) world.saw(`a${how === 'stop' ? ' stop' : 'n abort'} with work outstanding`);
    if (how === 'abort') running.flow.abort();
    else running.flow.stop({ timeout }).catch(() => world.saw('a stop that took too long'));
    const again = () => {
      world.clock.after(pause, () => {
        world.note(`${running.name} starts again`);
        world.saw('a restart');
        running.flow = running.start();
        running.over = running.ending = false;
        this.#follow(running);
      });
    };
    running.flow.done.then(again, again);
  }

  #stop(flow: Flow): void {
    // How it ends is seen by whoever follows it.
    flow.stop({ timeout: patience }).catch(() => undefined);
  }

  #isDone({ source, emissions }: Input): boolean {
    return source.position() === emissions;
  }

  /** A flow whose sources complete does so by itself. */
  #mayEnd(i: number): boolean {
    return this.#spec.inputs[i]?.sources.some(({ idle }) => idle) === true || this.#running[i]?.over === true;
  }

  #whatIsStuck(): string {
    const inputs = this.#inputs.flat();
    const held = [...this.#world.ledgers].reduce((sum, ledger) => sum + ledger.held, 0);
    const done = inputs.filter(input => this.#isDone(input)).length;
    const over = this.#running.filter(running => running.over).map(({ name }) => name);
    return `${done} of ${inputs.length} sources are done, ${over.join() || 'no flow'} over, ${held} events held`;
  }

  async #end(flows: readonly Running[], watch: (condition: () => boolean) => () => boolean): Promise<void> {
    const over = () => flows.every(running => running.over);
    if (!(await this.#world.clock.until(watch(over), patience)))
      this.#world.violate(
        'L3',
        `${flows.find(running => !running.over)?.name ?? ''} does not end: ${this.#whatIsStuck()}`,
      );
  }

  // --- judging

  #judge(): void {
    const world = this.#world;
    for (const settle of this.#atEnd) settle();
    if (world.clock.pending > 0) world.violate('L3', `${world.clock.pending} timers are left at the end`);
    const sum = (of: 'dropped' | 'rejected' | 'held' | 'filtered' | 'settledLate') =>
      [...world.ledgers].reduce((total, ledger) => total + ledger[of], 0);
    if (sum('held') !== 0) world.violate('L3', `${sum('held')} events are held by nobody at the end`);
    if (sum('rejected') > 0) world.saw('a rejected event');
    if (sum('filtered') > 0) world.saw('a filtered event');
    if (sum('settledLate') > 0) world.saw('a late settlement');
    for (const { counters } of this.#channels)
      if (counters.StopTime === 0) world.violate('L3', 'a channel is not closed at the end');
    for (const { source } of this.#inputs.flat()) {
      const { opened, closed } = source.sessions;
      if (opened !== closed) world.violate('L3', `of ${opened} sessions of a source ${closed} were closed`);
    }
    const lost = new Map<string, string>();
    for (const place of this.#places.values()) {
      for (const [what, due] of place.due) {
        if (due.written > due.most && !this.#mayRepeat())
          world.violate('C4', `${what} came ${due.written} times to ${place.name}`);
        if (due.written >= due.least) continue;
        if (due.rejectable.some(passing => this.#wasRejected(passing))) world.saw('an event given up by policy');
        else if (due.buriable.some(passing => this.#wasBuried(passing))) world.saw('a buried event');
        else lost.set(due.origin, `${what} at ${place.name}`);
      }
    }
    const dropped = world.may('abort') || world.may('stop') ? sum('dropped') : 0;
    if (lost.size > dropped)
      world.violate(
        'S4',
        `${lost.size} events were lost, ${dropped} counted as dropped: ${[...lost.values()].join(', ')}`,
      );
    if (lost.size > 0) world.saw('an event that an abort dropped');
    if (!world.disturbed) world.saw('an undisturbed run');
  }

  #mayRepeat(): boolean {
    return this.#world.disturbed || this.#world.may('full');
  }

  #wasRejected({ at, what }: Passing): boolean {
    return this.#rejectedAt.get(at)?.has(what) === true || this.#places.get(at)?.rejected.has(what) === true;
  }

  #wasBuried({ at, what }: Passing): boolean {
    return (this.#places.get(at)?.due.get(what)?.written ?? 0) > 0;
  }
}

/** Plays a graph to its end. What it broke, saw and did is in the world. */
export const simulate = (spec: GraphSpec, planted: Planted = {}): Promise<World> => new Simulation(spec, planted).run();

/**
 * millrace: reliable event flows as reactive streams. In the order in which data flows.
 *
 * @module
 */

// What flows: events in batches, and the delivery, which is a batch with the right to settle it.
export { event, headers, noHeaders, Batch, type Block, type FlumeEvent, type Headers } from './core/event.ts';
export { join, type Delivery } from './core/delivery.ts';
export { MillraceError, errorCodes, type ErrorCode } from './core/errors.ts';

// A flow, and what it tells about itself.
export { run, type Flow, type FlowSink } from './core/flow.ts';
export type { Ledger } from './core/ledger.ts';
export type { Metrics } from './core/metrics.ts';

// Sources, and ways in from whatever else emits.
export { netcatSource } from './sources/netcat.ts';
export { httpSource } from './sources/http.ts';
export { execSource } from './sources/exec.ts';
export { seqSource } from './sources/seq.ts';
export { spooldirSource } from './sources/spooldir.ts';
export { taildirSource } from './sources/taildir.ts';
export { fromObservable, type FromObservableOptions } from './sources/from-observable.ts';
export { fromAsyncIterable, type FromAsyncIterableOptions } from './sources/from-async-iterable.ts';
export { fromReadable, type FromReadableOptions } from './sources/from-readable.ts';

// Stages between a source and a channel or a sink.
export { intercept, type InterceptOptions } from './operators/intercept.ts';
export { mapBatch, setHeaders, type SetHeadersOptions } from './operators/map-batch.ts';
export { rebatch, type RebatchOptions } from './operators/rebatch.ts';
export { keyed, type KeyedOptions } from './operators/keyed.ts';
export { deadLetter, type DeadLetterOptions } from './operators/dead-letter.ts';
export { type Destination } from './operators/routing/destination.ts';
export { replicate, type ReplicateOptions } from './operators/routing/replicate.ts';
export { route, type RouteOptions, type Selector, type Target } from './operators/routing/route.ts';

// Channels: stages that take responsibility, and let a source run ahead of its sink.
export { fileChannel } from './operators/channels/file.ts';
export { memoryChannel } from './operators/channels/memory.ts';
export { spillableChannel } from './operators/channels/spillablememory.ts';

// Sinks, and ways out to whatever else consumes.
export { fileRollSink } from './sinks/file-roll.ts';
export { loggerSink } from './sinks/logger.ts';
export { nullSink } from './sinks/null.ts';
export { autoAck } from './operators/auto-ack.ts';
export { toAsyncIterable } from './operators/to-async-iterable.ts';

// For components of your own: the built-in ones are made with the same three.
export {
  createSource,
  type Emitter,
  type Settled,
  type SourceContext,
  type SourceOpener,
  type SourceOptions,
  type SourceSession,
} from './core/source.ts';
export { createChannel, type Channel, type ChannelOptions, type OutputOptions, type Store } from './core/channel.ts';
export { Entry, type MaxInFlight, type Redelivery } from './core/outlet.ts';
export {
  createSink,
  PartlyWritten,
  type Sink,
  type SinkContext,
  type SinkOptions,
  type SinkWriter,
} from './core/sink.ts';
export type { Clock } from './core/clock.ts';
export type { Log } from './core/scope.ts';

export { FakeClock } from './fake-clock.ts';
export {
  memoryKafka,
  type MemoryKafka,
  type MemoryKafkaEvent,
  type MemoryKafkaFault,
  type MemoryKafkaOptions,
  type MemoryKafkaRight,
} from './memory-kafka.ts';
export { recordingLog, type LogEntry } from './recording-log.ts';
export {
  recordingSink,
  type Received,
  type RecordingSink,
  type RecordingSinkOptions,
  type SinkStep,
} from './recording-sink.ts';
export {
  scriptedSource,
  type ScriptedSource,
  type ScriptedSourceOptions,
  type SourceRecord,
  type SourceStep,
} from './scripted-source.ts';
export { seededRandom } from './seeded-random.ts';
export { laws, type Law, type LawId, type LawRun, type LawSpec } from './laws/law.ts';
export { sourceLaws, type SourceSpec, type SourceTuning, type SourceUnderTest } from './laws/source-laws.ts';
export { stageLaws, type StageSpec } from './laws/stage-laws.ts';
export { flowLaws, type FlowFault, type FlowLawsOptions, type Trouble } from './flow-laws.ts';
export { channelLaws, type ChannelLimits, type ChannelSpec, type ChannelUnderTest } from './laws/channel-laws.ts';
export { sinkLaws, type SinkSpec, type SinkTuning, type SinkUnderTest } from './laws/sink-laws.ts';

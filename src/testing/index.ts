export { FakeClock } from './fake-clock.ts';
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

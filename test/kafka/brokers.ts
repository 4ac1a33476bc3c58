/**
 * Tests with real brokers: `describeKafka` is vitest's `describe`, but skips where brokers cannot be had. `startKafka` is
 * in bench/kafka.ts, as benches use it too.
 *
 * @module
 */
import { fetchKafka, kafkaMissing, kafkaVersions, type KafkaVersion } from '../../bench/kafka.ts';
import { describeReal, thorough } from '../real.ts';

export * from '../../bench/kafka.ts';

export const describeKafka = await describeReal('tests with real Kafka brokers', kafkaMissing(), fetchKafka);

/** For tests that take minutes: all versions in CI and with FAULTS=1, and else the newest, which is said loudly. */
export const versionsFor = (what: string): readonly KafkaVersion[] => {
  if (thorough) return kafkaVersions;
  const older = kafkaVersions.slice(0, -1).join(', ');
  console.warn(`SKIPPED, ${what} on Kafka ${older}: takes minutes more. \`FAULTS=1 npm test\` runs it.`);
  return kafkaVersions.slice(-1);
};

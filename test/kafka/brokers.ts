/**
 * Tests with real brokers: `describeKafka` is vitest's `describe`, but skips where brokers cannot be had. `startKafka` is
 * in bench/kafka.ts, as benches use it too.
 *
 * @module
 */
import { fetchKafka, kafkaMissing } from '../../bench/kafka.ts';
import { describeReal } from '../real.ts';

export * from '../../bench/kafka.ts';

export const describeKafka = await describeReal('tests with real Kafka brokers', kafkaMissing(), fetchKafka);

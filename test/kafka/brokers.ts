/**
 * Tests with real brokers: `describeKafka` is vitest's `describe`, but where brokers cannot be had it skips, loudly. In CI
 * it never does. `startKafka` is in bench/kafka.ts, as benches use it too.
 *
 * @module
 */
import { describe } from 'vitest';
import { kafkaMissing } from '../../bench/kafka.ts';

export * from '../../bench/kafka.ts';

const missing = await kafkaMissing();
const skipped = missing !== undefined && process.env['CI'] === undefined;
if (skipped) console.warn(`SKIPPED, tests with real Kafka brokers: ${missing}`);

export const describeKafka = describe.skipIf(skipped);

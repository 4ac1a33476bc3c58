import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../../src/core/errors.ts';
import { kafkaError, Refused } from '../../../src/protocols/kafka/refused.ts';

describe('what a broker refuses', () => {
  it.each([
    [10, 'MR_EVENT_TOO_LARGE', false],
    [18, 'MR_EVENT_TOO_LARGE', false],
    [29, 'MR_KAFKA_NOT_AUTHORIZED', false],
    [30, 'MR_KAFKA_NOT_AUTHORIZED', false],
    [17, 'MR_KAFKA', false],
    [32, 'MR_KAFKA', false],
    [87, 'MR_KAFKA', false],
    [3, 'MR_KAFKA_UNKNOWN_TOPIC', true],
    [58, 'MR_KAFKA_LOGIN', true],
    [2, 'MR_KAFKA', true],
    [6, 'MR_KAFKA', true],
    [19, 'MR_KAFKA', true],
    [45, 'MR_KAFKA', true],
    // Of a newer broker.
    [120, 'MR_KAFKA', true],
  ])('with code %i is %s, retriable: %s', (broker, code, retriable) => {
    const refused = new Refused(broker, { type: 'NAME', message: 'In words' }, 'writing to topic t, partition 3');
    expect(refused).toMatchObject({ code, retriable, broker });
    expect(refused.message).toBe(`Kafka, writing to topic t, partition 3: In words (NAME, code ${broker}).`);
  });
});

describe('what is thrown', () => {
  it('tells what was done', () => {
    const cause = new RangeError('a field goes beyond the end');
    const ours = kafkaError(cause, 'broker b:9092, asked for Fetch');
    expect(ours).toMatchObject({ code: 'MR_KAFKA', retriable: true, cause });
    expect(ours.message).toBe('Kafka, broker b:9092, asked for Fetch: RangeError: a field goes beyond the end');
  });

  it('is left alone when it is ours', () => {
    const ours = new MillraceError('MR_KAFKA_LOGIN', 'as it is');
    expect(kafkaError(ours, 'connecting')).toBe(ours);
  });
});

import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../../../src/core/errors.ts';
import { kafkaError, refusedBy } from '../../../../src/protocols/kafka/kafkajs/errors.ts';
import { loadKafkajs } from '../../../../src/protocols/kafka/kafkajs/package.ts';

const kafkajs = loadKafkajs();

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
    // Unknown to kafkajs: a newer broker.
    [120, 'MR_KAFKA', true],
  ])('with code %i is %s, retriable: %s', (broker, code, retriable) => {
    const refused = refusedBy(kafkajs, broker, 'writing to topic t, partition 3');
    expect(refused).toMatchObject({ code, retriable, broker });
    expect(refused.message).toContain('writing to topic t, partition 3');
  });
});

describe('what kafkajs throws', () => {
  const thrown = (name: string, message: string, code?: string) => Object.assign(new Error(message), { name, code });
  it.each([
    [
      thrown('KafkaJSConnectionError', 'Connection error: connect ECONNREFUSED', 'ECONNREFUSED'),
      'MR_KAFKA_UNREACHABLE',
    ],
    [thrown('KafkaJSConnectionClosedError', 'Closed connection'), 'MR_KAFKA_UNREACHABLE'],
    [thrown('KafkaJSRequestTimeoutError', 'Request ApiVersions timed out'), 'MR_KAFKA_UNREACHABLE'],
    [thrown('KafkaJSSASLAuthenticationError', 'SASL PLAIN authentication failed'), 'MR_KAFKA_LOGIN'],
    [thrown('KafkaJSConnectionError', 'unable to verify', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'), 'MR_KAFKA_LOGIN'],
    [thrown('KafkaJSConnectionError', 'x', 'ERR_TLS_CERT_ALTNAME_INVALID'), 'MR_KAFKA_LOGIN'],
    [thrown('TypeError', 'cannot read'), 'MR_KAFKA'],
  ])('%s is %s', (error, code) => {
    const ours = kafkaError(error, 'b:9092', 'connecting');
    expect(ours).toMatchObject({ code, retriable: true, cause: error });
    expect(ours.message).toContain('b:9092');
  });

  it('is left alone when it is ours', () => {
    const ours = new MillraceError('MR_KAFKA', 'as it is');
    expect(kafkaError(ours, 'b:9092', 'connecting')).toBe(ours);
  });
});

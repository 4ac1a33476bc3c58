import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../../../src/core/errors.ts';
import { kafkajsError } from '../../../../src/protocols/kafka/kafkajs/errors.ts';

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
    const ours = kafkajsError(error, 'b:9092', 'connecting');
    expect(ours).toMatchObject({ code, retriable: true, cause: error });
    expect(ours.message).toContain('b:9092');
  });

  it('is left alone when it is ours', () => {
    const ours = new MillraceError('MR_KAFKA', 'as it is');
    expect(kafkajsError(ours, 'b:9092', 'connecting')).toBe(ours);
  });
});

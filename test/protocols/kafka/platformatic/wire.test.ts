import { AuthenticationError, NetworkError, TimeoutError } from '@platformatic/kafka';
import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../../../src/core/errors.ts';
import { platformaticError } from '../../../../src/protocols/kafka/platformatic/wire.ts';

describe('what @platformatic/kafka throws', () => {
  const because = (code: string) => ({ cause: Object.assign(new Error('why'), { code }) });
  it.each([
    [new NetworkError('Connection closed'), 'MR_KAFKA_UNREACHABLE'],
    [new NetworkError('Connection failed', because('ECONNREFUSED')), 'MR_KAFKA_UNREACHABLE'],
    [new TimeoutError('Connection timed out'), 'MR_KAFKA_UNREACHABLE'],
    [new NetworkError('Connection failed', because('DEPTH_ZERO_SELF_SIGNED_CERT')), 'MR_KAFKA_LOGIN'],
    [
      new NetworkError('Connection failed', { cause: new AuthenticationError('SASL authentication failed.') }),
      'MR_KAFKA_LOGIN',
    ],
    [new RangeError('a field goes beyond the end'), 'MR_KAFKA'],
  ])('%s is %s', (thrown, code) => {
    const ours = platformaticError(thrown, 'b:9092', 'asked for Fetch');
    expect(ours).toMatchObject({ code, retriable: true, cause: thrown });
    expect(ours.message).toContain('broker b:9092, asked for Fetch');
    expect(ours.message).toContain(thrown.message.replace(/\.$/, ''));
  });

  it('is left alone when it is ours', () => {
    const ours = new MillraceError('MR_KAFKA', 'as it is');
    expect(platformaticError(ours, 'b:9092', 'connecting')).toBe(ours);
  });
});

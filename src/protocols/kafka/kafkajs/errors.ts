/**
 * Errors of brokers and of kafkajs as ours.
 *
 * @module
 */
import { MillraceError, systemCode, toError, type ErrorCode } from '../../../core/errors.ts';
import { meanings, Refused, tlsFailed } from '../refused.ts';
import type { Package } from './package.ts';

/** What a broker has answered while `doing` something. */
export const refusedBy = (kafkajs: Pick<Package, 'createErrorFromCode'>, broker: number, doing: string): Refused =>
  new Refused(broker, kafkajs.createErrorFromCode(broker), doing);

/** What kafkajs threw while `doing` something with the broker at `address`. */
export const kafkaError = (thrown: unknown, address: string, doing: string): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const cause = toError(thrown);
  const { name, message } = cause;
  const system = systemCode(cause) ?? '';
  const failed = (code: ErrorCode, why: string, retriable?: boolean) =>
    new MillraceError(code, `Kafka broker ${address}, ${doing}: ${why}`, {
      cause,
      ...(retriable === undefined ? {} : { retriable }),
    });
  // While it logs in, kafkajs throws refusals of brokers itself.
  const refusal = 'code' in cause && typeof cause.code === 'number' ? meanings[cause.code] : undefined;
  if (name === 'KafkaJSSASLAuthenticationError' || refusal === 'MR_KAFKA_LOGIN')
    return failed('MR_KAFKA_LOGIN', `${message}.`);
  if (tlsFailed.test(system) || /secure TLS connection|certificate|wrong version number/i.test(message))
    return failed(
      'MR_KAFKA_LOGIN',
      `${message}. Does this port speak TLS, do the certificates fit, and does it ask for one of ours?`,
    );
  if (name === 'KafkaJSConnectionClosedError' || /Closed connection|closed by the server/.test(message))
    return failed(
      'MR_KAFKA_UNREACHABLE',
      'it has closed the connection. If it always does, the port may want TLS or a login.',
    );
  if (name === 'KafkaJSConnectionError') return failed('MR_KAFKA_UNREACHABLE', `${message}.`);
  if (name === 'KafkaJSRequestTimeoutError')
    return failed(
      'MR_KAFKA_UNREACHABLE',
      `${message}. If it never answers, this may not be the port of a Kafka broker.`,
    );
  if (name === 'KafkaJSServerDoesNotSupportApiKey')
    return failed('MR_KAFKA', `${message}. Kafka 2.4 or newer is needed.`, false);
  return failed('MR_KAFKA', `${name}: ${message}`);
};

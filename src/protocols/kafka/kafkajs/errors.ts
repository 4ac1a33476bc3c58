/**
 * Errors of kafkajs as ours.
 *
 * @module
 */
import { MillraceError, systemCode, toError, type ErrorCode } from '../../../core/errors.ts';
import { meanings, tlsFailed } from '../refused.ts';

/** What kafkajs threw while `doing` something with the broker at `address`. */
export const kafkajsError = (thrown: unknown, address: string, doing: string): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const cause = toError(thrown);
  const { name, message } = cause;
  const system = systemCode(cause) ?? '';
  const failed = (code: ErrorCode, why: string) =>
    new MillraceError(code, `Kafka broker ${address}, ${doing}: ${why}`, { cause });
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
  return failed('MR_KAFKA', `${name}: ${message}`);
};

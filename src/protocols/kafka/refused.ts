/**
 * What brokers refuse, and when there is no way to them, as errors of ours.
 *
 * @module
 */
import { MillraceError, toError, type ErrorCode } from '../../core/errors.ts';

/** Codes of brokers that something is done about, by the names that Kafka's documentation has for them. */
export const code = {
  OFFSET_OUT_OF_RANGE: 1,
  UNKNOWN_TOPIC_OR_PARTITION: 3,
  COORDINATOR_LOAD_IN_PROGRESS: 14,
  COORDINATOR_NOT_AVAILABLE: 15,
  NOT_COORDINATOR: 16,
  INCONSISTENT_GROUP_PROTOCOL: 23,
  UNKNOWN_MEMBER_ID: 25,
  REBALANCE_IN_PROGRESS: 27,
  OUT_OF_ORDER_SEQUENCE_NUMBER: 45,
  DUPLICATE_SEQUENCE_NUMBER: 46,
  INVALID_PRODUCER_EPOCH: 47,
  INVALID_PRODUCER_ID_MAPPING: 49,
  CONCURRENT_TRANSACTIONS: 51,
  UNKNOWN_PRODUCER_ID: 59,
  MEMBER_ID_REQUIRED: 79,
  UNSTABLE_OFFSET_COMMIT: 88,
} as const;

/** The coordinator has moved or is not ready. */
export const elsewhere: ReadonlySet<number> = new Set([
  code.COORDINATOR_LOAD_IN_PROGRESS,
  code.COORDINATOR_NOT_AVAILABLE,
  code.NOT_COORDINATOR,
]);

/** What is not plain MR_KAFKA. */
export const meanings: Readonly<Record<number, ErrorCode>> = {
  3: 'MR_KAFKA_UNKNOWN_TOPIC',
  10: 'MR_EVENT_TOO_LARGE',
  18: 'MR_EVENT_TOO_LARGE',
  29: 'MR_KAFKA_NOT_AUTHORIZED',
  30: 'MR_KAFKA_NOT_AUTHORIZED',
  31: 'MR_KAFKA_NOT_AUTHORIZED',
  33: 'MR_KAFKA_LOGIN',
  34: 'MR_KAFKA_LOGIN',
  53: 'MR_KAFKA_NOT_AUTHORIZED',
  58: 'MR_KAFKA_LOGIN',
};

/** MR_KAFKA that trying again cannot help: topic name, acks, timestamp, record format, policy, codec, record. */
const permanent: ReadonlySet<number> = new Set([17, 21, 32, 43, 44, 76, 87]);

/** An answer of a broker that is a refusal, with the name and the words that a package has for it. */
export class Refused extends MillraceError {
  readonly broker: number;

  constructor(broker: number, { type, message }: { readonly type: string; readonly message: string }, doing: string) {
    super(meanings[broker] ?? 'MR_KAFKA', `Kafka, ${doing}: ${message} (${type}, code ${broker}).`, {
      ...(permanent.has(broker) ? { retriable: false } : {}),
    });
    this.broker = broker;
  }
}

/** What was thrown while `doing` something, by whomever. */
export const kafkaError = (thrown: unknown, doing: string): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const cause = toError(thrown);
  return new MillraceError('MR_KAFKA', `Kafka, ${doing}: ${cause.name}: ${cause.message}`, { cause });
};

/** Codes of errors of Node.js when a handshake fails. */
export const tlsFailed =
  /^(?:ERR_TLS|ERR_SSL|ERR_OSSL|EPROTO|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH)/;

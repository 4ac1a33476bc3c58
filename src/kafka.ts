/**
 * `millrace/kafka`: source, channel and sink for Kafka, and the clients they may use.
 *
 * @module
 */
export type {
  Assigned,
  ConnectionSettings,
  ConsumerListener,
  ConsumerOptions,
  KafkaClient,
  KafkaConnector,
  KafkaConsumer,
  KafkaProducer,
  KafkaTransactions,
  Login,
  NewRecord,
  Position,
  ProducerOptions,
  ReadRecord,
  RecordHeaders,
  Tls,
  TopicPartition,
  TransactionalProducer,
  Write,
} from './protocols/kafka/client.ts';
export { kafkaChannel, type KafkaChannelOptions } from './operators/channels/kafka.ts';
export { kafkaSource, type KafkaSourceOptions } from './sources/kafka.ts';
export { kafkaSink, type KafkaSinkOptions } from './sinks/kafka.ts';
export { kafkajs } from './protocols/kafka/kafkajs.ts';
export { platformatic } from './protocols/kafka/platformatic.ts';

import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { lawsOnBrokers } from './laws-on-brokers.ts';

lawsOnBrokers('kafkajs', kafkajs);

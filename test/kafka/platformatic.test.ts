import { platformatic } from '../../src/protocols/kafka/platformatic.ts';
import { lawsOnBrokers } from './laws-on-brokers.ts';

lawsOnBrokers('platformatic', platformatic);

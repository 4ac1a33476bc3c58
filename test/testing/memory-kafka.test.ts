import { FakeClock, memoryKafka, recordingLog } from '../../src/testing/index.ts';
import { fakeTime, portLaws, realTime } from '../protocols/kafka/port-laws.ts';

const log = recordingLog();
const settings = { brokers: ['memory:9092'], log };

const clock = new FakeClock();
const cluster = memoryKafka({ clock });
portLaws('in memory, on a clock of the test', {
  time: fakeTime(clock),
  connect: () => cluster.connect(settings),
  createTopic: (topic, partitions) => cluster.createTopic(topic, partitions),
  addPartitions: (topic, more) => cluster.addPartitions(topic, more),
  deleteRecords: (of, before) => cluster.deleteRecords(of, before),
  down: () => cluster.down(),
  up: () => cluster.up(),
  loseAnswer: () => cluster.script('sendUnanswered'),
  expel: group => cluster.members(group).forEach(({ id }) => cluster.expelMember(id)),
});

const live = memoryKafka();
portLaws('in memory, in real time', {
  time: realTime,
  connect: () => live.connect(settings),
  createTopic: (topic, partitions) => live.createTopic(topic, partitions),
  consumer: { sessionTimeout: 300, heartbeatInterval: 50 },
});

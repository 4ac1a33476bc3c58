/** A registry of components that do nothing, but have options of every kind. */
import { EMPTY } from 'rxjs';
import { z } from 'zod';
import { createChannel } from '../../src/core/channel.ts';
import { describe } from '../../src/core/component.ts';
import { choice, code, flag, int, list, map, path, port, secret, text } from '../../src/core/options.ts';
import { createSink } from '../../src/core/sink.ts';
import type { Registry } from '../../src/agent/registry.ts';

const netcat = describe(
  {
    type: 'netcat',
    className: 'org.apache.flume.source.NetcatSource',
    summary: 'Lines over TCP.',
    options: z.object({
      bind: text('Address to listen on.', { default: '127.0.0.1' }),
      port: port('Port to listen on.'),
      maxLineLength: int('Longest line.', { flume: 'max-line-length', default: 512, min: 1, unit: 'characters' }),
      ackEveryEvent: flag('Answers each line.', { flume: 'ack-every-event', default: true }),
      encoding: choice(['utf-8', 'utf-16'])('Character set.', { default: 'utf-8' }),
      password: secret('Opens the key store.', { flume: 'keystore-password', optional: true }),
      size: int('Checked against the channel by nobody.', { optional: true, min: 1, max: 10 }),
      listening: code<() => void>()('Called when it listens.', { optional: true }),
    }),
  },
  () => EMPTY,
);

const http = describe(
  {
    type: 'http',
    className: 'org.apache.flume.source.http.HTTPSource',
    summary: 'Events by POST.',
    options: z.object({
      bind: text('Address to listen on.', { default: '127.0.0.1', agentDefault: '0.0.0.0' }),
      port: port('Port to listen on.'),
      ssl: flag('Whether to speak TLS.', { formerly: 'enableSSL', default: false }),
    }),
  },
  () => EMPTY,
);

const taildir = describe(
  {
    type: 'taildir',
    className: 'org.apache.flume.source.taildir.TaildirSource',
    summary: 'Lines of files that grow.',
    batchSizeOption: 'batchSize',
    options: z.object({
      filegroups: map('Group → path.', { flume: 'filegroups.*', listedIn: 'filegroups' }),
      headers: map('Group and header → value.', { default: {} }),
      positionFile: path('Where positions are kept.', { default: '~/.flume/taildir_position.json', exclusive: true }),
      batchSize: int('Events per delivery.', { default: 100, min: 1, unit: 'events' }),
    }),
  },
  () => EMPTY,
);

const memory = Object.assign(
  describe(
    {
      type: 'memory',
      className: 'org.apache.flume.channel.MemoryChannel',
      summary: 'Holds events in memory.',
      options: z.object({
        capacity: int('The most events it holds.', { default: 100, min: 1, unit: 'events' }),
        transactionCapacity: int('The most events of one put.', { optional: true, agentDefault: 100, min: 1 }),
        keepAlive: int('How long a put waits.', { flume: 'keep-alive', optional: true, agentDefault: 3, unit: 's' }),
      }),
    },
    () => undefined,
  ),
  {
    create: () =>
      createChannel({
        capacity: { events: 1, bytes: 1 },
        events: 0,
        bytes: 0,
        put: () => undefined,
        take: () => undefined,
        giveBack: () => undefined,
        done: () => undefined,
      }),
  },
);

const nullSink = describe(
  {
    type: 'null',
    className: 'org.apache.flume.sink.NullSink',
    summary: 'Discards events.',
    batchSizeOption: 'batchSize',
    options: z.object({ batchSize: int('Events per write.', { default: 100, min: 1, unit: 'events' }) }),
  },
  () => createSink(() => undefined),
);

const fileRoll = describe(
  {
    type: 'file_roll',
    className: 'org.apache.flume.sink.RollingFileSink',
    summary: 'Writes files.',
    batchSizeOption: 'batchSize',
    options: z
      .object({
        directory: path('Where.', { flume: 'sink.directory' }),
        batchSize: int('Events per write.', { flume: 'sink.batchSize', default: 100, min: 1 }),
        serializer: choice(['TEXT', 'HEADER_AND_TEXT'], {}, ['AVRO_EVENT', 'org.x.Avro$Builder'])('How.', {
          flume: 'sink.serializer',
          default: 'TEXT',
        }),
        serializerOptions: map('For the serializer.', { flume: 'sink.serializer.*', default: {} }),
        hosts: list('Names.', { default: [] }),
      })
      .refine(({ directory }) => directory !== '/', { path: ['directory'], message: 'not the root, please' }),
  },
  () => createSink(() => undefined),
);

export const fakes: Registry = {
  source: {
    netcat: async () => netcat,
    http: async () => http,
    taildir: async () => taildir,
    'com.example.Broken': () => Promise.reject(new Error('package kafkajs is not installed')),
  },
  channel: { memory: async () => memory },
  sink: { null: async () => nullSink, file_roll: async () => fileRoll },
};

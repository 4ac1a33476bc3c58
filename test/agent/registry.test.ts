import { describe, expect, test } from 'vitest';
import { fieldsOf } from '../../src/agent/component-options.ts';
import { parseProperties } from '../../src/agent/properties.ts';
import { builtIn, findType, flumeNames, reportType, type NamedKind, type Table } from '../../src/agent/registry.ts';
import { Problems } from '../../src/agent/report.ts';
import type { ComponentInfo } from '../../src/core/component.ts';
import { fieldInfo } from '../../src/core/options.ts';

const kinds = ['source', 'channel', 'sink'] as const;
const all = kinds.flatMap(kind =>
  Object.entries(builtIn[kind] as Table<ComponentInfo>).map(([key, load]) => ({ kind, key, load })),
);

describe.each(all)('the $kind $key', ({ kind, key, load }) => {
  test('says of itself what the registry says of it', async () => {
    const { type, className } = await load();
    expect(type.toLowerCase()).toBe(key);
    expect(className).toBe((flumeNames[kind] as Record<string, string>)[key]);
  });

  test('has a sentence for itself and for each option', async () => {
    const { summary, options } = await load();
    expect(summary).toMatch(/^[A-Z0-9].*\.$/);
    for (const [name, schema] of Object.entries(options.shape)) {
      expect(fieldInfo.get(schema as never)?.summary, name).toMatch(/^[A-Z0-9`].*\.$/);
    }
  });

  test('has keys that do not collide', async () => {
    const component = await load();
    const keys = fieldsOf(component).map(field => field.key);
    expect(new Set(keys).size).toBe(keys.length);
    const { batchSizeOption } = component;
    if (batchSizeOption !== undefined) expect(Object.keys(component.options.shape)).toContain(batchSizeOption);
  });
});

describe('finding a type', () => {
  test.each<[NamedKind, string, string | undefined]>([
    ['source', 'netcat', 'netcat'],
    ['source', 'TAILDIR', 'taildir'],
    ['source', 'org.apache.flume.source.taildir.TaildirSource', 'taildir'],
    ['source', 'org.apache.flume.source.kafka.KafkaSource', 'kafka'],
    ['source', 'org.apache.flume.source.taildir.taildirsource', undefined],
    ['source', 'Kafka', 'kafka'],
    ['sink', 'File_Roll', 'file_roll'],
    ['sink', 'null', 'null'],
    ['channel', 'spillableMemory', 'spillablememory'],
    ['channel selector', 'MULTIPLEXING', 'multiplexing'],
    ['sink processor', 'org.apache.flume.sink.FailoverSinkProcessor', 'failover'],
    ['interceptor', 'org.apache.flume.interceptor.HostInterceptor$Builder', 'host'],
    ['config filter', 'hadoop', 'hadoop'],
    ['source', 'constructor', undefined],
    ['source', '', undefined],
  ])('%s %s', (kind, type, found) => {
    expect(findType(kind, type)).toBe(found);
  });

  test('all aliases and classes of Flume are known', () => {
    const counts = Object.fromEntries(
      Object.entries(flumeNames).map(([kind, names]) => [kind, Object.keys(names).length]),
    );
    expect(counts).toEqual({
      source: 20,
      channel: 6,
      sink: 17,
      'channel selector': 3,
      'sink processor': 3,
      interceptor: 9,
      'config filter': 3,
    });
    for (const [kind, names] of Object.entries(flumeNames)) {
      for (const [name, className] of Object.entries(names)) {
        expect(className).toMatch(/^org\.apache\.flume\.[\w.$]+$/);
        expect(findType(kind as NamedKind, className)).toBe(name);
      }
    }
  });
});

describe('a type that cannot be used', () => {
  const reported = (kind: NamedKind, type: string) => {
    const problems = new Problems();
    const entry = parseProperties(Buffer.from(`x.type = ${type}`), 'f', problems).get('x.type')!;
    reportType(kind, entry, problems, ['netcat', 'seq']);
    return problems.all[0];
  };

  test.each<[NamedKind, string, object]>([
    [
      'source',
      'avro',
      { code: 'MR_NOT_BUILT_IN', message: 'the source avro (org.apache.flume.source.AvroSource) is not built in yet' },
    ],
    [
      'source',
      'org.apache.flume.source.AvroSource',
      { code: 'MR_NOT_BUILT_IN', message: 'the source org.apache.flume.source.AvroSource is not built in yet' },
    ],
    [
      'channel',
      'org.apache.flume.channel.PseudoTxnMemoryChannel',
      { message: 'the channel org.apache.flume.channel.PseudoTxnMemoryChannel is not built in yet' },
    ],
    ['source', 'spooldri', { code: 'MR_CONFIG', suggestion: 'spooldir' }],
    ['source', 'stress', { suggestion: 'org.apache.flume.source.StressSource' }],
    ['source', 'NetcatSource', { suggestion: 'netcat' }],
    ['source', 'org.apache.flume.source.NetcatSorce', { suggestion: 'org.apache.flume.source.NetcatSource' }],
    ['source', 'com.acme.Source', { code: 'MR_NOT_BUILT_IN', message: 'the source com.acme.Source is a Java class' }],
    ['source', 'org.apache.flume.nothing.Like', { code: 'MR_CONFIG', expected: 'one of netcat, seq' }],
    ['source', 'wombat', { code: 'MR_CONFIG', message: 'there is no source wombat' }],
  ])('%s %s', (kind, type, expected) => {
    expect(reported(kind, type)).toMatchObject({ severity: 'error', ...expected });
  });
});

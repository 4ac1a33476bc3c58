import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { componentHelp, componentList, referencePages } from '../../src/agent/help.ts';
import { check } from '../../src/agent/plan.ts';
import { builtIn } from '../../src/agent/registry.ts';
import { errorCodes } from '../../src/core/errors.ts';
import { fakes } from './fakes.ts';

const { netcat, http, taildir } = fakes.source;
const registry = { ...fakes, source: { netcat: netcat!, http: http!, taildir: taildir! } };

describe('millrace list', () => {
  test('has what is built in, and what is not', async () => {
    const text = await componentList(registry);
    expect(text).toContain(
      'Sources\n  netcat   Lines over TCP.\n  http     Events by POST.\n  taildir  Lines of files that grow.\n',
    );
    expect(text).toContain('Channels\n  memory  Holds events in memory.\n');
    expect(text).toMatch(/sources: avro exec [^]*TwitterSource/);
    expect(text.slice(text.indexOf('Not built in'))).not.toMatch(/\bnetcat\b|\btaildir\b|\bmemory\b|\bfile_roll\b/);
    expect(Math.max(...text.split('\n').map(line => line.length))).toBeLessThanOrEqual(100);
  });
});

describe('millrace help', () => {
  test('shows the fewest lines that configure it, and every option', async () => {
    expect(await componentHelp('netcat', registry)).toBe(`netcat, a source (org.apache.flume.source.NetcatSource)
Lines over TCP.

  a1.sources.r1.type = netcat
  a1.sources.r1.channels = c1
  a1.sources.r1.port = 44444

Options
  bind               text; default 127.0.0.1
                     Address to listen on.
  port               a port, 0–65535; required
                     Port to listen on.
  max-line-length    a whole number of at least 1, in characters; default 512
                     Longest line.
  ack-every-event    true or false; default true
                     Answers each line.
  encoding           one of utf-8, utf-16; default utf-8
                     Character set.
  keystore-password  text
                     Opens the key store.
  size               a whole number from 1 to 10
                     Checked against the channel by nobody.

Only in code
  listening          Called when it listens.
`);
  });

  test('finds it by alias in any case and by class name', async () => {
    const text = await componentHelp('memory', registry);
    expect(await componentHelp('Memory', registry)).toBe(text);
    expect(await componentHelp('org.apache.flume.channel.MemoryChannel', registry)).toBe(text);
  });

  test('a default that differs in code says so', async () => {
    expect(await componentHelp('http', registry)).toContain('bind  text; default 0.0.0.0 (in code 127.0.0.1)\n');
  });

  test('lists named by another key come with it', async () => {
    expect(await componentHelp('taildir', registry)).toContain(
      '  a1.sources.r1.filegroups = x\n  a1.sources.r1.filegroups.x = value\n',
    );
  });

  test('says what is not there', async () => {
    await expect(componentHelp('hdfs', registry)).rejects.toMatchObject({ code: 'MR_NOT_BUILT_IN' });
    await expect(componentHelp('netact', registry)).rejects.toMatchObject({
      code: 'MR_CONFIG',
      message: 'there is no component netact. Did you mean netcat? `millrace list` shows what there is.',
    });
    await expect(componentHelp('constructor', registry)).rejects.toMatchObject({ code: 'MR_CONFIG' });
  });
});

const examples = [...(await referencePages(builtIn))].flatMap(([path, text]) => {
  const lines = /```properties\n([^]*?)```/.exec(text)?.[1];
  return lines === undefined ? [] : [[path, lines] as const];
});
describe('reference pages', () => {
  test('one per component, the errors, and a list', async () => {
    const pages = await referencePages(registry);
    expect([...pages.keys()]).toEqual([
      'docs/reference/source-netcat.md',
      'docs/reference/source-http.md',
      'docs/reference/source-taildir.md',
      'docs/reference/channel-memory.md',
      'docs/reference/sink-null.md',
      'docs/reference/sink-file_roll.md',
      'docs/reference/errors.md',
      'docs/reference/README.md',
    ]);
    for (const name of pages.keys()) {
      if (!name.endsWith('README.md'))
        expect(pages.get('docs/reference/README.md')).toContain(`(${name.split('/')[2]})`);
    }
  });

  test('a page has a row per option, with its key and its name in code', async () => {
    const page = (await referencePages(registry)).get('docs/reference/source-netcat.md')!;
    expect(page).toContain(
      '| `max-line-length` | `maxLineLength` | a whole number of at least 1, in characters | 512 |',
    );
    expect(page).toContain('| `port` | `port` | a port, 0–65535 | required | Port to listen on. |');
    expect(page).toContain('| `listening` | Called when it listens. |');
  });

  test.each(examples)('the example in %s is a configuration without errors', async (path, lines) => {
    const others = [
      'a1.sources = r1\na1.channels = c1\na1.sinks = k1\n',
      path.includes('source-') ? '' : 'a1.sources.r1.type = seq\na1.sources.r1.channels = c1\n',
      // Flume's channel is smaller than a batch of its Kafka source, and Flume refuses the two as well.
      path.includes('channel-')
        ? ''
        : 'a1.channels.c1.type = memory\na1.channels.c1.capacity = 1000\na1.channels.c1.transactionCapacity = 1000\n',
      path.includes('sink-') ? '' : 'a1.sinks.k1.type = null\na1.sinks.k1.channel = c1\n',
    ];
    const file = join(await mkdtemp(join(tmpdir(), 'millrace-')), 'flume.conf');
    await writeFile(file, others.join('') + lines);
    const lookups = { env: {}, system: {} };
    const { plan, problems } = await check({ files: [file], agent: 'a1', registry: builtIn, lookups });
    expect(problems.filter(p => p.severity === 'error')).toEqual([]);
    expect(plan).toBeDefined();
  });

  test('every error code has its row', async () => {
    const page = (await referencePages(registry)).get('docs/reference/errors.md')!;
    const rows = [...page.matchAll(/^\| `(MR_\w+)`/gm)].map(match => match[1]);
    expect(rows).toEqual(Object.keys(errorCodes));
  });
});

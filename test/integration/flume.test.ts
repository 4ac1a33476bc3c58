import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { flumeClasspath, flumeMissing } from '../../bench/flume.ts';
import { freePort, type Running } from '../../bench/processes.ts';
import { built } from '../built.ts';
import { describeReal } from '../real.ts';
import { both, configuration, folder, launch, listens, removeFolder, stopAll, until, type Agent } from './agents.ts';

// The same configurations by real Flume 1.11 and by millrace, side by side.
const describeFlume = await describeReal('comparisons with real Flume', flumeMissing(), flumeClasspath);

/** Asks the same of both and returns both answers. */
const ask = async <A>(
  conf: (port: number) => string,
  question: (port: number, agent: Running) => Promise<A>,
): Promise<Record<Agent, A>> => {
  const answers = await Promise.all(
    both.map(async agent => {
      const port = await freePort();
      const one = await launch(agent, conf(port));
      await listens(port);
      return [agent, await question(port, one)] as const;
    }),
  );
  return Object.fromEntries(answers) as Record<Agent, A>;
};

const wiring = (source: string, { channel = '', sink = 'type = null' } = {}): string =>
  configuration({
    'sources r1': `${source}\nchannels = c1`,
    'channels c1': `type = memory\n${channel}`,
    ...(sink !== '' && { 'sinks k1': `${sink}\nchannel = c1` }),
  });

describeFlume('beside real Flume', () => {
  beforeAll(built);
  afterEach(stopAll);
  afterAll(removeFolder);

  it('the HTTP source answers with the same status', async () => {
    const cases: readonly (readonly [what: string, method: string, body: string | Buffer, type?: string])[] = [
      ['one event', 'POST', '[{"headers": {"k": "v"}, "body": "hello"}]'],
      ['no events', 'POST', '[]'],
      ['no headers', 'POST', '[{"body": "x"}]'],
      ['no body', 'POST', '[{"headers": {"a": "b"}}]'],
      ['null body', 'POST', '[{"body": null}]'],
      ['a number', 'POST', '[{"headers": {"a": 1}, "body": 5}]'],
      ['unknown members', 'POST', '[{"body": "x", "more": {"a": [1, 2]}}]'],
      ['UTF-16', 'POST', Buffer.from('\ufeff[{"body": "x"}]', 'utf16le').swap16(), 'application/json; charset=UTF-16'],
      ['broken JSON', 'POST', '[{"body": '],
      ['an object', 'POST', '{"body": "x"}'],
      ['plain text', 'POST', 'hello'],
      ['nothing at all', 'POST', ''],
      ['latin-1', 'POST', '[{"body": "x"}]', 'application/json; charset=ISO-8859-1'],
      ['GET', 'GET', ''],
      ['HEAD', 'HEAD', ''],
      ['PUT', 'PUT', '[]'],
      ['DELETE', 'DELETE', ''],
      ['OPTIONS', 'OPTIONS', ''],
      ['TRACE', 'TRACE', ''],
      ['more than a transaction', 'POST', JSON.stringify(Array.from({ length: 11 }, () => ({ body: 'x' })))],
    ];
    const answers = await ask(
      port =>
        wiring(`type = http\nbind = 127.0.0.1\nport = ${port}`, {
          channel: 'capacity = 100\ntransactionCapacity = 10',
          sink: 'type = null\nbatchSize = 10',
        }),
      async port => {
        const statuses: Record<string, number> = {};
        for (const [what, method, body, type = 'application/json'] of cases) {
          const sent = request({
            port,
            host: '127.0.0.1',
            method,
            agent: false,
            headers: { 'content-type': type, 'content-length': body.length },
          });
          sent.end(body);
          const [response] = (await once(sent, 'response')) as [{ statusCode: number; resume(): void }];
          response.resume();
          statuses[what] = response.statusCode;
        }
        return statuses;
      },
    );
    expect(answers.millrace).toEqual(answers.flume);
    expect(new Set(Object.values(answers.flume)).size).toBeGreaterThan(4);
  });

  it('the HTTP source answers 503 while its channel is full', async () => {
    const { flume: real, millrace: ours } = await ask(
      port =>
        wiring(`type = http\nbind = 127.0.0.1\nport = ${port}`, {
          channel: 'capacity = 5\ntransactionCapacity = 5\nkeep-alive = 0',
          sink: '',
        }),
      async port => {
        const post = async (events: number) =>
          (
            await fetch(`http://127.0.0.1:${port}`, {
              method: 'POST',
              body: JSON.stringify(Array.from({ length: events }, () => ({ body: 'x' }))),
            })
          ).status;
        return [await post(3), await post(3), await post(2), await post(1)];
      },
    );
    expect(real).toEqual([200, 503, 200, 503]);
    expect(ours).toEqual(real);
  });

  it('the netcat source answers with the same words', async () => {
    const { flume: real, millrace: ours } = await ask(
      port =>
        wiring(`type = netcat\nbind = 127.0.0.1\nport = ${port}\nmax-line-length = 20`, {
          channel: 'capacity = 5\ntransactionCapacity = 5\nkeep-alive = 0',
          sink: '',
        }),
      async port => {
        const say = async (text: string) => {
          const socket = connect(port, '127.0.0.1');
          let answer = '';
          socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
          socket.write(text);
          await until(
            'the answer is whole',
            () => socket.destroyed || answer.split('\n').length > text.split('\n').length - 1,
          );
          socket.destroy();
          return answer;
        };
        return [
          await say('one\n\n'),
          await say('ünï\r\n'),
          await say(`${'x'.repeat(30)}\n`),
          await say('four\nfive\nsix\n'),
        ];
      },
    );
    const start = (answer: string) => answer.replace(/(?<=acquired)[^\n]*/, '');
    expect(real.slice(0, 3)).toEqual([
      'OK\nOK\n',
      'OK\n',
      'FAILED: Event exceeds the maximum length (20 chars, including newline)\n',
    ]);
    expect(ours.map(start)).toEqual(real.map(start));
    expect(real[3]).toMatch(/^OK\nOK\nFAILED: /);
  });

  it('the logger sink prints the same', async () => {
    const lines = ['hello', '', 'exactly sixteen!', 'rather more than sixteen bytes', '\ttab\r', 'grüße'];
    const { flume: real, millrace: ours } = await ask(
      port => wiring(`type = netcat\nbind = 127.0.0.1\nport = ${port}`, { sink: 'type = logger' }),
      async (port, agent) => {
        const socket = connect(port, '127.0.0.1');
        socket.write(lines.join('\n') + '\n');
        const printed = () => Array.from(agent.output().matchAll(/Event: \{ headers:.*\}$/gm), ([text]) => text);
        await until('all is printed', () => printed().length === lines.length);
        socket.destroy();
        return printed();
      },
    );
    expect(ours).toEqual(real);
  });

  it('file_roll writes the same bytes, headers included', async () => {
    const events = [
      { headers: { b: '2', a: '1' }, body: 'one' },
      { headers: {}, body: '' },
      { headers: { k: 'v' }, body: 'grüße' },
    ];
    const { flume: real, millrace: ours } = await (async () => {
      const directories = new Map<number, string>();
      return ask(
        port => {
          const directory = mkdtempSync(join(folder, 'rolled-'));
          directories.set(port, directory);
          return wiring(`type = http\nbind = 127.0.0.1\nport = ${port}`, {
            sink: `type = file_roll\nsink.directory = ${directory}\nsink.serializer = HEADER_AND_TEXT\nsink.rollInterval = 0`,
          });
        },
        async port => {
          const directory = directories.get(port)!;
          for (const event of events)
            await fetch(`http://127.0.0.1:${port}`, { method: 'POST', body: JSON.stringify([event]) });
          const text = () =>
            readdirSync(directory)
              .map(name => readFileSync(join(directory, name), 'utf8'))
              .join('');
          await until('all is written', () => text().split('\n').length > events.length);
          expect(readdirSync(directory)).toEqual([expect.stringMatching(/^\d{13}-1$/)]);
          return text();
        },
      );
    })();
    // Java's maps are in no order: the same pairs, then.
    const sorted = (text: string) =>
      text.replace(/\{(.*?)\}/g, (_, pairs: string) => `{${pairs.split(', ').sort().join(', ')}}`);
    expect(sorted(ours)).toBe(sorted(real));
  });

  it.each([
    ['flume', 'millrace'],
    ['millrace', 'flume'],
  ] as const)(
    '%s hands its tailed file and position file over to %s: nothing lost, nothing twice',
    async (first, second) => {
      const place = mkdtempSync(join(folder, 'tail-'));
      const [log, positions, out] = [join(place, 'app.log'), join(place, 'positions.json'), join(place, 'out')];
      mkdirSync(out);
      const conf = wiring(
        `type = TAILDIR\nfilegroups = g\nfilegroups.g = ${place}/.*log\npositionFile = ${positions}\nwritePosInterval = 100`,
        { sink: `type = file_roll\nsink.directory = ${out}\nsink.rollInterval = 0` },
      );
      const written = () =>
        readdirSync(out)
          .sort()
          .flatMap(name => readFileSync(join(out, name), 'utf8').split('\n').slice(0, -1));
      const lines = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `line ${from + i} grüße`);
      appendFileSync(log, lines(0, 100).join('\n') + '\n');
      const one = await launch(first, conf);
      await until(`${first} has written all`, () => written().length === 100);
      // Real Flume writes positions five seconds after its start at the earliest, or when it stops.
      await one.stop();
      appendFileSync(log, lines(100, 150).join('\n') + '\n');
      await launch(second, conf);
      await until(`${second} has written the rest`, () => written().length >= 150);
      appendFileSync(log, 'last\n');
      await until('the last line is there', () => written().includes('last'));
      expect(written()).toEqual([...lines(0, 150), 'last']);
    },
    120_000,
  );

  /** What both make of the same files: the lines that come out, and what is in the directory then. */
  const spool = (
    options: string,
    files: readonly (readonly [name: string, content: string | Buffer])[],
    done: (lines: readonly string[], left: readonly string[], output: string) => boolean,
  ) => {
    const places = new Map<number, { readonly from: string; readonly to: string }>();
    return ask(
      port => {
        const place = mkdtempSync(join(folder, 'spool-'));
        const [from, to] = [join(place, 'from'), join(place, 'to')];
        mkdirSync(to);
        for (const [i, [name, content]] of files.entries()) {
          mkdirSync(dirname(join(from, name)), { recursive: true });
          writeFileSync(join(from, name), content);
          utimesSync(join(from, name), 1_600_000_000 + i, 1_600_000_000 + i);
        }
        places.set(port, { from, to });
        // The port is only for `ask` to see that the agent runs.
        return (
          wiring(`type = spooldir\nspoolDir = ${from}\n${options}`, {
            sink: `type = file_roll\nsink.directory = ${to}\nsink.rollInterval = 0\nsink.serializer = HEADER_AND_TEXT`,
          }) +
          `a1.sources = r1 r2\na1.sources.r2.type = netcat\na1.sources.r2.bind = 127.0.0.1\na1.sources.r2.port = ${port}\na1.sources.r2.channels = c1\n`
        );
      },
      async (port, agent) => {
        const { from, to } = places.get(port)!;
        const lines = () =>
          readdirSync(to)
            .flatMap(name => readFileSync(join(to, name), 'latin1').split('\n').slice(0, -1))
            .map(line => line.replace(/^\{(.*?)\}/, (_, pairs: string) => `{${pairs.split(', ').sort().join(', ')}}`))
            .map(line => line.replaceAll(from, '.'));
        const left = () =>
          readdirSync(from, { recursive: true, encoding: 'utf8' })
            .filter(name => !/positions\.json|main\.meta/.test(name))
            .sort();
        await until('the files are done with', () => done(lines(), left(), agent.output()));
        return { lines: lines(), left: left() };
      },
    );
  };

  const spooled = [
    ['a.log', 'one\n\ntwo\r\nlast without newline'],
    ['empty.log', ''],
    ['b.log', 'grüße\n\tb\0ytes\n'],
    ['bad.log', 'ignored\n'],
    ['c.txt', 'not included\n'],
    ['sub/d.log', 'below\n'],
    ['done.log.COMPLETED', 'done before\n'],
    ['z.log', 'the end\n'],
  ] as const;

  it.each([
    ['renames', ''],
    ['deletes', 'deletePolicy = immediate'],
    ['marks', 'trackingPolicy = tracker_dir'],
    ['reads the youngest first and', 'consumeOrder = youngest'],
  ])(
    'the spooldir source delivers and %s the same files',
    async (_, options) => {
      const { flume: real, millrace: ours } = await spool(
        `includePattern = .*\\\\.log\nignorePattern = bad.*\nrecursiveDirectorySearch = true\nfileHeader = true\nbasenameHeader = true\n${options}`,
        spooled,
        (lines, left) =>
          lines.length === 9 &&
          (options.startsWith('delete')
            ? !left.includes('sub/d.log') && !left.includes('z.log') && !left.includes('a.log')
            : ['a.log', 'z.log', 'sub/d.log'].every(name => left.some(path => path.endsWith(`${name}.COMPLETED`)))),
      );
      expect(ours).toEqual(real);
    },
    120_000,
  );

  it('the spooldir source goes on in the middle of a file where Flume was', async () => {
    const place = mkdtempSync(join(folder, 'spool-'));
    const [from, to] = [join(place, 'from'), join(place, 'to')];
    mkdirSync(from);
    mkdirSync(to);
    const lines = Array.from({ length: 100 }, (_, i) => `line ${i} grüße`);
    writeFileSync(join(from, 'a'), lines.join('\n') + '\n');
    utimesSync(join(from, 'a'), 1_600_000_000, 1_600_000_000);
    const source = `type = spooldir\nspoolDir = ${from}\nbatchSize = 5`;
    // Flume's channel takes ten events, and nobody takes them from there.
    const channel = 'capacity = 10\ntransactionCapacity = 5\nkeep-alive = 0';
    const flume = await launch('flume', wiring(source, { channel, sink: '' }));
    await until('its channel is full', () =>
      /channel is full|Channel full|ChannelFull|cannot write/i.test(flume.output()),
    );
    await flume.stop();
    const sink = `type = file_roll\nsink.directory = ${to}\nsink.rollInterval = 0`;
    await launch('millrace', wiring(source, { sink }));
    await until('the file is completed', () => readdirSync(from).includes('a.COMPLETED'));
    const written = readdirSync(to).flatMap(name => readFileSync(join(to, name), 'utf8').split('\n').slice(0, -1));
    expect(written).toEqual(lines.slice(10));
  });

  it('a completed name that is taken stops the spooldir source of Flume; here the other files go on', async () => {
    const { flume: real, millrace: ours } = await spool(
      '',
      [
        ['a', 'again\n'],
        ['a.COMPLETED', 'before\n'],
        ['b', 'other\n'],
      ],
      (_, left, output) => left.includes('b.COMPLETED') || /FATAL: Spool Directory source/.test(output),
    );
    expect(real.left).toContain('b');
    expect(ours).toEqual({ lines: ['{} again', '{} other'], left: ['.flumespool', 'a', 'a.COMPLETED', 'b.COMPLETED'] });
  });
});

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../bench/processes.ts';
import { built } from '../built.ts';

const root = resolve(import.meta.dirname, '../..');
beforeAll(built);
const folder = mkdtempSync(join(tmpdir(), 'cli-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** The command line as a user starts it. */
const millrace = (
  words: readonly string[],
  { cwd = root, env = {} }: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
) => {
  const child = spawn(process.execPath, [join(root, 'dist/cli.js'), ...words], {
    cwd,
    env: { ...process.env, ...env },
  });
  children.push(child);
  let [out, err] = ['', ''];
  let changed = () => undefined as void;
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
    changed();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk.toString();
    changed();
  });
  const exit = once(child, 'close').then(([code]) => {
    changed();
    return code as number | null;
  });
  const until = async (holds: () => boolean) => {
    while (!holds()) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`ended with ${child.exitCode ?? child.signalCode}:\n${out}\n${err}`);
      await new Promise<void>(resolve => (changed = resolve));
    }
  };
  return {
    child,
    exit,
    out: () => out,
    err: () => err,
    prints: (text: string) => until(() => out.includes(text)),
    logs: (text: string) => until(() => err.includes(text)),
  };
};

/** Sends lines and resolves with all of the answer. */
const netcat = async (port: number, text: string): Promise<string> => {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
  socket.end(text);
  await once(socket, 'close');
  return answer;
};

/** The quickstart in a folder of its own, on free ports. */
const quickstart = async () => {
  const cwd = mkdtempSync(join(folder, 'quick-'));
  cpSync(join(root, 'examples/quickstart'), join(cwd, 'examples/quickstart'), { recursive: true });
  rmSync(join(cwd, 'examples/quickstart/data'), { recursive: true, force: true });
  const [netcatPort, httpPort] = [await freePort(), await freePort()];
  const file = join(cwd, 'examples/quickstart/flume.conf');
  const text = readFileSync(file, 'utf8');
  writeFileSync(
    file,
    text.replace('port = 44444', `port = ${netcatPort}`).replace('port = 44445', `port = ${httpPort}`),
  );
  return {
    cwd,
    netcatPort,
    httpPort,
    words: ['agent', '--name', 'a1', '--conf-file', 'examples/quickstart/flume.conf'],
  };
};

describe('npm start', () => {
  it('shows events at once, says what to try, and all three ways in work; Ctrl-C drains and exits 0', async () => {
    const { start } = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } })
      .scripts;
    const { cwd, netcatPort, httpPort, words } = await quickstart();
    expect(start).toBe(`node dist/cli.js ${words.join(' ')}`);
    const agent = millrace(words, { cwd });
    await agent.prints('Now try, in another terminal');
    await agent.prints('this is the first line of examples/quickstart/logs/app.log');
    await agent.logs(`listens on 127.0.0.1:${netcatPort}`);
    expect(await netcat(netcatPort, 'hello from netcat\n')).toBe('OK\n');
    await agent.prints('hello from netcat');
    const posted = await fetch(`http://localhost:${httpPort}`, {
      method: 'POST',
      body: '[{"headers": {"from": "curl"}, "body": "hello from http"}]',
    });
    expect(posted.status).toBe(200);
    await agent.prints('{from=curl} hello from http');
    appendFileSync(join(cwd, 'examples/quickstart/logs/app.log'), 'a line appended\n');
    await agent.prints('a line appended');
    agent.child.kill('SIGINT');
    expect(await agent.exit).toBe(0);
    expect(agent.err()).toContain('has stopped');
    expect(agent.err()).not.toMatch(/\n\s+at /);

    // A second start goes on where the first one ended.
    const again = millrace(words, { cwd });
    await again.prints('Now try, in another terminal');
    appendFileSync(join(cwd, 'examples/quickstart/logs/app.log'), 'after the restart\n');
    await again.prints('after the restart');
    expect(again.out()).not.toContain('a line appended');
    again.child.kill('SIGTERM');
    expect(await again.exit).toBe(0);
  });

  it('says which port is in use and how to change it, without a stack trace, and runs on', async () => {
    const { cwd, netcatPort, words } = await quickstart();
    const taken = createServer();
    await once(taken.listen(netcatPort, '127.0.0.1'), 'listening');
    const agent = millrace(words, { cwd });
    await agent.logs('is in use');
    expect(agent.err()).toMatch(
      new RegExp(
        `netcat does not run: port ${netcatPort} on [^ ]+ is in use\\. Stop the process that listens there, or set another`,
      ),
    );
    expect(agent.err()).not.toMatch(/\n\s+at /);
    await agent.prints('Now try, in another terminal');
    taken.close();
    agent.child.kill('SIGINT');
    expect(await agent.exit).toBe(0);
  });
});

const conf = (text: string): string => {
  const file = join(mkdtempSync(join(folder, 'conf-')), 'flume.conf');
  writeFileSync(file, text);
  return file;
};

const stuck = `a1.sources = r1\na1.channels = c1\na1.sources.r1.type = seq\na1.sources.r1.channels = c1\na1.channels.c1.type = memory\n`;

describe('agent', () => {
  it('does not start with a wrong configuration, and says everything that is wrong', async () => {
    const agent = millrace(['agent', '-n', 'a1', '-f', join(root, 'examples/mistake.conf')]);
    expect(await agent.exit).toBe(1);
    expect(agent.err()).toContain('3 errors, 1 warning');
  });

  it("takes the arguments of Flume's launcher", async () => {
    const port = await freePort();
    const file = conf(
      `a1.sources = r1\na1.channels = c1\na1.sinks = k1\na1.sources.r1.type = netcat\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = \${sys:port}\na1.sources.r1.channels = c1\na1.channels.c1.type = memory\na1.sinks.k1.type = logger\na1.sinks.k1.channel = c1\n`,
    );
    const monitoring = await freePort();
    const agent = millrace([
      'agent',
      '--conf',
      '/etc',
      '-f',
      file,
      '-n',
      'a1',
      `-Dport=${port}`,
      '-Xmx100m',
      '-Dflume.monitoring.type=http',
      `-Dflume.monitoring.port=${monitoring}`,
    ]);
    await agent.logs('listens on');
    expect(await netcat(port, 'Hello world!\r\n')).toBe('OK\n');
    await agent.prints('Event: { headers:{} body: 48 65 6C 6C 6F 20 77 6F 72 6C 64 21 0D          Hello world!. }');
    const metrics = (await (await fetch(`http://127.0.0.1:${monitoring}/metrics`)).json()) as Record<
      string,
      Record<string, string>
    >;
    expect(metrics['CHANNEL.c1']).toMatchObject({
      EventPutSuccessCount: '1',
      EventTakeSuccessCount: '1',
      ChannelSize: '0',
      Type: 'CHANNEL',
    });
    expect(metrics['FLOW.c1']).toMatchObject({ accepted: '1', delivered: '1', held: '0' });
    agent.child.kill('SIGTERM');
    expect(await agent.exit).toBe(0);
    for (const line of agent.err().trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('msg');
  });

  it('gives up a drain after --stop-timeout, and exits with 3', async () => {
    const agent = millrace(['agent', '-n', 'a1', '-f', conf(stuck), '--stop-timeout', '0']);
    await agent.logs('runs');
    agent.child.kill('SIGTERM');
    expect(await agent.exit).toBe(3);
    expect(agent.err()).toContain('did not drain');
  });

  it('ends at once on a second signal', async () => {
    const agent = millrace(['agent', '-n', 'a1', '-f', conf(stuck)]);
    await agent.logs('runs');
    agent.child.kill('SIGINT');
    await agent.logs('draining');
    agent.child.kill('SIGINT');
    expect(await agent.exit).toBe(3);
  });

  it.each([
    [['agent'], "required option '-n, --name <name>'"],
    [['agent', '-n', 'a1'], 'no configuration was given'],
    [['agnet'], 'unknown command'],
    [['agent', '-n', 'a1', '-u', 'classpath:y'], 'expected file:, http: or https:, or a path'],
    [['agent', '-n', 'a1', '-u', 'http://u:secret@x/y'], 'a password in an address is not taken'],
  ])('%j is wrong usage', async (words, says) => {
    const cli = millrace(words);
    expect(await cli.exit).toBe(2);
    expect(cli.err()).toContain(says);
  });
});

describe('validate', () => {
  it('accepts what is right', async () => {
    const cli = millrace(['validate', '-f', join(root, 'examples/netcat-logger.conf')]);
    expect(await cli.exit).toBe(0);
    expect(cli.out()).toBe('no problems found\n');
  });

  it('prints JSON for machines', async () => {
    const cli = millrace(['validate', '-f', 'examples/mistake.conf', '--format', 'json']);
    expect(await cli.exit).toBe(1);
    expect(JSON.parse(cli.out())).toMatchObject({
      errors: 3,
      warnings: 1,
      problems: [{ file: 'examples/mistake.conf', line: 7, column: 22 }, {}, {}, {}],
    });
  });

  it('with --connect tries what components name, if they are right', async () => {
    const right = millrace(['validate', '-f', join(root, 'examples/netcat-logger.conf'), '--connect']);
    expect(await right.exit).toBe(0);
    expect(right.out()).toBe('no problems found\n');
    // Port 1 is nobody's.
    const lines = [
      'a1.sinks = k1',
      'a1.channels = c1',
      'a1.channels.c1.type = memory',
      'a1.sinks.k1.channel = c1',
      'a1.sinks.k1.type = kafka',
      'a1.sinks.k1.kafka.bootstrap.servers = 127.0.0.1:1',
    ];
    const alone = millrace(['validate', '-f', conf(lines.join('\n'))]);
    expect(await alone.exit).toBe(0);
    const away = millrace(['validate', '-f', conf(lines.join('\n')), '--connect']);
    expect(await away.exit).toBe(1);
    expect(away.out()).toMatch(
      /:6:39: error: a1\.sinks\.k1\.kafka\.bootstrap\.servers: .*127\.0\.0\.1:1.*\n.*\n +\^{11}\n/,
    );
    // An agent would wait for it; asked to, it does not start.
    const agent = millrace(['agent', '-n', 'a1', '-f', conf(lines.join('\n')), '--connect']);
    expect(await agent.exit).toBe(1);
    expect(agent.err()).toMatch(/error: a1\.sinks\.k1\.kafka\.bootstrap\.servers: .*127\.0\.0\.1:1/);
    expect(agent.err()).not.toContain('agent a1 runs');
  });

  it('survives a file that is not text', async () => {
    const file = conf('');
    writeFileSync(file, Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 89) & 0xff)));
    const cli = millrace(['validate', '-f', file]);
    expect(await cli.exit).toBe(1);
    expect(cli.err()).toBe('');
  });
});

describe('list and help', () => {
  it('are there after npm ci, as npx millrace', () => {
    expect(execFileSync('npx', ['millrace', 'version'], { cwd: root, encoding: 'utf8' })).toBe('millrace 0.1.0\n');
  });

  it('explain what there is', async () => {
    const list = millrace(['list']);
    expect(await list.exit).toBe(0);
    expect(list.out()).toMatch(/Sources\n[\s\S]*netcat[\s\S]*Channels\n[\s\S]*memory[\s\S]*Sinks\n[\s\S]*logger/);
    const help = millrace(['help', 'NETCAT']);
    expect(await help.exit).toBe(0);
    expect(help.out()).toContain('max-line-length');
    const unknown = millrace(['help', 'netcatt']);
    expect(await unknown.exit).not.toBe(0);
    expect(unknown.err()).toContain('netcat');
  });
});

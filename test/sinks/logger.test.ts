import { describe, expect, it } from 'vitest';
import { event, headers, run, type FlumeEvent } from '../../src/index.ts';
import { createSource } from '../../src/core/source.ts';
import { loggerSink, type LoggerSinkOptions, type Output } from '../../src/sinks/logger.ts';

const printed = async (
  events: readonly FlumeEvent[],
  options: LoggerSinkOptions = {},
  terminal = false,
): Promise<string> => {
  let text = '';
  const output: Output = {
    isTTY: terminal,
    write(more, written) {
      text += more;
      written();
    },
  };
  const source = createSource(emitter => {
    emitter.emit(events);
    emitter.complete();
    return {};
  });
  await run(source, loggerSink({ ...options, output })).done;
  return text;
};

describe('logger sink', () => {
  it('prints as Flume does: headers, sixteen bytes, the same as text', async () => {
    expect(await printed([event('Hello world!\r')])).toBe(
      'Event: { headers:{} body: 48 65 6C 6C 6F 20 77 6F 72 6C 64 21 0D          Hello world!. }\n',
    );
    expect(await printed([event('0123456789abcdefgh', headers({ k: 'v', n: '1' }))])).toBe(
      'Event: { headers:{k=v, n=1} body: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 0123456789abcdef }\n',
    );
  });

  it('prints an empty body', async () => {
    expect(await printed([event('')])).toBe('Event: { headers:{} body: }\n');
  });

  it('shows as many bytes as asked for', async () => {
    expect(await printed([event('hello')], { maxBytesToLog: 2 })).toBe('Event: { headers:{} body: 68 65 he }\n');
  });

  it('prints text for people', async () => {
    expect(await printed([event('grüße', headers({ from: 'me' })), event('x'.repeat(1001))], { format: 'text' })).toBe(
      `{from=me} grüße\n${'x'.repeat(1000)}…\n`,
    );
  });

  it('uses colours only on a terminal', async () => {
    expect(await printed([event('a')], {}, true)).toContain('\u001b[');
    expect(await printed([event('a')])).not.toContain('\u001b');
  });

  it('lets nothing through that a terminal would obey', async () => {
    const nasty = '\u001b[2J\u0007\u009b31m';
    for (const format of ['flume', 'text'] as const) {
      expect(await printed([event(nasty, headers({ [nasty]: nasty }))], { format })).not.toMatch(
        /[\u0007\u001b\u009b]/,
      );
    }
  });

  it('waits for a slow output, and writes again what it did not take', async () => {
    const text: string[] = [];
    let failures = 2;
    const output: Output = {
      write(more, written) {
        setImmediate(() => {
          if (failures-- > 0) written(new Error('EAGAIN'));
          else {
            text.push(more);
            written();
          }
        });
      },
    };
    const source = createSource(emitter => {
      for (const n of [1, 2, 3]) emitter.emit([event(String(n))]);
      emitter.complete();
      return {};
    });
    await run(source, loggerSink({ output, format: 'text', retry: { initial: 1 } })).done;
    expect(text).toEqual(['1\n', '2\n', '3\n']);
  });
});

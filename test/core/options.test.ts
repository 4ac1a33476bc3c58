import { homedir } from 'node:os';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { z } from 'zod';
import { MillraceError } from '../../src/core/errors.ts';
import {
  choice,
  code,
  expectation,
  fieldInfo,
  flag,
  int,
  list,
  map,
  parseOptions,
  path,
  port,
  secret,
  shown,
  text,
} from '../../src/core/options.ts';

const schema = z.object({
  port: port('Port to listen on.'),
  batchSize: int('Events per batch.', { default: 100, min: 1, max: 1000 }),
  ack: flag('Answers each line.', { default: true }),
  encoding: text('Character set.', { default: 'utf-8' }),
  bind: text('Address.', { optional: true }),
  order: choice(['oldest', 'youngest'], { 'org.x.Young': 'youngest' }, ['LARGEST', 'org.x.Large'])('Which first.', {
    default: 'oldest',
  }),
  groups: list('Names.', { default: [] }),
  headers: map('Headers.', { default: {} }),
  positionFile: path('Where positions are kept.', { default: '~/.flume/taildir_position.json' }),
  password: secret('Opens the key store.', { optional: true }),
  handler: code<() => number>()('From code only.', { optional: true }),
});

const parse = (given: unknown) => parseOptions('netcat', schema, given);
const message = (given: unknown): string => {
  try {
    parse(given);
  } catch (error) {
    expect(error).toBeInstanceOf(MillraceError);
    return (error as MillraceError).message;
  }
  throw new Error('expected an error');
};

describe('what a component sees', () => {
  test('defaults fill what is not given', () => {
    expect(parse({ port: 1 })).toEqual({
      port: 1,
      batchSize: 100,
      ack: true,
      encoding: 'utf-8',
      order: 'oldest',
      groups: [],
      headers: {},
      positionFile: `${homedir()}/.flume/taildir_position.json`,
    });
  });

  test('text from a file means the same as a value from code', () => {
    const fromText = { port: '80', batchSize: '+5', ack: 'TRUE', order: 'Youngest', groups: ' a  b\tc ' };
    expect(parse({ port: 1, groups: 'a,b, c' }).groups).toEqual(['a', 'b', 'c']);
    const fromCode = { port: 80, batchSize: 5, ack: true, order: 'youngest', groups: ['a', 'b', 'c'] };
    expect(parse(fromText)).toEqual(parse(fromCode));
  });

  test('a choice is known by its class name too', () => {
    expect(parse({ port: 1, order: ' org.x.Young ' }).order).toBe('youngest');
    expect(message({ port: 1, order: 'org.x.young' })).toContain('one of oldest, youngest');
    expect(message({ port: 1, order: 'constructor' })).toContain('one of oldest, youngest');
  });

  test.each(['LARGEST', 'largest', 'org.x.Large'])('a choice that is not built in is named so: %s', order => {
    expect(message({ port: 1, order })).toContain(
      `order: ${order} is not built in yet; expected one of oldest, youngest`,
    );
  });

  test('parsing what was parsed changes nothing', () => {
    const once = parse({ port: '80', positionFile: '~/p', groups: 'a b' });
    expect(parse(once)).toEqual(once);
  });

  test('text is taken as it is, with its spaces', () => {
    expect(parse({ port: 1, encoding: ' ' }).encoding).toBe(' ');
  });

  test('types follow from the schema', () => {
    expectTypeOf<z.input<typeof schema>>().toExtend<{ port: number; batchSize?: number | undefined }>();
    expectTypeOf<z.output<typeof schema>['order']>().toEqualTypeOf<'oldest' | 'youngest'>();
    expectTypeOf<z.output<typeof schema>['groups']>().toEqualTypeOf<readonly string[]>();
    expectTypeOf<z.output<typeof schema>['handler']>().toEqualTypeOf<(() => number) | undefined>();
  });
});

describe('what is wrong is said', () => {
  test.each([
    [{}, 'netcat: port is missing; expected a port, 0–65535'],
    [{ port: 'abc' }, 'netcat: port: expected a port, 0–65535, found "abc"'],
    [{ port: 70_000 }, 'netcat: port: expected a port, 0–65535, found 70000'],
    [{ port: 1, batchSize: '0' }, 'netcat: batchSize: expected a whole number from 1 to 1000, found "0"'],
    [{ port: 1, batchSize: 1.5 }, 'netcat: batchSize: expected a whole number from 1 to 1000, found 1.5'],
    [{ port: 1, batchSize: '99999999999999999999' }, 'expected a whole number from 1 to 1000'],
    [{ port: 1, ack: 'yes' }, 'netcat: ack: expected true or false, found "yes"'],
    [{ port: 1, order: 'random' }, 'netcat: order: expected one of oldest, youngest, found "random"'],
    [{ port: 1, headers: { a: 1 } }, 'netcat: headers.a: expected text'],
    [{ port: 1, positionFile: '' }, 'netcat: positionFile: expected a path, found ""'],
    [{ port: 1, ackk: false }, 'netcat: there is no option ackk; did you mean ack?'],
    [{ port: 1, wombat: 1 }, 'netcat: there is no option wombat'],
    [5, 'netcat: Invalid input: expected object, received number'],
  ])('%j', (given, expected) => {
    expect(message(given)).toContain(expected);
  });

  test('all of it at once', () => {
    expect(message({ port: 'x', ack: 'y', z: 1 })).toMatch(/port: .*; ack: .*; there is no option z/);
  });

  test('a secret is never printed', () => {
    expect(message({ port: 1, password: ['hunter2'] })).toBe('netcat: password: expected text');
  });

  test('a value is shown on one line, cut, whatever it is', () => {
    const round: Record<string, unknown> = {};
    round['self'] = round;
    expect(shown(round)).toContain('Circular');
    expect(shown('a\u001b[31m\n')).toBe('"a\\u001b[31m\\n"');
    expect(shown('x'.repeat(1000))).toHaveLength(100);
    expect(shown(10n)).toBe('10n');
  });
});

describe('what is known about a field', () => {
  test('is kept beside it', () => {
    expect(fieldInfo.get(schema.shape.batchSize)).toEqual({
      kind: 'integer',
      summary: 'Events per batch.',
      default: 100,
      min: 1,
      max: 1000,
      required: false,
    });
    expect(fieldInfo.get(schema.shape.port)?.required).toBe(true);
    expect(fieldInfo.get(schema.shape.bind)?.required).toBe(false);
    expect(fieldInfo.get(schema.shape.order)?.choices).toEqual(['oldest', 'youngest']);
    expect(fieldInfo.get(schema.shape.handler)?.inFile).toBe(false);
  });

  test('is said in words', () => {
    const words = (min?: number, max?: number) =>
      expectation({
        kind: 'integer',
        summary: '',
        ...(min !== undefined && { min }),
        ...(max !== undefined && { max }),
      });
    expect([words(), words(1), words(undefined, 9), words(1, 9)]).toEqual([
      'a whole number',
      'a whole number of at least 1',
      'a whole number of at most 9',
      'a whole number from 1 to 9',
    ]);
  });
});

import { describe, expect, test } from 'vitest';
import { nearest } from '../../src/core/nearest.ts';

describe('nearest', () => {
  test.each([
    ['chanels', ['type', 'channels', 'channel'], 'channels'],
    ['batchsize', ['batchSize', 'batchTimeout'], 'batchSize'],
    ['netact', ['exec', 'netcat', 'seq'], 'netcat'],
    ['c2', ['c1', 'r1'], 'c1'],
    ['Memory', ['memory'], 'memory'],
  ])('%s of %j is %s', (word, candidates, meant) => {
    expect(nearest(word, candidates)).toBe(meant);
  });

  test('gives nothing rather than a guess', () => {
    expect(nearest('wombat', ['netcat', 'memory'])).toBeUndefined();
    expect(nearest('x', ['y'])).toBeUndefined();
    expect(nearest('', ['a'])).toBeUndefined();
    expect(nearest('port', ['port'])).toBeUndefined();
  });

  test('of two equally close words the first wins', () => {
    expect(nearest('sink', ['sinks', 'sinc'])).toBe('sinks');
  });

  test('does not compare words that nobody types', () => {
    expect(nearest('x'.repeat(100_000), ['x'.repeat(99_999), 'port'])).toBeUndefined();
    expect(nearest('port', ['x'.repeat(100_000)])).toBeUndefined();
  });
});

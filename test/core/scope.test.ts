import { describe, expect, test, vi } from 'vitest';
import { currentScope, inScope, quietLog, Scope, scopeIsGiven, type Stoppable } from '../../src/core/scope.ts';
import { FakeClock, recordingLog } from '../../src/testing/index.ts';
import { deferred } from './fakes.ts';

const session = () => ({ finish: vi.fn<() => void>(), abort: vi.fn<() => void>() }) satisfies Stoppable;

describe('the current scope', () => {
  test('is the given one inside, and the one before again afterwards', () => {
    const [outer, inner] = [new Scope(), new Scope()];
    expect(scopeIsGiven()).toBe(false);
    inScope(outer, () => {
      expect(currentScope()).toBe(outer);
      expect(inScope(inner, () => currentScope())).toBe(inner);
      expect(currentScope()).toBe(outer);
    });
    expect(scopeIsGiven()).toBe(false);
  });

  test('is left also when something throws', () => {
    const fails = () => {
      throw new Error('no');
    };
    expect(() => inScope(new Scope(), fails)).toThrow('no');
    expect(scopeIsGiven()).toBe(false);
  });

  test('is a new one each time when none is given', () => {
    expect(currentScope()).not.toBe(currentScope());
  });

  test('does not reach into callbacks', async () => {
    const scope = new Scope();
    const later = inScope(scope, () => Promise.resolve().then(() => scopeIsGiven()));
    expect(await later).toBe(false);
  });
});

describe('a scope', () => {
  test('has what it is given, and its own of the rest', () => {
    const clock = new FakeClock();
    const log = recordingLog();
    const [one, other] = [new Scope({ clock, log }), new Scope({ clock, log })];
    expect([one.clock, one.log]).toEqual([clock, log]);
    expect(one.metrics).not.toBe(other.metrics);
    expect(one.ledger).not.toBe(other.ledger);
    expect(new Scope(one).metrics).toBe(one.metrics);
  });

  test('knows which sources are open, and tells when the last one has closed, however it did', async () => {
    const scope = new Scope();
    const closed = vi.fn();
    scope.onSourcesClosed = closed;
    const [good, bad] = [deferred(), deferred()];
    scope.opened(session(), good.promise);
    scope.opened(session(), bad.promise);
    expect(scope.sourcesOpen).toBe(2);
    good.resolve();
    await good.promise;
    expect([scope.sourcesOpen, closed.mock.calls.length]).toEqual([1, 0]);
    bad.reject(new Error('does not close'));
    await expect(scope.settled()).rejects.toThrow('does not close');
    expect([scope.sourcesOpen, closed.mock.calls.length]).toEqual([0, 1]);
  });

  test.each(['finish', 'abort'] as const)('asks every open source to %s, and lets no more open', async what => {
    const scope = new Scope();
    const [over, open] = [session(), session()];
    scope.opened(over, Promise.resolve());
    await scope.settled();
    scope.opened(open, deferred().promise);
    scope[what === 'finish' ? 'finishSources' : 'abortSources']();
    expect(over[what]).not.toHaveBeenCalled();
    expect(open[what]).toHaveBeenCalledOnce();
    expect(scope.stopping).toBe(true);
  });

  test('settles when everything is closed, also what began to close meanwhile', async () => {
    const scope = new Scope();
    const [first, second] = [deferred(), deferred()];
    scope.waitFor(first.promise);
    const done = vi.fn();
    const settled = scope.settled().then(done);
    scope.waitFor(second.promise);
    first.resolve();
    await first.promise;
    await new Promise(setImmediate);
    expect(done).not.toHaveBeenCalled();
    second.resolve();
    await settled;
    expect(done).toHaveBeenCalledOnce();
  });

  test('rejects with the first error that closing met, when all is closed', async () => {
    const scope = new Scope();
    const slow = deferred();
    scope.waitFor(Promise.reject(new Error('first')));
    scope.waitFor(Promise.reject(new Error('second')));
    scope.waitFor(slow.promise);
    const settled = scope.settled();
    slow.resolve();
    await expect(settled).rejects.toThrow('first');
  });
});

test('libraries warn, and say nothing else', () => {
  const emitWarning = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
  try {
    quietLog.info('all is well');
    quietLog.warn('careful');
    quietLog.error('trouble');
    expect(emitWarning.mock.calls.map(([message]) => message)).toEqual(['careful', 'trouble']);
  } finally {
    emitWarning.mockRestore();
  }
});

import { describe, expect, test, vi } from 'vitest';
import { backoffDelay, longestWait, systemClock } from '../../src/core/clock.ts';
import { FakeClock, seededRandom } from '../../src/testing/index.ts';

describe('systemClock', () => {
  test.each([longestWait + 1, 1e12, Infinity])('a wait of %d ms does not end at once', ms => {
    vi.useFakeTimers();
    try {
      const called = vi.fn();
      systemClock.after(ms, called);
      vi.advanceTimersByTime(longestWait - 1);
      expect(called).not.toHaveBeenCalled();
      vi.advanceTimersByTime(1);
      expect(called).toHaveBeenCalledOnce();
    } finally {
      vi.useRealTimers();
    }
  });

  test('the fake one is the same', async () => {
    const clock = new FakeClock(0);
    const called = vi.fn(() => clock.now());
    clock.after(Infinity, called);
    await clock.advance(longestWait);
    expect(called).toHaveReturnedWith(longestWait);
  });
});

test('backoff doubles up to its maximum, half of it by chance, and never overflows', () => {
  const random = seededRandom(1);
  for (let attempt = 1; attempt < 2000; attempt++) {
    const full = Math.min(5000, 100 * 2 ** (attempt - 1));
    const delay = backoffDelay({ initial: 100, max: 5000 }, attempt, random);
    expect(delay).toBeGreaterThanOrEqual(full / 2);
    expect(delay).toBeLessThanOrEqual(full);
    expect(Number.isFinite(backoffDelay({ initial: 100, max: Infinity }, attempt, random))).toBe(true);
  }
});

import { createRequire } from 'node:module';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { RequestQueue } from '../../../../src/protocols/kafka/kafkajs/package.ts';
import { curedOfIdleTimers } from '../../../../src/protocols/kafka/kafkajs/patches.ts';

type Queue = RequestQueue & {
  throttledUntil: number;
  checkPendingRequests(): void;
  push(request: object): void;
};
const Queue = createRequire(import.meta.url)('kafkajs/src/network/requestQueue') as new (options: object) => Queue;
const newQueue = (requestTimeout = 1000) =>
  new Queue({
    maxInFlightRequests: 1,
    requestTimeout,
    enforceRequestTimeout: true,
    clientId: 'test',
    broker: 'here:1',
    logger: { debug: () => undefined },
  });
const cured = (requestTimeout?: number) => {
  const queue = newQueue(requestTimeout);
  curedOfIdleTimers({ pool: [{ requestQueue: queue }] as never });
  return queue;
};

describe('the idle timers of kafkajs', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** How often the process is woken in a second in which nothing is asked, after an answer has come. */
  const wakeUps = (queue: Queue): number => {
    const look = vi.spyOn(queue, 'checkPendingRequests');
    queue.checkPendingRequests();
    vi.advanceTimersByTime(1000);
    return look.mock.calls.length - 1;
  };

  it('is there in the version that we use', () => {
    expect(wakeUps(newQueue())).toBeGreaterThan(900);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('is gone on our connections', () => {
    expect(wakeUps(cured())).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('still sends what waits when a broker has asked for fewer requests', () => {
    const queue = cured();
    queue.throttledUntil = Date.now() + 500;
    const sendRequest = vi.fn();
    queue.push({ entry: { correlationId: 1, resolve: () => undefined }, expectResponse: true, sendRequest });
    vi.advanceTimersByTime(499);
    expect(sendRequest).not.toHaveBeenCalled();
    vi.advanceTimersByTime(20);
    expect(sendRequest).toHaveBeenCalledOnce();
  });

  it('looks for overdue answers ten times a second there, and once here', () => {
    const looks = (queue: Queue): number => {
      const look = vi.spyOn(queue, 'isConnected').mockReturnValue(true);
      queue.scheduleRequestTimeoutCheck();
      vi.advanceTimersByTime(10_000);
      queue.destroy();
      return look.mock.calls.length;
    };
    expect(looks(newQueue(30_000))).toBe(100);
    expect(looks(cured(30_000))).toBe(10);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('finds an answer that is overdue, soon after it is', () => {
    const queue = cured();
    vi.spyOn(queue, 'isConnected').mockReturnValue(true);
    const timeoutRequest = vi.fn();
    (queue.inflight as Map<number, object>).set(1, { sentAt: Date.now(), requestTimeout: 1000, timeoutRequest });
    queue.scheduleRequestTimeoutCheck();
    vi.advanceTimersByTime(1000);
    expect(timeoutRequest).not.toHaveBeenCalled();
    vi.advanceTimersByTime(100);
    expect(timeoutRequest).toHaveBeenCalledOnce();
    queue.destroy();
  });
});

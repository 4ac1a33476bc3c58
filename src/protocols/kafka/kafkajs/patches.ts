/**
 * What is changed in kafkajs 2.2.4, on our own connections only: an idle connection wakes the process too often.
 *
 * When an answer has come, its request queue asks to be looked at again after `throttledUntil - now` ms. Without throttling that
 * is negative, a timer of 1 ms, and the look asks for the next: every connection wakes the process a thousand times a second for
 * ever, 2.3 % of a core, see https://github.com/tulios/kafkajs/issues/1751. A look is of use only while requests wait.
 *
 * And whether an answer is overdue it looks ten times a second, 0.7 % of a core per connection. Here it is once a second, or ten times within
 * what a request may take.
 *
 * @module
 */
import type { ConnectionPool } from './package.ts';

/** How often it is looked for overdue answers, at least, in ms. */
const lookEvery = 1000;

export const curedOfIdleTimers = <Pool extends Pick<ConnectionPool, 'pool'>>(pool: Pool): Pool => {
  for (const { requestQueue } of pool.pool) {
    const schedule = requestQueue.scheduleCheckPendingRequests.bind(requestQueue);
    requestQueue.scheduleCheckPendingRequests = () => {
      if (requestQueue.pending.length > 0) schedule();
    };
    requestQueue.scheduleRequestTimeoutCheck = () => {
      requestQueue.destroy();
      requestQueue.requestTimeoutIntervalId = setInterval(
        () => {
          const now = Date.now();
          for (const request of requestQueue.inflight.values())
            if (now - request.sentAt > request.requestTimeout) request.timeoutRequest();
          if (!requestQueue.isConnected()) requestQueue.destroy();
        },
        Math.min(requestQueue.requestTimeout / 10, lookEvery),
      );
    };
  }
  return pool;
};

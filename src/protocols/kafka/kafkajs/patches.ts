/**
 * The one thing in kafkajs 2.2.4 that is changed, on our own connections only.
 *
 * When an answer has come, its request queue asks to be looked at again after `throttledUntil - now` ms. Without throttling that
 * is negative, a timer of 1 ms, and the look asks for the next: every connection wakes the process a thousand times a second for
 * ever, 2.3 % of a core, see https://github.com/tulios/kafkajs/issues/1751. A look is of use only while requests wait.
 *
 * @module
 */
import type { ConnectionPool } from './package.ts';

export const curedOfIdleTimer = <Pool extends Pick<ConnectionPool, 'pool'>>(pool: Pool): Pool => {
  for (const { requestQueue } of pool.pool) {
    const schedule = requestQueue.scheduleCheckPendingRequests.bind(requestQueue);
    requestQueue.scheduleCheckPendingRequests = () => {
      if (requestQueue.pending.length > 0) schedule();
    };
  }
  return pool;
};

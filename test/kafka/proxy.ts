/**
 * A TCP proxy on loopback, to make a network bad. Kafka's clients learn addresses from the brokers, so a broker has to
 * tell them the proxy's: `startKafka({ advertise: async port => (cable = await proxy({ to: port })).port })`.
 *
 * @module
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** `up` is from clients to the server, `down` is back. */
export type Direction = 'up' | 'down';

export interface Proxy {
  readonly port: number;
  /** In ms: how long each piece of what is forwarded waits, up to 64 KiB. A slow line. Default 0. */
  delay: number;
  /** Connections that there are, in and out. */
  readonly connections: () => number;
  /** Breaks every connection. New ones are possible. */
  readonly cut: () => void;
  /** Forwards nothing more, in either direction, and keeps all connections, as a lost network does. */
  readonly hold: () => void;
  /** Forwards what was held, and all that comes. */
  readonly release: () => void;
  /** Breaks the connection on which the byte after so many of them, counted from now over all, would go. Resolves then. */
  readonly cutAfter: (bytes: number, direction: Direction) => Promise<void>;
  /** Breaks every connection and refuses new ones. */
  readonly close: () => Promise<void>;
}

export const proxy = async ({ to }: { readonly to: number }): Promise<Proxy> => {
  const sockets = new Set<Socket>();
  let free = Promise.resolve();
  let release = () => {};
  let limit: { left: number; direction: Direction; reached: () => void } | undefined;

  const forward = async (from: Socket, into: Socket, direction: Direction) => {
    // At its end the other direction may still have something to say.
    for await (const piece of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      await free;
      if (self.delay > 0) await sleep(self.delay);
      if (limit?.direction === direction && piece.length > limit.left) {
        const { left, reached } = limit;
        limit = undefined;
        // What goes still arrives: only then is the connection gone.
        await new Promise<void>(sent => into.write(piece.subarray(0, left), () => sent()));
        from.destroy();
        into.destroy();
        return reached();
      }
      if (limit?.direction === direction) limit.left -= piece.length;
      if (!into.write(piece)) await once(into, 'drain');
    }
    into.end();
  };

  const server = createServer({ allowHalfOpen: true }, client => {
    const behind = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
    const broken = () => {
      client.destroy();
      behind.destroy();
    };
    for (const socket of [client, behind]) {
      socket.on('error', broken);
      socket.setNoDelay();
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    }
    forward(client, behind, 'up').catch(broken);
    forward(behind, client, 'down').catch(broken);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const cut = () => sockets.forEach(socket => socket.resetAndDestroy());
  const self: Proxy = {
    port: (server.address() as AddressInfo).port,
    delay: 0,
    connections: () => sockets.size,
    cut,
    hold() {
      release();
      free = new Promise(resolve => (release = resolve));
    },
    release: () => release(),
    cutAfter: (left, direction) => new Promise(reached => (limit = { left, direction, reached })),
    async close() {
      const closed = once(server, 'close');
      server.close();
      release();
      cut();
      await closed;
    },
  };
  return self;
};

import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { proxy, type Proxy } from './proxy.ts';

describe('proxy', () => {
  const echo = createServer(socket => socket.on('error', () => undefined).pipe(socket));
  let cable: Proxy;
  const clients: Socket[] = [];
  beforeEach(async () => {
    echo.listen(0, '127.0.0.1');
    await once(echo, 'listening');
    cable = await proxy({ to: (echo.address() as AddressInfo).port });
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await cable.close();
    echo.close();
    await once(echo, 'close');
  });

  const dial = async () => {
    const socket = connect(cable.port, '127.0.0.1');
    clients.push(socket);
    await once(socket, 'connect');
    return socket;
  };
  /** What comes until the end, however that is. */
  const rest = (socket: Socket) =>
    new Promise<string>(resolve => {
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
      socket.on('error', () => undefined).once('close', () => resolve(text));
    });

  it('forwards both ways, and the end', async () => {
    const socket = await dial();
    const all = rest(socket);
    const text = 'x'.repeat(3_000_000);
    socket.end(text);
    expect((await all).length).toBe(text.length);
  });

  it('cuts what is there and takes what is new', async () => {
    const socket = await dial();
    socket.write('before');
    await once(socket, 'data');
    const gone = once(socket, 'error');
    cable.cut();
    expect(await gone).toMatchObject([{ code: 'ECONNRESET' }]);
    const next = await dial();
    next.write('after');
    expect(String((await once(next, 'data'))[0])).toBe('after');
  });

  it('cuts in the middle of what is sent, in either direction', async () => {
    for (const direction of ['up', 'down'] as const) {
      const socket = await dial();
      const all = rest(socket);
      const reached = cable.cutAfter(5, direction);
      socket.write('123456789');
      await reached;
      // The five that went up are not back before the line is gone.
      expect(await all).toBe(direction === 'down' ? '12345' : '');
    }
  });

  it('holds and releases', async () => {
    const socket = await dial();
    cable.hold();
    socket.write('held');
    // It is neither answered nor ended: what comes first is the release.
    const first = Promise.race([once(socket, 'data'), once(socket, 'close')]);
    let came = false;
    void first.then(() => (came = true));
    const other = await dial();
    other.write('held too');
    // A whole way there and back, past the proxy.
    const direct = connect((echo.address() as AddressInfo).port, '127.0.0.1');
    clients.push(direct);
    direct.write('direct');
    await once(direct, 'data');
    expect(came).toBe(false);
    cable.release();
    expect(String((await first)[0])).toBe('held');
    expect(String((await once(other, 'data'))[0])).toBe('held too');
  });

  it('refuses when it is closed', async () => {
    await cable.close();
    await expect(dial()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    cable = await proxy({ to: 1 });
  });

  it('ends connections to where nobody listens', async () => {
    const nowhere = await proxy({ to: 1 });
    const socket = connect(nowhere.port, '127.0.0.1');
    clients.push(socket);
    expect(await rest(socket)).toBe('');
    await nowhere.close();
  });
});

/**
 * Listening on a TCP port, with an error that says what to do when the port is taken.
 *
 * @module
 */
import type { AddressInfo, Server } from 'node:net';
import { MillraceError, systemCode, toError } from '../core/errors.ts';

/**
 * Listens, and resolves with the address that was got (port 0 lets the system choose).
 *
 * @throws MR_ADDRESS_IN_USE if the port is taken, MR_IO if the system refuses it otherwise.
 */
export const listen = (
  server: Server,
  { port, bind }: { readonly port: number; readonly bind: string },
): Promise<AddressInfo> =>
  new Promise((resolve, reject) => {
    const refused = (thrown: unknown) => {
      const cause = toError(thrown);
      const code = systemCode(cause);
      if (code === 'EADDRINUSE') {
        const advice = 'Stop the process that listens there, or set another `port`.';
        reject(new MillraceError('MR_ADDRESS_IN_USE', `port ${port} on ${bind} is in use. ${advice}`, { cause }));
      } else reject(new MillraceError('MR_IO', `cannot listen on ${bind}:${port}: ${cause.message}`, { cause }));
    };
    server.once('error', refused);
    server.listen(port, bind, () => {
      server.off('error', refused);
      resolve(server.address() as AddressInfo);
    });
  });

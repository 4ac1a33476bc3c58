/**
 * One process at a time in a directory.
 *
 * On Linux a socket in the abstract namespace, named after the directory, is the lock: the kernel lets go of it with the
 * process, however that ends. It is not seen from another network namespace, and other systems have none; so a file
 * `LOCK` says as well who holds it: a lock whose process is gone, or began at another time, is taken over.
 *
 * @module
 */
import fs from 'node:fs';
import { createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { MillraceError, systemCode } from './errors.ts';

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** Which start of the machine. */
  readonly boot: string;
  /** When the process began, in ticks since then: its pid may be another's by now. */
  readonly began: string;
}

/** Takes the lock, or throws `MR_LOCKED`; what it returns lets go of it. */
export const lockDirectory = async (directory: string): Promise<() => Promise<void>> => {
  const path = join(directory, 'LOCK');
  const socket = await listen(directory);
  const holder = await heldBy(path);
  if (socket === 'taken' || holder !== undefined) {
    if (socket !== 'taken') await close(socket);
    throw new MillraceError(
      'MR_LOCKED',
      `${directory} is used by ${holder === undefined ? 'another process' : `process ${holder.pid} on ${holder.host}`}. ` +
        `Stop that, or name another directory.`,
    );
  }
  try {
    await fs.promises.writeFile(path, JSON.stringify(self()));
  } catch (thrown) {
    await close(socket);
    throw thrown;
  }
  return async () => {
    await fs.promises.rm(path, { force: true }).finally(() => close(socket));
  };
};

const listen = async (directory: string): Promise<Server | 'taken' | undefined> => {
  if (process.platform !== 'linux') return undefined;
  const { dev, ino } = await fs.promises.stat(directory);
  const server = createServer();
  server.unref();
  return new Promise((resolve, reject) => {
    server.once('error', error => {
      if (systemCode(error) === 'EADDRINUSE') resolve('taken');
      // No such sockets here, in some sandbox: the file has to do.
      else if (systemCode(error) === 'EACCES' || systemCode(error) === 'EPERM') resolve(undefined);
      else reject(error);
    });
    server.listen(`\0millrace:${dev}:${ino}`, () => resolve(server));
  });
};

const close = (server: Server | undefined): Promise<void> =>
  new Promise(resolve => (server === undefined ? resolve() : server.close(() => resolve())));

const self = (): Holder => ({ pid: process.pid, host: hostname(), boot: bootId(), began: beganAt(process.pid) });

/** The process that holds a directory, as far as its file `LOCK` says; undefined if there is none. Changes nothing. */
export const lockHolder = async (directory: string): Promise<number | undefined> =>
  (await heldBy(join(directory, 'LOCK')))?.pid;

/** Who holds it according to the file, if that is still so. */
const heldBy = async (path: string): Promise<Holder | undefined> => {
  let holder: Partial<Holder> | null;
  try {
    holder = JSON.parse(await fs.promises.readFile(path, 'utf8')) as Partial<Holder> | null;
  } catch {
    // None, or one that was being written when its process ended.
    return undefined;
  }
  const { pid, boot, began } = holder ?? {};
  if (typeof pid !== 'number' || boot !== bootId() || !alive(pid) || began !== beganAt(pid)) return undefined;
  return holder as Holder;
};

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
};

const read = (path: string): string => {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

const bootId = (): string => read('/proc/sys/kernel/random/boot_id').trim();

/** The 22nd field; the second is a name in brackets, and may have anything in it. Of a process that is dead and not yet buried: nothing. */
const beganAt = (pid: number): string => {
  const stat = read(`/proc/${pid}/stat`);
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' || state === 'X' ? '' : (fields[18] ?? '');
};

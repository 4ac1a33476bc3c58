/**
 * One process at a time in a directory.
 *
 * On Linux a socket in the abstract namespace, named after the directory, is the lock: the kernel lets go of it with the
 * process, however that ends. It is not seen from another network namespace, and other systems have none; so a file
 * `LOCK` says as well who holds it: a lock whose process is gone, or began at another time, is taken over.
 *
 * Of a process on another machine, or in another container, nobody here can say whether it is gone. So whoever holds the lock
 * writes into the file every {@link beat}; when nothing was written for {@link silence}, the lock is taken over, and that is
 * reported. Times are compared as the file system says them: the clocks of two machines need not agree.
 *
 * @module
 */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from './clock.ts';
import { MillraceError, systemCode } from './errors.ts';

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** Which start of the machine. */
  readonly boot: string;
  /** In which container: pids are numbers of that. */
  readonly space: string;
  /** When the process began, in ticks since then: its pid may be another's by now. */
  readonly began: string;
}

/** How often a holder gives a sign of life, in ms, and after how long without one it is gone. */
const beat = 2000;
const silence = 15_000;

export interface LockOptions {
  /** Told when the lock is taken from somebody of whom nobody can say whether he is gone, or when that happens to this one. */
  readonly report?: (problem: MillraceError) => void;
  /** Default 15 s. */
  readonly silence?: number;
}

/** Takes the lock, or throws `MR_LOCKED`; what it returns lets go of it. */
export const lockDirectory = async (directory: string, options: LockOptions = {}): Promise<() => Promise<void>> => {
  const { report = () => undefined } = options;
  const path = join(directory, 'LOCK');
  const socket = await listen(directory);
  const text = JSON.stringify(self());
  const draft = `${path}.${randomUUID()}`;
  const file = await fs.promises.open(draft, 'wx').catch(async (thrown: unknown) => {
    if (socket !== 'taken') await close(socket);
    throw thrown;
  });
  const giveUp = async () => {
    await file.close();
    if (socket !== 'taken') await close(socket);
  };
  try {
    await file.write(text, 0);
    const holder = await heldBy(path);
    const stranger = socket !== 'taken' && holder !== undefined && !isHere(holder);
    const lives = stranger && (await isAlive(path, (await file.stat()).mtimeMs, options.silence));
    if (socket === 'taken' || lives || (holder !== undefined && !stranger)) throw locked(directory, holder);
    if (stranger)
      report(
        new MillraceError(
          'MR_LOCKED',
          `${directory} was locked by ${nameOf(holder)}, which has given no sign of life for ${(options.silence ?? silence) / 1000} s. ` +
            'The lock is taken over. If that process is still there, stop it: two of them destroy what is in it.',
        ),
      );
    await fs.promises.rename(draft, path).catch((thrown: unknown) => {
      throw systemCode(thrown) === 'ENOENT' ? locked(directory, undefined) : thrown;
    });
  } catch (thrown) {
    await giveUp();
    await fs.promises.rm(draft, { force: true });
    throw thrown;
  }
  await removeDrafts(directory).catch(() => undefined);
  let told = false;
  const isOurs = async () => (await fs.promises.readFile(path, 'utf8').catch(() => '')) === text;
  const timer = setInterval(() => {
    void file.write(text, 0).catch(() => undefined);
    void isOurs().then(ours => {
      if (ours || told) return;
      told = true;
      report(
        new MillraceError(
          'MR_LOCKED',
          `${path} was removed, or taken over by another process: ${directory} is not safe from that one any more.`,
        ),
      );
    });
  }, beat);
  timer.unref();
  return async () => {
    told = true;
    clearInterval(timer);
    try {
      if (await isOurs()) await fs.promises.rm(path, { force: true });
    } finally {
      await giveUp();
    }
  };
};

const nameOf = ({ pid, host }: Holder): string => `process ${pid} on ${host}`;

const locked = (directory: string, holder: Holder | undefined): MillraceError =>
  new MillraceError(
    'MR_LOCKED',
    `${directory} is used by ${holder === undefined ? 'another process' : nameOf(holder)}. Stop that, or name another directory.`,
  );

/**
 * A process that is killed while it starts leaves its draft behind. Who has the lock may remove all of them: another one that is
 * just trying comes too late anyway, and is told so when it finds its own gone.
 */
const removeDrafts = async (directory: string): Promise<void> => {
  for (const name of await fs.promises.readdir(directory))
    if (/^LOCK\.[0-9a-f-]{36}$/.test(name)) await fs.promises.rm(join(directory, name), { force: true });
};

/** Whether somebody of whom only the file tells is still there: it is written to, or not long ago. `now`: as the file system says it. */
const isAlive = async (path: string, now: number, limit = silence): Promise<boolean> => {
  const writtenAt = async () => (await fs.promises.stat(path).catch(() => undefined))?.mtimeMs;
  const before = await writtenAt();
  if (before === undefined) return false;
  const interval = Math.min(limit, 200);
  for (let silent = Math.max(0, now - before); silent < limit; silent += interval) {
    await sleep(interval);
    const after = await writtenAt();
    if (after === undefined) return false;
    if (after !== before) return true;
  }
  return false;
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

const self = (): Holder => ({
  pid: process.pid,
  host: hostname(),
  boot: bootId(),
  space: pidSpace(),
  began: beganAt(process.pid),
});

/** The process that holds a directory, as far as its file `LOCK` says; undefined if there is none. Changes nothing. */
export const lockHolder = async (directory: string): Promise<number | undefined> => {
  const path = join(directory, 'LOCK');
  const holder = await heldBy(path);
  if (holder === undefined || isHere(holder)) return holder?.pid;
  const { mtimeMs } = await fs.promises.stat(path).catch(() => ({ mtimeMs: 0 }));
  return systemClock.now() - mtimeMs < silence ? holder.pid : undefined;
};

/** Who holds it according to the file, if that may still be so. */
const heldBy = async (path: string): Promise<Holder | undefined> => {
  let found: Partial<Holder> | null;
  try {
    found = JSON.parse(await fs.promises.readFile(path, 'utf8')) as Partial<Holder> | null;
  } catch {
    // None, or one that was being written when its process ended.
    return undefined;
  }
  const { pid, host, boot } = found ?? {};
  if (typeof pid !== 'number' || typeof host !== 'string' || typeof boot !== 'string') return undefined;
  const holder = found as Holder;
  return isHere(holder) && (!alive(pid) || holder.began !== beganAt(pid)) ? undefined : holder;
};

/** Its pid means something here. Where the start of the machine is not known, its name has to do. */
const isHere = ({ host, boot, space }: Holder): boolean =>
  boot === bootId() && space === pidSpace() && (boot !== '' || host === hostname());

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

const pidSpace = (): string => {
  try {
    return fs.readlinkSync('/proc/self/ns/pid');
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

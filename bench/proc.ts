/**
 * What the kernel says about a process. Linux only, and the only file here that is: elsewhere the numbers are NaN and
 * the tables show a dash.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';

/** Linux counts CPU time in hundredths of a second whatever the kernel's own tick is (man 5 proc). */
const TICK = 100;

/** Fields of /proc/<pid>/stat behind the command name, which may itself hold spaces and brackets. */
const stat = (pid: number | 'self'): number[] => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text
      .slice(text.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
  } catch {
    return [];
  }
};

const memory = (pid: number, field: 'VmHWM' | 'VmRSS'): number => {
  try {
    const found = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return Number(found?.[1] ?? NaN) / 1024;
  } catch {
    return NaN;
  }
};

/** The most memory a process ever had resident, in MB (2^20). */
export const peakRssOf = (pid: number): number => memory(pid, 'VmHWM');
/** What it has now. */
export const rssOf = (pid: number): number => memory(pid, 'VmRSS');

/**
 * Bytes that the disk under this folder was ever given, by everybody, after all that waits was written. What a process is
 * said to write (/proc/<pid>/io) is no measure: with large pages it counts many times what a sync writes.
 */
export const diskBytes = (dir: string): number => {
  try {
    spawnSync('sync', ['-f', dir]);
    const { dev } = statSync(dir);
    const [major, minor] = [(dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)];
    const rows = readFileSync('/proc/diskstats', 'latin1')
      .split('\n')
      .map(row => row.trim().split(/ +/).map(Number));
    // Sectors are 512 bytes here whatever the disk's own are.
    return 512 * (rows.find(row => row[0] === major && row[1] === minor)?.[9] ?? NaN);
  } catch {
    return NaN;
  }
};

/** How many files, sockets and so on it has open. */
export const descriptorsOf = (pid: number): number => {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return NaN;
  }
};

/** CPU seconds of a process so far, all its threads, user and system. */
export const cpuOf = (pid: number): number => {
  const fields = stat(pid);
  return ((fields[11] ?? NaN) + (fields[12] ?? NaN)) / TICK;
};

/** CPU seconds of this process and of every child that has ended. */
export const cpuOfFamily = (): number => {
  const fields = stat('self');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0) / TICK;
};

/** CPU seconds of the whole machine since boot, all cores. */
export const cpuOfMachine = (): number =>
  cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
